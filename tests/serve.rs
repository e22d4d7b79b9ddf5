//! `postkeep-archiver serve` with a real gateway: reload, pause, loans, stop, rules about deletion, a host that hangs.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Server, archiver::restrict, folder, http::get, numbered_report};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const METRICS: &str = "[metrics]\nlisten = [\"127.0.0.1:0\"]\n";

/// A gateway with a mailbox, and an archiver that is to collect it.
struct Scene {
    _folder: tempfile::TempDir,
    gateway: Gateway,
    access: Access,
    archiver: Archiver,
    sent: usize,
}

impl Scene {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        let access = gateway.create_mailbox()?;
        gateway.start()?;
        let archiver = Archiver::create(folder.path())?;
        password(&archiver, &access.password)?;
        Ok(Self { _folder: folder, gateway, access, archiver, sent: 0 })
    }

    /// One source, asked every second.
    fn source(&self, name: &str, more: &str) -> Result<String> {
        Ok(format!(
            "[[source]]\nname = \"{name}\"\nhosts = [\"{}\"]\nmailbox = \"{}\"\npassword_file = \"m365.password\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ninterval = \"1s\"\n{more}\n",
            self.gateway.address("pop3s")?,
            self.access.id,
            self.gateway.pin()?
        ))
    }

    fn serve(&self) -> Result<Server> {
        Server::start(&mut self.archiver.command(&["serve"])?, &["metrics"])
    }

    fn send(&mut self, count: usize) -> Result<()> {
        let mut smtp = self.gateway.smtp()?;
        for _ in 0..count {
            let reply = smtp.send_data("", &[&self.access.address], &numbered_report(self.sent).0)?;
            ensure!(reply.code == 250, "{reply:?}");
            self.sent += 1;
        }
        smtp.quit()
    }

    fn waiting(&self) -> Result<usize> {
        Ok(self.gateway.waiting(&self.access.id)?.len())
    }

    fn archived(&self) -> Result<usize> {
        Ok(self.archiver.list("bob")?.len())
    }

    fn status(&self) -> Result<(i32, Value)> {
        let output = self.archiver.run(&["status", "--json"], b"")?;
        Ok((output.code, output.json()?))
    }

    /// Sends some and waits until the service has taken everything.
    fn goes_on(&mut self, server: &Server) -> Result<()> {
        self.send(2)?;
        until(server, "everything is collected", || Ok(self.waiting()? == 0))
    }
}

fn password(archiver: &Archiver, password: &str) -> Result<()> {
    let file = archiver.folder.join("m365.password");
    std::fs::write(&file, format!("{password}\n"))?;
    restrict(&file)
}

