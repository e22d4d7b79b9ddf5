//! A flood of wrong logins: memory stays bounded, mail goes on, and the right password still gets in.
//!
//! 200 attempts per second, each over a TLS connection of its own, from ten addresses, at a mailbox that exists and at
//! names that do not. Ten seconds; `POSTKEEP_FLOOD_SECONDS=30` for the
//! whole length.

mod support;

use anyhow::{Result, ensure};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Access, Gateway, folder, numbered_report, wire::client_config};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

const PER_SECOND: u32 = 200;
const ADDRESSES: u32 = 10;
/// How long an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
const RIGHT_LOGIN: Duration = Duration::from_secs(10);
/// What deriving the key of a generated password takes.
const KDF_KIB: u64 = 19 * 1024;
/// What a connection under TLS may hold, attacker's connections included.
const CONNECTION_KIB: u64 = 50;
const MAX_POP3: u64 = 1_000;

fn seconds() -> u32 {
    std::env::var("POSTKEEP_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// A connection from a loopback address of our choice.
async fn connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    Ok(socket.connect(to).await?)
}

/// Where logins go, and how to trust it.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    fn of(gateway: &Gateway) -> Result<Self> {
        let tls = TlsConnector::from(Arc::new(client_config(&gateway.pin()?)?));
        Ok(Self { address: gateway.address("pop3s")?, tls })
    }

    /// One login: the reply to PASS, or nothing where the connection was refused or closed.
    async fn log_in(
        &self,
        from: IpAddr,
        user: &str,
        password: &str,
    ) -> Result<(String, BufReader<TlsStream<TcpStream>>)> {
        let stream = connect(from, self.address).await?;
        let mut stream = BufReader::new(self.tls.connect(ServerName::try_from("gateway.example")?, stream).await?);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        stream.write_all(format!("USER {user}\r\nPASS {password}\r\n").as_bytes()).await?;
        for _ in 0..2 {
            line.clear();
            stream.read_line(&mut line).await?;
        }
        Ok((line, stream))
    }

    /// Logs in with the right password as the archiver would: again after a refusal. How long it took.
    async fn get_in(&self, from: IpAddr, access: &Access) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let attempt = timeout(RIGHT_LOGIN, self.log_in(from, &access.id, &access.password)).await;
            if let Ok(Ok((line, mut stream))) = attempt {
                if line.starts_with("+OK") {
                    let took = began.elapsed();
                    stream.write_all(b"QUIT\r\n").await?;
                    stream.read_line(&mut String::new()).await?;
                    return Ok(took);
                }
                ensure!(!line.contains("[AUTH]"), "the right password is refused: {line}");
            }
            ensure!(began.elapsed() < RIGHT_LOGIN, "not in after {:?}", began.elapsed());
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Sends wrong logins for `seconds`; how they ended, by the reply.
async fn flood(target: Target, known: String, seconds: u32) -> BTreeMap<String, usize> {
    let mut attempts = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for n in 0..PER_SECOND * seconds {
        ticks.tick().await;
        let (target, known) = (target.clone(), known.clone());
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, (n % ADDRESSES + 1) as u8));
        attempts.spawn(async move {
            let user = if n % 2 == 0 { known } else { format!("mbx-{n:032x}") };
            match timeout(PATIENCE, target.log_in(from, &user, "not the password")).await {
                Err(_) => "no answer in time".to_owned(),
                Ok(Ok((line, _))) if line.starts_with("-ERR [") => {
                    line.split(']').next().unwrap_or_default().to_owned()
                }
                Ok(Ok((line, _))) if line.is_empty() => "closed".to_owned(),
                Ok(Ok((line, _))) => line,
                Ok(Err(_)) => "refused".to_owned(),
            }
        });
    }
    let mut ends = BTreeMap::new();
    while let Some(end) = attempts.join_next().await {
        *ends.entry(end.unwrap_or_else(|error| error.to_string())).or_default() += 1;
    }
    ends
}

