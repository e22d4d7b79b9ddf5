//! The parsers of `tests/fuzz` with 100,000 damaged inputs, by a seed that is printed (`POSTKEEP_SEED=…` repeats it).

#[allow(unreachable_pub, reason = "a library of its own where libFuzzer uses it")]
#[path = "fuzz/src/lib.rs"]
mod parsers;
mod support;

use anyhow::{Context as _, Result, ensure};
use postkeep_gateway::spool::{Origin, Spool};
use postkeep_shared::disk::LocalDisk;
use std::{panic, sync::Arc, time::Instant};
use support::{Random, files_below, folder};

const CASES: usize = 100_000;
const LONGEST: usize = 6000;

/// Pieces that mean something to one of the parsers.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r",
    b"\n",
    b".",
    b"..",
    b" ",
    b"\0",
    b"\xff",
    b"<",
    b">",
    b":",
    b"=",
    b"BDAT 5 LAST\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
    b"STLS\r\n",
    b"+OK\r\n",
    b"-ERR ",
    b"99999999999999999999",
    b"-1",
    b"Received: x\r\n",
    b"X-Postkeep-Receipt: ",
];

/// Good inputs of every parser, to be damaged.
async fn samples() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let folder = folder()?;
    let (spool, _) = Spool::open(folder.path(), "gw.example", Arc::new(LocalDisk))?;
    let (mailbox, password) = spool.mailboxes().create("", None)?;
    let identity = mailbox.unlock(&password.context("made")?)?;
    let origin = Origin {
        ip: [192, 0, 2, 1].into(),
        reverse_name: Some("mail.example".into()),
        helo: "mail.example".into(),
        mail_from: "a@b.example".into(),
        rcpt_to: "mbx@gw.example".into(),
        tls: Some("TLSv1.3".into()),
        certificate: None,
        verified: Some(true),
        protocol: "ESMTPS",
    };
    for n in 0..3 {
        let mut incoming = spool.begin(&mailbox, &origin)?;
        incoming.write(&support::numbered_report(n).0)?;
        spool.commit(vec![incoming]).await?;
    }
    let maildrop = spool.open_session(&mailbox)?;
    let mut opened = Vec::new();
    std::io::Read::read_to_end(&mut maildrop.open(0, &identity)?, &mut opened)?;
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![("spool", opened)];
    for file in files_below(&folder.path().join("spool"))?.iter().take(1) {
        all.push(("spool", std::fs::read(file)?));
    }
    for file in files_below(&folder.path().join("ledger"))? {
        let octets = std::fs::read(file)?;
        all.push(("ledger", octets.get(64..340).context("an entry")?.to_vec()));
        all.push(("ledger", octets));
    }
    for (target, text) in [
        (
            "smtp_line",
            "EHLO c\r\nMAIL FROM:<a@b> SIZE=1000 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<mbx-00000000000000000000000000000001@gw.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
        ),
        (
            "smtp_line",
            "HELO [192.0.2.1]\r\nNOOP\r\nVRFY x\r\nHELP\r\nAUTH PLAIN x\r\nRCPT TO:<\"a b\"@c>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n",
        ),
        ("data", "Received: a\r\nSubject: x\r\n\r\n..dot\r\n.\n.\r\nbody\r\n.\r\nMAIL FROM:<a@b>\r\n"),
        ("bdat", "12\r\nSubject: x\r\nBDAT 5 LAST\r\n\n.\r\n\0QUIT\r\n"),
        (
            "pop3_command",
            "STAT\r\nLIST 1\r\nUIDL\r\nRETR 1\r\nTOP 2 0\r\nXRETR 2\r\nDELE 1\r\nRSET\r\nXLEDGER 1\r\nAUTH PLAIN AGEAYg==\r\nCAPA\r\nQUIT\r\n",
        ),
        (
            "pop3_reply",
            "+OK node=0000000000000000000000000000000000000000000000000000000000000000 x\r\n.\r\n+OK 2 20\r\n+OK\r\n1 5\r\n2 7\r\n.\r\n+OK\r\n1 a\r\n2 ..b\r\n.\r\n+OK\r\nabc\r\n..\r\n.\r\n+OK 3 0000000000000000000000000000000000000000000000000000000000000000\r\nabc+OK bye\r\n",
        ),
        ("pop3_reply", "-ERR [SYS/PERM] no\r\n+OK 0 0\r\n+OK\r\n.\r\n-ERR\r\n-ERR [IN-USE] x\r\n-ERR\r\n+OK\r\n"),
    ] {
        all.push((target, text.as_bytes().to_vec()));
    }
    spool.close();
    Ok(all)
}

/// Damages a good input in one to six places.
fn mutate(random: &mut Random, sample: &[u8], other: &[u8]) -> Vec<u8> {
    let mut octets = sample.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(octets.len() as u64 + 1) as usize;
        let end = (at + 1 + random.below(40) as usize).min(octets.len());
        match random.below(8) {
            0 if at < octets.len() => octets[at] ^= 1 << random.below(8),
            1 if at < octets.len() => octets[at] = random.number() as u8,
            2 => drop(octets.splice(at..at, WORDS[random.below(WORDS.len() as u64) as usize].iter().copied())),
            3 => drop(octets.splice(at..end, WORDS[random.below(WORDS.len() as u64) as usize].iter().copied())),
            4 => drop(octets.drain(at..end)),
            5 => octets.truncate(at),
            6 => {
                let piece = octets.get(at..end).unwrap_or_default().repeat(1 + random.below(120) as usize);
                octets.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len() as u64 + 1) as usize;
                octets.splice(at.., other.get(from..).unwrap_or_default().iter().copied());
            }
        }
    }
    octets.truncate(LONGEST);
    octets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_damaged_inputs() -> Result<()> {
    let samples = samples().await?;
    let (mut random, seed) = Random::seeded();
    println!("seed {seed}");
    let started = Instant::now();
    let mut counts = [0_usize; parsers::TARGETS.len()];
    for case in 0..CASES {
        let (which, (name, target)) = (case % counts.len(), parsers::TARGETS[case % counts.len()]);
        let own: Vec<&Vec<u8>> = samples.iter().filter(|(of, _)| *of == name).map(|(_, octets)| octets).collect();
        ensure!(!own.is_empty(), "{name} has no sample");
        let sample = own[random.below(own.len() as u64) as usize];
        let other = &samples[random.below(samples.len() as u64) as usize].1;
        let octets = mutate(&mut random, sample, other);
        let ended = panic::catch_unwind(|| target(&octets));
        ensure!(ended.is_ok(), "{name}, seed {seed}, case {case}: {}", octets.escape_ascii());
        counts[which] += 1;
    }
    for ((name, _), count) in parsers::TARGETS.iter().zip(counts) {
        println!("  {name}: {count}");
    }
    println!("{CASES} damaged inputs in {:.1} s, 0 panics", started.elapsed().as_secs_f64());
    Ok(())
}
