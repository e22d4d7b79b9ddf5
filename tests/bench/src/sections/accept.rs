//! Lines 1 and 2: accepting reports, beside floors and peers; CPU of the accept path.

use super::Bench;
use crate::{
    client::smtp::{Sending, Sent, send},
    floors::Kind,
    peers::{self, dovecot, dovecot::Dovecot, postfix, postfix::Postfix, postfix::Then},
    process::{Server, disk_use},
    product::{Gateway, Settings},
    profile::perf::Recording,
    table::{Figures, Table, Target, mebibytes, per_thousand},
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// Who takes the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taker {
    Floor(&'static str),
    PostfixQueue,
    PostfixDovecot,
    Gateway,
}

/// What is measured once in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) taker: Taker,
    pub(crate) connections: usize,
    pub(crate) tls: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.taker {
            Taker::Floor(kind) => write!(f, "floor: {kind}")?,
            Taker::PostfixQueue => f.write_str("Postfix, queue")?,
            Taker::PostfixDovecot => f.write_str("Postfix, Dovecot mail-crypt, stored")?,
            Taker::Gateway => f.write_str("gateway")?,
        }
        write!(f, ", {} conn.{}", self.connections, if self.tls { " TLS" } else { "" })
    }
}

/// Medians by cell.
pub(crate) type Medians = BTreeMap<Cell, Figures>;

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let cell = |taker, connections, tls| Cell { taker, connections, tls };
    let mut cells = vec![
        cell(Taker::Floor("none"), 8, false),
        cell(Taker::Floor("crypt"), 8, false),
        cell(Taker::Floor("file"), 8, false),
        cell(Taker::Floor("sealed"), 8, false),
        cell(Taker::Floor("log"), 8, false),
        cell(Taker::PostfixQueue, 8, false),
        cell(Taker::PostfixDovecot, 8, false),
        cell(Taker::Gateway, 8, false),
        cell(Taker::Gateway, 8, true),
        cell(Taker::Floor("file"), 64, false),
        cell(Taker::PostfixQueue, 64, false),
        cell(Taker::Gateway, 64, false),
    ];
    for (peer, programs) in [(Taker::PostfixQueue, postfix::PROGRAMS), (Taker::PostfixDovecot, dovecot::PROGRAMS)] {
        if let Some(why) = peers::missing(programs, true) {
            table.not_run(&format!("{peer:?}"), &why);
            cells.retain(|cell| cell.taker != peer);
        }
    }
    cells.retain(|cell| cell.to_string().contains(&bench.only));
    let medians = measure(bench, &cells)?;
    Table::head("accept: reports taken, synced and answered");
    medians.iter().for_each(|(cell, figures)| Table::row(&cell.to_string(), figures));

    let figure = |taker, connections, tls, of: fn(&Figures) -> f64| {
        medians.get(&cell(taker, connections, tls)).map_or(f64::NAN, of)
    };
    let rate = |taker, connections, tls| figure(taker, connections, tls, |f| f.messages);
    let cpu = |taker| figure(taker, 8, false, |f| f.cpu);
    let own = rate(Taker::Gateway, 8, false);
    println!();
    let at_least = Target::AtLeast;
    table.judge(
        1,
        "gateway / Postfix + Dovecot mail-crypt, stored, 8 connections",
        own / rate(Taker::PostfixDovecot, 8, false),
        at_least(10.0),
    );
    for connections in [8, 64] {
        let own = rate(Taker::Gateway, connections, false);
        let queue = own / rate(Taker::PostfixQueue, connections, false);
        let file = own / rate(Taker::Floor("file"), connections, false);
        table.judge(1, &format!("gateway / Postfix queue, {connections} connections"), queue, at_least(1.5));
        table.judge(1, &format!("gateway / file floor, {connections} connections"), file, at_least(0.7));
    }
    let tls = rate(Taker::Gateway, 8, true) / own;
    table.judge(1, "gateway, STARTTLS on kept connections / plain", tls, at_least(0.8));
    table.judge(
        2,
        "CPU per 1,000, gateway / Postfix + Dovecot",
        cpu(Taker::Gateway) / cpu(Taker::PostfixDovecot),
        Target::AtMost(0.125),
    );
    table.judge(
        2,
        "CPU per 1,000, gateway / sealed floor",
        cpu(Taker::Gateway) / cpu(Taker::Floor("sealed")),
        Target::AtMost(2.0),
    );
    Ok(())
}

/// Measures all cells in every round, one after the other, so that what changes on the machine meets all of them.
pub(crate) fn measure(bench: &Bench, cells: &[Cell]) -> Result<Medians> {
    measure_beside(bench, cells, || Ok(()))
}

/// The same with something else that belongs to every round.
pub(super) fn measure_beside(bench: &Bench, cells: &[Cell], mut beside: impl FnMut() -> Result<()>) -> Result<Medians> {
    let mut rounds: BTreeMap<Cell, Vec<Figures>> = BTreeMap::new();
    for round in 1..=bench.rounds {
        for cell in cells {
            let figures = one(bench, *cell)?;
            eprintln!("round {round}: {cell}: {:.0} msg/s, CPU {:.3} s per 1,000", figures.messages, figures.cpu);
            rounds.entry(*cell).or_default().push(figures);
        }
        beside()?;
    }
    Ok(rounds.into_iter().map(|(cell, figures)| (cell, Figures::median(&figures))).collect())
}

fn one(bench: &Bench, cell: Cell) -> Result<Figures> {
    let folder = crate::fresh(&bench.folder, "accept")?;
    crate::settle()?;
    match cell.taker {
        Taker::Floor(kind) => floor(bench, cell, kind.parse()?, &folder),
        Taker::PostfixQueue => postfix_queue(bench, cell, &folder),
        Taker::PostfixDovecot => postfix_dovecot(bench, cell, &folder),
        Taker::Gateway => gateway(bench, cell, &folder, None).map(|(figures, _)| figures),
    }
}