fn until(server: &Server, what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is()? {
        ensure!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn hangup(server: &Server) -> Result<()> {
    ensure!(Command::new("kill").args(["-HUP", &server.pid().to_string()]).status()?.success());
    Ok(())
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

#[test]
fn a_hangup_reads_everything_again_and_a_mistake_changes_nothing() -> Result<()> {
    let mut scene = Scene::new()?;
    let good = format!("{METRICS}{}", scene.source("m365", "")?);
    scene.archiver.configure(&good)?;
    let server = scene.serve()?;
    scene.goes_on(&server)?;
    until(&server, "ready", || Ok(get(server.address("metrics")?, "/readyz")?.0 == 200))?;

    // A mistake in the configuration.
    scene.archiver.configure(&good.replace("interval", "intervall"))?;
    hangup(&server)?;
    let told = "postkeep_archiver_reload_failed{file=\"configuration\"} 1";
    until(&server, "the mistake is told", || Ok(get(server.address("metrics")?, "/metrics")?.1.contains(told)))?;
    // The file is right again and nobody has said so: the service goes by what it knows.
    scene.archiver.configure(&good)?;
    let (code, status) = scene.status()?;
    ensure!(code == 1 && at(&status, "/service/reload_error").to_string().contains("did you mean `interval`?"));
    let (ready, body) = get(server.address("metrics")?, "/readyz")?;
    ensure!(ready == 503 && body.contains("the old configuration is in use"), "{ready} {body}");
    ensure!(get(server.address("metrics")?, "/healthz")?.0 == 200, "a mistake is no reason for a restart");
    scene.goes_on(&server)?;

    // A password that is wrong, and right again: without a hangup the host would be left alone for longer and longer.
    password(&scene.archiver, "not the password")?;
    hangup(&server)?;
    until(&server, "the login is refused", || {
        Ok(at(&scene.status()?.1, "/sources/0/hosts/0/failures").as_u64().unwrap_or(0) > 0)
    })?;
    let (code, status) = scene.status()?;
    ensure!(code == 1 && at(&status, "/service/reload_error").is_null(), "{status}");
    ensure!(at(&status, "/sources/0/hosts/0/next_try").is_string(), "{status}");
    password(&scene.archiver, &scene.access.password)?;
    hangup(&server)?;
    scene.goes_on(&server)?;

    // Owners with a mistake: those of before stay in use.
    let owners = scene.archiver.folder.join("owners.toml");
    let text = std::fs::read_to_string(&owners)?;
    std::fs::write(&owners, "[[owner]\n")?;
    until(&server, "the mistake is told", || Ok(at(&scene.status()?.1, "/service/owners_error").is_string()))?;
    scene.goes_on(&server)?;
    std::fs::write(&owners, text)?;
    until(&server, "the owners are right again", || Ok(at(&scene.status()?.1, "/service/owners_error").is_null()))?;

    // Another source in place of the first.
    scene.archiver.configure(&format!("{METRICS}{}", scene.source("other", "")?))?;
    hangup(&server)?;
    until(&server, "the other source is there", || Ok(at(&scene.status()?.1, "/sources/0/last_round").is_string()))?;
    scene.goes_on(&server)?;
    let sources: Vec<Value> = scene.archiver.run(&["reconcile", "--json"], b"")?.json_stream()?;
    let collected: u64 = sources.iter().filter_map(|row| row.get("collected").and_then(Value::as_u64)).sum();
    ensure!(server.stop()? == 0);
    ensure!(scene.archived()? == scene.sent, "{} of {}", scene.archived()?, scene.sent);
    println!(
        "serve: {} reports through 5 reloads, 2 of them with mistakes; {collected} by the last source",
        scene.sent
    );
    Ok(())
}

#[test]
fn a_stop_finishes_the_batch() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.archiver.configure(&format!("{METRICS}{}", scene.source("m365", "")?))?;
    scene.send(400)?;
    let server = scene.serve()?;
    until(&server, "something is collected", || Ok(at(&scene.status()?.1, "/store/reports").as_u64() > Some(0)))?;
    let begun = Instant::now();
    ensure!(server.stop()? == 0);
    let (took, waiting) = (begun.elapsed(), scene.waiting()?);
    // Nothing is both: what the store took was deleted in the same session.
    let archived = scene.archived()?;
    ensure!(archived + waiting == scene.sent, "{archived} archived, {waiting} waiting of {}", scene.sent);
    scene.archiver.round()?;
    ensure!(scene.archived()? == scene.sent && scene.waiting()? == 0);
    println!("SIGTERM: {archived} archived and deleted, {waiting} left for the next round, stopped within {took:.1?}");
    Ok(())
}

#[test]
fn sources_pause_and_the_store_is_lent() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.archiver.configure(&format!("{METRICS}{}", scene.source("m365", "")?))?;
    let server = scene.serve()?;
    scene.goes_on(&server)?;
    ensure!(scene.archiver.run(&["source", "pause", "none"], b"")?.code == 2);
    scene.archiver.run(&["source", "pause", "m365"], b"")?.expect(0)?;
    until(&server, "paused", || {
        Ok(get(server.address("metrics")?, "/metrics")?
            .1
            .contains("postkeep_archiver_source_paused{source=\"m365\"} 1"))
    })?;
    scene.send(3)?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(scene.waiting()? == 3, "a paused source was collected");
    let (code, status) = scene.status()?;
    ensure!(code == 0 && at(&status, "/sources/0/paused") == &Value::Bool(true), "{status}");

    // Commands that change the store, while the service runs.
    let before = scene.archived()?;
    let file = scene.archiver.folder.join("old.eml");
    std::fs::write(&file, support::message("old", "zoe@elsewhere.example", "bob@aurora.example", "Old", "Old."))?;
    let file = file.display().to_string();
    scene.archiver.run(&["import", &file, "--owner", "bob"], b"")?.expect(0)?;
    scene.archiver.run(&["owner", "refile"], b"")?.expect(0)?;
    scene.archiver.run(&["dead-letter", "retry"], b"")?.expect(0)?;
    ensure!(scene.archived()? == before + 1, "the import is there");
    until(&server, "the store was given back", || Ok(at(&scene.status()?.1, "/service/lent_to").is_null()))?;
    // A second service, or a round, would do the same work: it is refused.
    ensure!(scene.archiver.run(&["run", "--once"], b"")?.code == 3);
    ensure!(scene.archiver.run(&["serve"], b"")?.code == 3);

    // A command that is killed while it has the store.
    let mut killed = scene.archiver.command(&["store", "rebuild-catalog"])?.spawn()?;
    std::thread::sleep(Duration::from_millis(200));
    killed.kill()?;
    killed.wait()?;

    scene.archiver.run(&["source", "resume", "m365"], b"")?.expect(0)?;
    until(&server, "everything is collected", || Ok(scene.waiting()? == 0))?;
    ensure!(server.log().matches("the store is lent to").count() >= 3, "{}", server.log());
    ensure!(server.stop()? == 0);
    ensure!(scene.archived()? == scene.sent + 1);
    let (code, verified) = scene.archiver.verify()?;
    ensure!(code == 0, "{verified}");

    // Without a service it holds as well, unless the source is named.
    scene.archiver.run(&["source", "pause", "m365"], b"")?.expect(0)?;
    scene.send(1)?;
    ensure!(scene.archiver.round()?.get("paused") == Some(&Value::Bool(true)) && scene.waiting()? == 1);
    scene.archiver.run(&["run", "--once", "--source", "m365"], b"")?.expect(0)?;
    ensure!(scene.waiting()? == 0);
    println!("import, refile, retry and a killed rebuild-catalog beside serve; paused and resumed");
    Ok(())
}

#[test]
fn what_is_kept_at_the_source_for_a_while_goes_when_its_time_has_come() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.archiver.configure(&format!("{METRICS}{}", scene.source("m365", "delete = \"after 6s\"")?))?;
    let server = scene.serve()?;
    scene.send(3)?;
    let stored = || Ok(at(&scene.status()?.1, "/store/reports").as_u64() == Some(3));
    until(&server, "stored", stored)?;
    let since = Instant::now();
    ensure!(scene.waiting()? == 3, "deleted at once");
    until(&server, "deleted", || Ok(scene.waiting()? == 0))?;
    let kept = since.elapsed();
    ensure!(kept > Duration::from_secs(2) && kept < Duration::from_secs(30), "deleted after {kept:?}");
    ensure!(server.stop()? == 0);
    let (code, rows) = scene.archiver.reconcile()?;
    ensure!(code == 0 && scene.archived()? == 3, "{rows:?}");

    // Never means never.
    scene.archiver.configure(&scene.source("m365", "delete = \"never\"")?)?;
    scene.send(1)?;
    scene.archiver.round()?;
    scene.archiver.round()?;
    ensure!(scene.waiting()? == 1 && scene.archived()? == 4);
    println!("delete = \"after 6s\": gone {kept:.1?} after it was seen in the store; \"never\": still there");
    Ok(())
}