/// Delivers one report after the other until told to stop; how long each took.
fn deliver(gateway: &Gateway, address: &str, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut sender = gateway.smtp()?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (report, _) = numbered_report(times.len());
        let began = Instant::now();
        let reply = sender.send("ann@aurora.example", &[address], &report)?;
        ensure!(reply.code == 250, "{reply:?}");
        times.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    sender.quit()?;
    Ok(times)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[test]
fn wrong_logins_bar_nobody() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let text = std::fs::read_to_string(&gateway.config)?;
    // More than the flood needs, so that the logins are what stops it.
    std::fs::write(
        &gateway.config,
        text.replace("[pop3]\n", &format!("[pop3]\nmax_connections = {MAX_POP3}\nmax_connections_per_ip = 100\n")),
    )?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let (stranger, friend) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3]));
    let target = Target::of(&gateway)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let calm = runtime.block_on(target.get_in(friend, &access))?;
    let before = gateway.server()?.peak_kib()?;

    let stop = AtomicBool::new(false);
    let (ends, from_new, from_known, delivered) = std::thread::scope(|scope| {
        let delivery = scope.spawn(|| deliver(&gateway, &access.address, &stop));
        let result = runtime.block_on(async {
            let flood = tokio::spawn(flood(target.clone(), access.id.clone(), seconds()));
            sleep(Duration::from_secs(u64::from(seconds()) / 3)).await;
            let from_new = target.get_in(stranger, &access).await;
            let from_known = target.get_in(friend, &access).await;
            (flood.await, from_new, from_known)
        });
        stop.store(true, Ordering::Relaxed);
        (result.0, result.1, result.2, delivery.join())
    });
    let ends = ends?;
    println!("flood: {} wrong logins in {} s: {ends:?}", PER_SECOND * seconds(), seconds());
    let (from_new, from_known) = (from_new?, from_known?);
    let mut times = delivered.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let peak = gateway.server()?.peak_kib()?;
    let grown = peak.saturating_sub(before);
    let permits = std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)) as u64;
    println!(
        "memory: peak {} MiB, {} MiB more than before; at most {permits} keys derived at once",
        peak / 1024,
        grown / 1024
    );
    let (median, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("SMTP meanwhile: {} messages, median {} ms, p99 {} ms", times.len(), median.as_millis(), p99.as_millis());
    println!(
        "right password: {} ms before; in the flood {} ms from a new address, {} ms from a known one",
        calm.as_millis(),
        from_new.as_millis(),
        from_known.as_millis()
    );
    ensure!(ends.keys().all(|end| !end.starts_with("+OK")), "a wrong password was taken");
    ensure!(ends.get("-ERR [AUTH").is_some_and(|count| *count > 0), "no attempt was checked at all: {ends:?}");
    ensure!(grown < 2 * permits * KDF_KIB + MAX_POP3 * CONNECTION_KIB, "{grown} KiB more");
    ensure!(from_new < RIGHT_LOGIN && from_known < RIGHT_LOGIN);
    ensure!(!times.is_empty(), "no delivery");
    Ok(())
}

#[test]
fn the_reserved_share_is_for_the_networks_named() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.configure("\n[sources]\nnetworks = [\"127.0.0.2/32\"]\n")?;
    let text = std::fs::read_to_string(&gateway.config)?;
    let limits = "[smtp]\nmax_connections = 6\nmax_connections_per_ip = 3\nreserved_connections = 2\n";
    std::fs::write(&gateway.config, text.replace("[smtp]\n", limits))?;
    gateway.start()?;
    let address = gateway.address("smtp")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut held = Vec::new();
        let (full, client) = ("421 4.3.2 Too many connections;", "421 4.7.0 Too many connections from your address;");
        for (last, greeting) in [
            (1, "220 "),
            (1, "220 "),
            (1, "220 "),
            (1, client),
            (3, "220 "),
            (3, full),
            (2, "220 "),
            (2, "220 "),
            (2, full),
        ] {
            let mut stream = BufReader::new(connect(IpAddr::from([127, 0, 0, last]), address).await?);
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            ensure!(line.starts_with(greeting), "127.0.0.{last}: {line:?} instead of {greeting}");
            held.push(stream);
        }
        Ok(())
    })
}
