//! Everything at once, for as long as one likes: Postfix sends a mixed stream to two gateways that share a mailbox, `serve`
//! collects; gateways and archiver are killed now and then; an owner appears half-way. At the end every number adds up,
//! every message is where it belongs exactly once, and no process has grown.
//!
//! `POSTKEEP_SOAK` sets how long messages are sent (45 s). Kills happen in the first 60 %; then memory and descriptors are
//! watched. `POSTKEEP_SEED` repeats a run, as far as processes can be repeated.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use support::{
    Access, Archiver, Gateway, Random, Server, folder, message,
    postfix::{Postfix, has_postfix},
    report, samples, sha256,
};

const DOMAIN: &str = "msgw.archive.example";
/// Nobody's until half of the time is over.
const LATE: &str = "frida";
/// What may still be under way when the sending ends.
const DRAIN: Duration = Duration::from_secs(180);

fn duration() -> Result<Duration> {
    let text = std::env::var("POSTKEEP_SOAK").unwrap_or_else(|_| "45s".into());
    postkeep_shared::config::parse_duration(&text).map_err(anyhow::Error::msg)
}

/// A free port that stays the same over restarts.
fn port() -> Result<SocketAddr> {
    support::ports::free_address()
}

/// A gateway at fixed ports.
struct Node {
    gateway: Gateway,
    smtp: SocketAddr,
    pop3s: SocketAddr,
}

impl Node {
    fn create(folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let (gateway, smtp, pop3s) = (Gateway::create(&folder)?, port()?, port()?);
        let text = format!(
            "hostname = \"{name}.archive.example\"\ndomains = [\"{DOMAIN}\"]\ndata_dir = \"data\"\n\
             [smtp]\nlisten = [\"{smtp}\"]\n[pop3]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = [\"{pop3s}\"]\n"
        );
        std::fs::write(&gateway.config, text)?;
        Ok(Self { gateway, smtp, pop3s })
    }
}

/// The two gateways and the archiver, any of which may be gone for a moment.
struct Scene {
    nodes: [Node; 2],
    archiver: Archiver,
    service: Option<Server>,
    access: Access,
    kills: [usize; 3],
}

impl Scene {
    fn new(folder: &Path) -> Result<Self> {
        let mut nodes = [Node::create(folder, "msgw1")?, Node::create(folder, "msgw2")?];
        let made = nodes[0].gateway.create_mailbox()?;
        let bundle = folder.join("bundle").display().to_string();
        nodes[0].gateway.run(&["mailbox", "export", "--out", &bundle], b"")?.expect(0)?;
        nodes[1].gateway.run(&["mailbox", "import", &bundle], b"")?.expect(0)?;
        for node in &mut nodes {
            node.gateway.start()?;
        }
        let archiver = Archiver::create(folder)?;
        let password = archiver.folder.join("m365.password");
        std::fs::write(&password, format!("{}\n", made.password))?;
        support::archiver::restrict(&password)?;
        archiver.configure(&format!(
            "[[source]]\nname = \"m365\"\nhosts = [\"{}\", \"{}\"]\nmailbox = \"{}\"\npassword_file = \"m365.password\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\", \"{}\"] }}\ninterval = \"1s\"\n",
            nodes[0].pop3s,
            nodes[1].pop3s,
            made.id,
            nodes[0].gateway.pin()?,
            nodes[1].gateway.pin()?
        ))?;
        let access = Access { address: format!("{}@{DOMAIN}", made.id), ..made };
        let mut scene = Self { nodes, archiver, service: None, access, kills: [0; 3] };
        scene.serve()?;
        Ok(scene)
    }

    fn serve(&mut self) -> Result<()> {
        self.service = Some(Server::start(&mut self.archiver.command(&["serve"])?, &[])?);
        Ok(())
    }

    /// Kills one of the three and starts it again after a while, with the others going on.
    fn kill(&mut self, random: &mut Random) -> Result<()> {
        let which = random.below(3) as usize;
        self.kills[which] += 1;
        let gone = Duration::from_millis(random.below(1500));
        match self.nodes.get_mut(which) {
            Some(node) => {
                node.gateway.kill()?;
                std::thread::sleep(gone);
                node.gateway.start()
            }
            None => {
                self.service.take().context("it runs")?.kill()?;
                std::thread::sleep(gone);
                self.serve()
            }
        }
    }

    fn waiting(&self) -> Result<usize> {
        let waiting = |node: &Node| node.gateway.waiting(&self.access.id).map(|files| files.len());
        Ok(waiting(&self.nodes[0])? + waiting(&self.nodes[1])?)
    }