#[test]
fn a_round_takes_no_more_than_it_may_and_a_host_that_hangs_delays_nobody() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.archiver.configure(&scene.source("m365", "max_per_round = { messages = 30 }")?)?;
    scene.send(100)?;
    let report = scene.archiver.round()?;
    let number = |key: &str| report.get(key).and_then(Value::as_u64).context("a number");
    ensure!((number("collected")?, number("postponed")?) == (30, 70), "{report}");
    scene.archiver.configure(&scene.source("m365", "max_per_round = { bytes = \"1 KiB\" }")?)?;
    let report = scene.archiver.round()?;
    let number = |key: &str| report.get(key).and_then(Value::as_u64).context("a number");
    ensure!(number("collected")? >= 1 && number("collected")? + number("postponed")? == 70, "{report}");

    // Behind the second host nobody ever says a word.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let hosts = format!("hosts = [\"{}\", \"", silent.local_addr()?);
    let more = "max_per_round = { messages = 30 }\nconnect_timeout = \"3s\"";
    let source = scene.source("m365", more)?.replace("hosts = [\"", &hosts);
    scene.archiver.configure(&format!("{METRICS}[serve]\nparallel_sources = 2\n{source}"))?;
    let begun = Instant::now();
    let server = scene.serve()?;
    until(&server, "everything is collected", || Ok(scene.waiting()? == 0))?;
    let took = begun.elapsed();
    until(&server, "the silent one is spared", || {
        let status = scene.status()?.1;
        let hosts = at(&status, "/sources/0/hosts").as_array().cloned().unwrap_or_default();
        Ok(hosts.iter().any(|h| {
            h.get("failures").and_then(Value::as_u64) > Some(1) && h.get("next_try").is_some_and(Value::is_string)
        }))
    })?;
    let (code, body) = get(server.address("metrics")?, "/readyz")?;
    ensure!(code == 503 && body.contains(&format!("host {}", silent.local_addr()?)), "{code} {body}");
    ensure!(server.stop()? == 0);
    ensure!(scene.archived()? == 100);
    println!("100 reports by rounds of 30 beside a host that hangs: {took:.1?}");
    Ok(())
}

