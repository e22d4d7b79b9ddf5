//! Line 6, first half: whether anything gets slower with what waits at the gateway or is stored in the archive.
//!
//! Levels are filled with small reports. At each level the same 400 reports of the corpus are accepted, or rounds of as many
//! reports as the corpus has are archived, others each time.

use super::Bench;
use crate::{
    client::{
        pop3,
        smtp::{Sending, send, stuffed},
    },
    product::{Archiver, Gateway, Settings},
    table::{Table, Target, median},
};
use anyhow::{Context as _, Result, ensure};
use postkeep_bench::corpus;
use std::{fs::File, io::Write as _, path::Path, sync::Arc, time::Instant};

/// Messages waiting at the gateway.
const WAITING: [usize; 3] = [10, 10_000, 1_000_000];
/// Messages in the store.
const STORED: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Reports accepted at each level.
const SAMPLE: usize = 400;

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    for (part, run) in [("waiting", waiting as fn(&Bench, &mut Table) -> Result<()>), ("stored", stored)] {
        match part.contains(&bench.only) {
            true => run(bench, table)?,
            false => table.not_run(&format!("line 6: messages {part}"), "--only"),
        }
    }
    Ok(())
}

fn waiting(bench: &Bench, table: &mut Table) -> Result<()> {
    let folder = crate::fresh(&bench.folder, "waiting")?;
    let mut gateway = Gateway::new(&folder, Settings { connections: 64, mailboxes: 1 })?;
    let sending = |messages: Arc<Vec<Arc<Vec<u8>>>>, connections| {
        let (address, recipients) = (gateway.smtp, gateway.recipients.clone());
        send(&Sending { address, recipients, connections, tls: false, messages })
    };
    println!(
        "\n== growth: messages waiting at the gateway\n{:>12}{:>12}{:>12}{:>12}{:>14}",
        "waiting", "msg/s", "LIST ms", "UIDL ms", "resident MiB"
    );
    let sample = Arc::new(bench.wire.iter().take(SAMPLE).cloned().collect::<Vec<_>>());
    let (mut there, mut rates) = (0, Vec::new());
    for level in WAITING.into_iter().filter(|level| *level <= bench.most.max(10)) {
        while there < level {
            let more = (level - there).min(20_000);
            sending(Arc::new((there..there + more).map(|n| Arc::new(stuffed(&small(n)))).collect()), 64)?;
            there += more;
        }
        let mut session = pop3::login(gateway.pop3s, &gateway.accounts[0])?;
        ensure!(session.stat()? == there, "the gateway has {} of {there} messages", session.stat()?);
        let mut timed = |command: &str| -> Result<f64> {
            let began = Instant::now();
            let lines = session.ask_many(command)?;
            ensure!(memchr::memchr_iter(b'\n', &lines).count() == there, "{command} is not complete");
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        let (list, uidl) = (timed("LIST")?, timed("UIDL")?);
        session.ask("QUIT")?;
        let mut found = Vec::new();
        for _ in 0..bench.rounds {
            found.push(sending(Arc::clone(&sample), 8)?.rate());
            there += sample.len();
        }
        let rate = median(found);
        let resident = gateway.server()?.resident()? as f64 / (1 << 20) as f64;
        println!("{level:>12}{rate:>12.0}{list:>12.1}{uidl:>12.1}{resident:>14.1}");
        rates.push(rate);
    }
    gateway.halt()?;
    judge(table, "accept rate, most waiting / least waiting", &rates);
    Ok(())
}

fn stored(bench: &Bench, table: &mut Table) -> Result<()> {
    let folder = crate::fresh(&bench.folder, "stored")?;
    let mut gateway = Gateway::new(&folder.join("gateway"), Settings { connections: 8, mailboxes: 1 })?;
    let archiver = Archiver::new(&folder.join("archiver"), &bench.owners())?;
    archiver.collect_from(&gateway)?;
    println!(
        "\n== growth: messages in the store\n{:>12}{:>12}{:>14}{:>12}{:>20}",
        "stored", "msg/s", "CPU s/1k", "peak MiB", "nothing waiting ms"
    );
    let (mut there, mut rates) = (0, Vec::new());
    let sample = bench.wire.len();
    for (level, seed) in STORED.into_iter().filter(|level| *level <= bench.most.max(10_000)).zip(bench.seed + 1..) {
        while there < level {
            let more = (level - there).min(50_000);
            let file = folder.join("small.mbox");
            mbox(&file, there..there + more)?;
            archiver.must(&["import", file.to_str().context("a path")?, "--source", "mailbox0"])?;
            there += more;
        }
        let empty = archiver.round()?.wall.as_secs_f64() * 1e3;
        let mut found = Vec::new();
        let (mut cpu, mut peak) = (Vec::new(), Vec::new());
        // Other reports in every round and at every level: what is known is stored faster.
        let mut fresh = corpus::reports(seed, bench.rounds * sample);
        for _ in 0..bench.rounds {
            let messages: Vec<_> = fresh.by_ref().take(sample).map(|one| Arc::new(stuffed(&one.octets))).collect();
            let count = messages.len();
            let (address, recipients) = (gateway.smtp, gateway.recipients.clone());
            send(&Sending { address, recipients, connections: 8, tls: false, messages: Arc::new(messages) })?;
            let cost = archiver.round()?;
            found.push(count as f64 / cost.wall.as_secs_f64());
            cpu.push(cost.cpu.as_secs_f64() * 1e3 / count as f64);
            peak.push(cost.peak as f64 / (1 << 20) as f64);
        }
        let rate = median(found);
        println!("{level:>12}{rate:>12.0}{:>14.2}{:>12.1}{empty:>20.0}", median(cpu), median(peak));
        rates.push(rate);
    }
    gateway.halt()?;
    judge(table, "archive rate, largest store / smallest", &rates);
    Ok(())
}

fn judge(table: &mut Table, what: &str, rates: &[f64]) {
    let ratio = match rates {
        [first, .., last] => last / first,
        _ => f64::NAN,
    };
    table.judge(6, what, ratio, Target::AtLeast(0.8));
}

/// A small report; each is another.
fn small(number: usize) -> Vec<u8> {
    let message = format!(
        "From: <ann@aurora.example>\r\nTo: <bob@aurora.example>\r\nSubject: note {number}\r\n\
         Date: Mon, 3 Aug 2026 09:{:02}:{:02} +0000\r\nMessage-ID: <{number}@aurora.example>\r\n\r\n\
         Note number {number}, kept like every other.\r\n",
        number / 60 % 60,
        number % 60
    );
    format!(
        "From: <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@aurora.example>\r\nTo: <journal@archive.example>\r\n\
         Subject: note {number}\r\nMessage-ID: <{number}@journal.report.generator>\r\nX-MS-Journal-Report:\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"_b_\"\r\n\r\n--_b_\r\n\
         Content-Type: text/plain; charset=\"us-ascii\"\r\n\r\nSender: ann@aurora.example\r\nSubject: note {number}\r\n\
         Message-Id: <{number}@aurora.example>\r\nTo: bob@aurora.example\r\n\r\n--_b_\r\nContent-Type: message/rfc822\r\n\r\n\
         {message}\r\n--_b_--\r\n"
    )
    .into_bytes()
}

fn mbox(path: &Path, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    for number in numbers {
        file.write_all(b"From MAILER-DAEMON Mon Aug  3 10:00:00 2026\n")?;
        file.write_all(&small(number))?;
        file.write_all(b"\n")?;
    }
    Ok(file.into_inner()?.sync_all()?)
}