/// What is sent to a server in a cell.
fn sending(bench: &Bench, cell: Cell, address: SocketAddr, recipients: Vec<String>) -> Sending {
    let messages = match (cell.taker, cell.connections) {
        (Taker::PostfixDovecot, _) => bench.fourth(),
        // One connection takes its time.
        (_, 1) => halves(bench),
        _ => Arc::clone(&bench.wire),
    };
    Sending { address, recipients, connections: cell.connections, tls: cell.tls, messages }
}

/// Every second report.
pub(super) fn halves(bench: &Bench) -> Arc<Vec<Arc<Vec<u8>>>> {
    Arc::new(bench.wire.iter().skip(1).step_by(2).cloned().collect())
}

/// Sends one report to every mailbox first, which is not measured: folders, workers and keys are there then.
fn warm(bench: &Bench, sending: &Sending) -> Result<()> {
    send(&Sending { messages: bench.first(), connections: 8, ..sending.clone() }).map(drop)
}

fn figures(sent: &Sent, cpu: Duration, peak: u64, disk: (u64, u64)) -> Figures {
    Figures {
        messages: sent.rate(),
        megabytes: sent.octets as f64 / 1e6 / sent.wall.as_secs_f64(),
        cpu: per_thousand(cpu, sent.messages),
        p50: sent.reply_ms(50),
        p99: sent.reply_ms(99),
        peak: mebibytes(peak),
        disk: disk.0.saturating_sub(disk.1) as f64 / 1024.0 / sent.messages as f64,
    }
}

fn floor(bench: &Bench, cell: Cell, kind: Kind, folder: &Path) -> Result<Figures> {
    let data = folder.join("data");
    let mut command = Command::new(std::env::current_exe()?);
    let mut server = Server::start(command.args(["floor", &kind.to_string()]).arg(&data), &folder.join("floor.log"))?;
    let sending = sending(bench, cell, server.listening("smtp")?, peers::recipients());
    warm(bench, &sending)?;
    let (before, disk) = (server.cpu()?, disk_use(&data)?.0);
    let sent = send(&sending)?;
    let found = figures(&sent, server.cpu()? - before, server.peak()?, (disk_use(&data)?.0, disk));
    server.stop()?;
    Ok(found)
}

/// The gateway's cell in clear with so many connections, and the processor time it used; while perf samples it, where a
/// file for that is given.
pub(super) fn alone(bench: &Bench, connections: usize, sampling: Option<&Path>) -> Result<(Figures, Duration)> {
    let cell = Cell { taker: Taker::Gateway, connections, tls: false };
    crate::settle()?;
    gateway(bench, cell, &crate::fresh(&bench.folder, "accept")?, sampling)
}

fn gateway(bench: &Bench, cell: Cell, folder: &Path, sampling: Option<&Path>) -> Result<(Figures, Duration)> {
    let settings = Settings { connections: cell.connections, mailboxes: peers::MAILBOXES };
    let mut gateway = Gateway::new(folder, settings)?;
    let sending = sending(bench, cell, gateway.smtp, gateway.recipients.clone());
    warm(bench, &sending)?;
    let recording = sampling.map(|data| Recording::begin(gateway.server()?.pid(), data)).transpose()?;
    let (before, disk) = (gateway.server()?.cpu()?, disk_use(&gateway.spool())?.0);
    let sent = send(&sending)?;
    let server = gateway.server()?;
    let used = server.cpu()? - before;
    recording.map(Recording::end).transpose()?;
    let found = figures(&sent, used, server.peak()?, (disk_use(&gateway.spool())?.0, disk));
    gateway.halt()?;
    Ok((found, used))
}

fn postfix_queue(bench: &Bench, cell: Cell, folder: &Path) -> Result<Figures> {
    let postfix = Postfix::start(folder, Then::Hold)?;
    let sending = sending(bench, cell, postfix.smtp, peers::recipients());
    warm(bench, &sending)?;
    let held = postfix.queue.join("hold");
    let (before, disk) = (postfix.server.cpu()?, disk_use(&held)?.0);
    let sent = send(&sending)?;
    let mut found = figures(&sent, postfix.server.cpu()? - before, 0, (disk_use(&held)?.0, disk));
    found.peak = f64::NAN;
    postfix.stop()?;
    Ok(found)
}

fn postfix_dovecot(bench: &Bench, cell: Cell, folder: &Path) -> Result<Figures> {
    let dovecot = Dovecot::start(&folder.join("dovecot"))?;
    let postfix = Postfix::start(&folder.join("postfix"), Then::Lmtp(dovecot.lmtp))?;
    let sending = sending(bench, cell, postfix.smtp, peers::recipients());
    warm(bench, &sending)?;
    let there = sending.recipients.len();
    dovecot.wait_for(there)?;
    dovecot.check_encrypted()?;
    let cpu = || Ok::<_, anyhow::Error>(postfix.server.cpu()? + dovecot.server.cpu()?);
    let (before, disk) = (cpu()?, disk_use(dovecot.mail())?.0);
    let began = Instant::now();
    let mut sent = send(&sending)?;
    dovecot.wait_for(there + sent.messages)?;
    // Accepted is not stored yet.
    sent.wall = began.elapsed();
    let mut found = figures(&sent, cpu()? - before, 0, (disk_use(dovecot.mail())?.0, disk));
    found.peak = f64::NAN;
    postfix.stop()?;
    dovecot.stop()?;
    Ok(found)
}