#[test]
fn a_hangup_changes_alarms_probes_and_proofs() -> Result<()> {
    let scene = Scene::new()?;
    let hook = scene.archiver.folder.join("hook.jsonl");
    let never = "[checkpoint]\ninterval = \"never\"\n[reconcile]\ninterval = \"never\"\n";
    let calm = format!("{METRICS}{never}{}", scene.source("m365", "")?);
    let told = format!(
        "{METRICS}[alarms]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> {hook} && echo >> {hook}\"]\nsettle = \"0s\"\n\
         look = \"200ms\"\ndisk_free = 0\ninodes_free = 0\n[[alarms.fresh]]\nname = \"copy\"\npath = \"nowhere\"\n\
         within = \"1h\"\n[[probe]]\nname = \"way\"\nserver = \"127.0.0.1:9\"\nfrom = \"probe@aurora.example\"\n\
         to = \"echo@aurora.example\"\ninterval = \"1h\"\n{}",
        scene.source("m365", "")?,
        hook = hook.display()
    );
    scene.archiver.configure(&calm)?;
    let server = scene.serve()?;
    let figures = || Ok::<_, anyhow::Error>(get(server.address("metrics")?, "/metrics")?.1);
    let events = |event: &str| -> Result<usize> {
        let text = std::fs::read_to_string(&hook).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.iter().filter(|line| line["kind"] == "stale" && line["event"] == event).count())
    };
    until(&server, "ready", || Ok(get(server.address("metrics")?, "/readyz")?.0 == 200))?;
    let (checkpoints, reconciled) =
        (scene.archiver.data().join("checkpoints"), scene.archiver.data().join("reconcile.json"));
    ensure!(!figures()?.contains("probe_sent") && !checkpoints.exists() && !reconciled.exists());

    scene.archiver.configure(&told)?;
    hangup(&server)?;
    until(&server, "the new alarm is told by the new command", || Ok(events("raised")? == 1))?;
    let sent = "postkeep_archiver_probe_sent_time_seconds{probe=\"way\"}";
    until(&server, "the new probe is sent", || Ok(figures()?.contains(sent)))?;
    until(&server, "a checkpoint and a reconcile", || Ok(checkpoints.exists() && reconciled.exists()))?;

    // What was stale is there.
    std::fs::write(scene.archiver.folder.join("nowhere"), "copied")?;
    until(&server, "the end of the alarm", || Ok(events("resolved")? == 1))?;
    std::fs::remove_file(scene.archiver.folder.join("nowhere"))?;
    until(&server, "the alarm again", || Ok(events("raised")? == 2))?;
    scene.archiver.configure(&calm)?;
    hangup(&server)?;
    until(&server, "no probe is known any more", || Ok(!figures()?.contains("probe_sent")))?;
    // The file was not asked for any more: nothing is wrong, and nobody is told.
    until(&server, "no alarm is left", || Ok(scene.archiver.run(&["alarm", "list", "--json"], b"")?.code == 0))?;
    ensure!((events("raised")?, events("resolved")?) == (2, 1));
    ensure!(server.stop()? == 0);
    Ok(())
}

#[test]
fn a_detached_store_is_named_where_numbers_do_not_add_up() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.archiver.configure(&scene.source("m365", "")?)?;
    scene.send(3)?;
    scene.archiver.run(&["run", "--once"], b"")?.expect(0)?;
    scene.archiver.run(&["reconcile"], b"")?.expect(0)?;
    for arguments in [&["store", "create", "second"][..], &["store", "set-state", "second", "current"]] {
        scene.archiver.run(arguments, b"")?.expect(0)?;
    }
    let whole = scene.archiver.run(&["reconcile"], b"")?.expect(0)?;
    ensure!(!whole.err.contains("hint"), "{}", whole.err);
    // A disabled store is not listed, but its records count.
    scene.archiver.run(&["store", "set-state", "main", "disabled"], b"")?.expect(0)?;
    scene.archiver.run(&["reconcile"], b"")?.expect(0)?;
    scene.archiver.run(&["store", "detach", "main"], b"")?.expect(0)?;
    for json in [false, true] {
        let arguments: &[&str] = if json { &["reconcile", "--json"] } else { &["reconcile"] };
        let told = scene.archiver.run(arguments, b"")?.expect(1)?;
        println!("{}", told.err.trim());
        ensure!(
            told.err.contains("hint: store main (records up to ") && told.err.contains("is detached"),
            "{}",
            told.err
        );
    }
    Ok(())
}