    /// Name and process of everything of ours that runs.
    fn processes(&self) -> Result<[(&'static str, u32); 3]> {
        Ok([
            ("gateway 1", self.nodes[0].gateway.server()?.pid()),
            ("gateway 2", self.nodes[1].gateway.server()?.pid()),
            ("archiver", self.service.as_ref().context("it runs")?.pid()),
        ])
    }
}

/// What was sent, and in whose archives it has to be.
#[derive(Default)]
struct Sent {
    /// SHA-256 of an original that nobody else has → the owners.
    originals: BTreeMap<String, Vec<&'static str>>,
    by_kind: BTreeMap<&'static str, usize>,
    messages: usize,
}

/// The next message of the stream.
fn next(n: usize, samples: &[Vec<u8>], sent: &mut Sent) -> Vec<u8> {
    let id = format!("soak-{n}");
    let mail_id = format!("<{id}@aurora.example>");
    let subject = format!("Soak {n}");
    let body = |size: usize| format!("Message {n} of the soak.\n{}", "0123456789abcdef\n".repeat(size / 17));
    let outside = "zoe@elsewhere.example";
    let (kind, to, owners, size): (&str, &[&str], Vec<&str>, usize) = match n % 10 {
        0 if n.is_multiple_of(100) => ("large", &["carl@aurora.example"], vec!["carl"], 2_000_000),
        0 => ("sample", &[], Vec::new(), 0),
        1 | 2 => (
            "several recipients",
            &["bob@aurora.example", "carl@aurora.example", "dora@aurora.example"],
            vec!["bob", "carl", "dora"],
            2000,
        ),
        3 => ("bcc", &["bob@aurora.example", "erik@aurora.example"], vec!["bob", "erik"], 500),
        4 => ("no owner", &["nobody@aurora.example"], vec!["@catchall"], 500),
        5 => ("an owner who comes later", &["frida@aurora.example"], vec![LATE], 500),
        _ => ("plain", &["bob@aurora.example"], vec!["bob"], n % 5000),
    };
    sent.messages += 1;
    *sent.by_kind.entry(kind).or_default() += 1;
    if kind == "sample" {
        let sample = samples.get(n / 10 % samples.len()).cloned().unwrap_or_default();
        return [format!("X-Soak: {n}\r\n").as_bytes(), sample.as_slice()].concat();
    }
    // Whom only the envelope names is not named in the message.
    let shown = if kind == "bcc" { "bob@aurora.example".to_owned() } else { to.join(", ") };
    let original = message(&id, outside, &shown, &subject, &body(size));
    sent.originals.insert(sha256(&original), owners);
    let whole = report(outside, to, &subject, &mail_id, &original);
    if kind != "bcc" {
        return whole;
    }
    let text = String::from_utf8_lossy(&whole).into_owned();
    text.replacen("\r\nTo: erik@", "\r\nBcc: erik@", 1).into_bytes()
}

/// Samples that a mail server passes on: with line ends as SMTP wants them, and of ordinary size. The one with 5,000
/// recipients, again and again, would be a test of its own.
fn sendable() -> Result<Vec<Vec<u8>>> {
    let clean = |bytes: &[u8]| {
        let bare = bytes.windows(2).any(|two| (two[0] == b'\r') != (two[1] == b'\n'));
        !bare && !bytes.contains(&0) && bytes.len() < 100_000 && bytes.ends_with(b"\r\n")
    };
    let all: Vec<Vec<u8>> = samples::all()?.into_iter().map(|sample| sample.bytes).filter(|b| clean(b)).collect();
    ensure!(all.len() > 30, "{} samples can be sent", all.len());
    Ok(all)
}

/// Memory in RAM in KiB, and open descriptors.
fn measure(pid: u32) -> Result<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib = line.trim().trim_end_matches(" kB").parse()?;
    Ok((kib, std::fs::read_dir(format!("/proc/{pid}/fd"))?.count()))
}

/// Every appearance in the archives: owner → original → how often.
fn archives(archiver: &Archiver) -> Result<BTreeMap<String, BTreeMap<String, usize>>> {
    let mut all: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for owner in support::archiver::OWNERS.iter().chain(&["@catchall", LATE]) {
        let of = all.entry((*owner).to_owned()).or_default();
        for entry in archiver.list(owner)? {
            *of.entry(entry.get("sha256").and_then(Value::as_str).context("sha256")?.to_owned()).or_default() += 1;
        }
    }
    Ok(all)
}

