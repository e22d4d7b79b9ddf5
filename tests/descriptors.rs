//! Out of descriptors: clients are told `421` or `-ERR [SYS/TEMP]`, nothing spins, and connections are taken again once a
//! tenth of the descriptors is free; what was acknowledged is there.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};
use support::{Gateway, Server, Smtp, folder, numbered_report, pop3};

const DESCRIPTORS: usize = 200;
const LIMITS: &str = "max_connections = 1000\nmax_connections_per_ip = 1000\n";

/// A connection that does nothing, and the first line it was told.
struct Idle {
    stream: BufReader<TcpStream>,
    told: String,
}

fn idle(address: SocketAddr) -> Result<Idle> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(30))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut idle = Idle { stream: BufReader::new(stream), told: String::new() };
    idle.stream.read_line(&mut idle.told)?;
    Ok(idle)
}

/// Seconds of processor time this process has had.
fn busy(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Waits until a connection is greeted.
fn taken_again(address: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if idle(address)?.told.starts_with("220") {
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("no connection is taken any more")
}

#[test]
fn out_of_descriptors_clients_are_told_and_nothing_is_lost() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let pin = gateway.pin()?;
    ensure!(gateway.stop()? == 0);
    let text = std::fs::read_to_string(&gateway.config)?;
    let text = text.replace("[smtp]\n", &format!("[smtp]\n{LIMITS}")).replace("[pop3]\n", &format!("[pop3]\n{LIMITS}"));
    std::fs::write(&gateway.config, text)?;
    let serve = gateway.command(&["serve"])?;
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")).arg(serve.get_program()).args(serve.get_args());
    let server = Server::start(limited.current_dir(&gateway.folder), &["smtp", "pop3", "pop3s"])?;
    let (smtp, clear) = (server.address("smtp")?, server.address("pop3")?);

    let mut acknowledged = Vec::new();
    let mut sender = Smtp::connect(smtp)?;
    let reply = sender.send("", &[&access.address], &numbered_report(0).0)?;
    acknowledged.push((reply.receipts()?.into_iter().next().context("a receipt")?.0, 0));
    let mut open = Vec::new();
    let refused = loop {
        let next = idle(smtp)?;
        if !next.told.starts_with("220") {
            break next.told;
        }
        open.push(next);
        ensure!(open.len() < DESCRIPTORS, "the limit has no effect");
    };
    ensure!(refused.starts_with("421 4.3.2"), "{refused}");
    let refused = idle(clear)?.told;
    ensure!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");

    // Somebody who was let in before finds a last descriptor for the file, or none.
    let reply = sender.send("", &[&access.address], &numbered_report(1).0)?;
    ensure!(matches!(reply.code, 250 | 451), "without descriptors: {reply:?}");
    let meanwhile = reply.code;
    if meanwhile == 250 {
        acknowledged.push((reply.receipts()?.into_iter().next().context("a receipt")?.0, 1));
    }

    // With a client that waits to be taken nothing spins.
    let before = busy(server.pid())?;
    let mut told = 0;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        told += usize::from(idle(smtp)?.told.starts_with("421"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let spent = busy(server.pid())? - before;
    ensure!(spent < 1.5, "{spent} s of processor time in 3 s of waiting");
    let lines = server.log().lines().count();
    ensure!(lines < 500, "{lines} lines in the log");

    // A few free descriptors are not enough …
    let held = open.len();
    open.truncate(held - 5);
    std::thread::sleep(Duration::from_millis(1500));
    let still = idle(smtp)?.told;
    ensure!(still.starts_with("421"), "five descriptors are free and a connection is taken: {still}");
    // … a tenth is.
    open.truncate(held - DESCRIPTORS / 5);
    let after = taken_again(smtp)?;
    drop(open);
    let reply = Smtp::connect(smtp)?.send("", &[&access.address], &numbered_report(2).0)?;
    ensure!(reply.code == 250, "afterwards: {reply:?}");
    acknowledged.push((reply.receipts()?.into_iter().next().context("a receipt")?.0, 2));
    let mut collector = support::Pop3::connect_tls(server.address("pop3s")?, &pin)?;
    collector.login(&access.id, &access.password)?;
    let listed = collector.uidl()?;
    ensure!(listed.len() == acknowledged.len(), "{} listed, {} acknowledged", listed.len(), acknowledged.len());
    for (uidl, n) in &acknowledged {
        let (number, _) = listed.iter().find(|(_, name)| name == uidl).with_context(|| format!("{uidl} is lost"))?;
        pop3::same(uidl, pop3::without_trace(&collector.xretr(*number)?.0)?, &numbered_report(*n).0)?;
    }
    collector.quit()?;
    ensure!(server.stop()? == 0);
    gateway.run(&["verify"], b"")?.expect(0)?;
    println!(
        "descriptors: {DESCRIPTORS} allowed, {held} idle clients, then 421 4.3.2 and -ERR [SYS/TEMP], {told} more told in 3 s \
         with {spent:.2} s of processor time; {meanwhile} to a message under way; five free: still 421; a fifth free: taken again \
         after {after:.1?}; acknowledged {0}, found {0}, lost 0, duplicated 0",
        acknowledged.len()
    );
    Ok(())
}