#[test]
fn everything_at_once_for_as_long_as_one_likes() -> Result<()> {
    if !has_postfix("the soak")? {
        return Ok(());
    }
    let (whole, (mut random, seed)) = (duration()?, Random::seeded());
    println!("soak of {whole:?}, seed {seed}");
    let folder = folder()?;
    let samples = sendable()?;
    let mut scene = Scene::new(folder.path())?;
    let [one, two] = [scene.nodes[0].smtp.port(), scene.nodes[1].smtp.port()];
    let postfix = Postfix::start(
        folder.path(),
        &format!(
            "transport_maps = randmap:{{smtp:[127.0.0.1]:{one}, smtp:[127.0.0.1]:{two}}}\n\
             smtp_fallback_relay = [127.0.0.1]:{one}, [127.0.0.1]:{two}\n"
        ),
    )?;
    let mut sender = postfix.connect()?;
    let (mut sent, begun) = (Sent::default(), Instant::now());
    let every = (whole / 15).clamp(Duration::from_secs(3), Duration::from_secs(60));
    let (mut next_kill, mut late) = (begun + every, false);
    let mut measured: Vec<[(u64, usize); 3]> = Vec::new();
    let (mut full, mut held_back) = (false, 0);
    let (quiet, warm) = (whole.mul_f64(0.6), whole.mul_f64(0.7));
    let step = (whole - warm) / 8;
    while begun.elapsed() < whole {
        // A stream and no flood: what piles up is taken before more comes, however slow the machine.
        if full || sent.messages.is_multiple_of(50) {
            full = postfix.queued()? + scene.waiting()? > 300;
        }
        if full {
            held_back += 1;
            std::thread::sleep(Duration::from_millis(90));
        } else {
            let octets = next(sent.messages, &samples, &mut sent);
            let reply = sender.send_data("journal@sender.example", &[&scene.access.address], &octets)?;
            ensure!(reply.code == 250, "Postfix: {reply:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
        if begun.elapsed() < quiet && Instant::now() > next_kill {
            scene.kill(&mut random)?;
            next_kill = Instant::now() + every.mul_f64(0.5 + random.below(100) as f64 / 100.0);
        }
        if !late && begun.elapsed() > whole / 2 {
            late = true;
            scene.archiver.run(&["owner", "add", LATE, "frida@aurora.example"], b"")?.expect(0)?;
        }
        if begun.elapsed() > warm + step * measured.len() as u32 {
            let [a, b, c] = scene.processes()?;
            measured.push([measure(a.1)?, measure(b.1)?, measure(c.1)?]);
        }
    }
    sender.quit()?;
    println!("held back for {:.1} s, until less than 300 messages were under way", f64::from(held_back) / 10.0);
    ensure!(late && measured.len() > 4, "the run was too short to be one: {measured:?}");
    let deadline = Instant::now() + DRAIN.max(whole / 4);
    while postfix.queued()? + scene.waiting()? > 0 {
        let log = scene.service.as_ref().map(Server::log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        ensure!(
            Instant::now() < deadline,
            "{} in Postfix, {} on the gateways\n{}\n{tail:#?}",
            postfix.queued()?,
            scene.waiting()?,
            postfix.log_tail()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let bounced = postfix.logged("status=bounced");
    let processes = scene.processes()?;
    ensure!(scene.service.take().context("it runs")?.stop()? == 0, "serve did not stop well");

    let (code, rows) = scene.archiver.reconcile()?;
    let sum = |key: &str| rows.iter().filter_map(|row| row.get(key).and_then(Value::as_u64)).sum::<u64>();
    let accepted = sum("accepted") as usize;
    println!(
        "sent {} ({:?}); accepted {accepted} ({} twice, since a gateway was killed before its 250 was read), collected {}, \
         filed {}, catch-all {}, quarantined {}, dead letters {}, waiting {}, missing {}; bounced {bounced}; reconcile exit {code}",
        sent.messages,
        sent.by_kind,
        accepted.saturating_sub(sent.messages),
        sum("collected"),
        sum("filed"),
        sum("catchall"),
        sum("quarantined"),
        sum("dead_letters"),
        sum("waiting"),
        sum("missing"),
    );
    println!("killed: gateway 1 {}, gateway 2 {}, archiver {}", scene.kills[0], scene.kills[1], scene.kills[2]);
    ensure!(code == 0 && bounced == 0 && sum("missing") == 0 && sum("waiting") == 0, "{rows:#?}");
    ensure!(accepted >= sent.messages && sum("collected") as usize == accepted);
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.get("accepted").and_then(Value::as_u64) > Some(0)));
    ensure!(scene.kills.iter().sum::<usize>() >= 3, "nothing was killed");

    let archives = archives(&scene.archiver)?;
    let (mut appearances, mut wrong) = (0, Vec::new());
    for (original, owners) in &sent.originals {
        for (owner, of) in &archives {
            let (times, wanted) =
                (of.get(original).copied().unwrap_or(0), usize::from(owners.contains(&owner.as_str())));
            appearances += times;
            if times != wanted {
                wrong.push(format!("{original} is {times} times in the archive of {owner}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} wrong, such as {:?}", wrong.len(), wrong.iter().take(5).collect::<Vec<_>>());
    println!(
        "{} originals, {appearances} appearances: each exactly once in every archive it belongs in",
        sent.originals.len()
    );

    for (at, (name, _)) in processes.iter().enumerate() {
        let series: Vec<(u64, usize)> = measured.iter().map(|all| all[at]).collect();
        let ((first, first_fds), (last, last_fds)) = (series[0], series[series.len() - 1]);
        let shown: Vec<String> = series.iter().map(|(kib, fds)| format!("{}/{fds}", kib / 1024)).collect();
        println!(
            "{name}: RSS {} → {} MiB, descriptors {first_fds} → {last_fds}; MiB/fds {}",
            first / 1024,
            last / 1024,
            shown.join(" ")
        );
        let most = (first + first / 4).max(first + 64 * 1024);
        ensure!(last <= most, "{name} has grown from {first} to {last} KiB");
        ensure!(last_fds <= first_fds + 24, "{name}: {first_fds} descriptors, then {last_fds}");
    }
    Ok(())
}
