//! Alarms of both programs, received by a real Postfix: each once, in order, and none lost or twice while the relay is
//! down; straight to the mail exchanger; through a command. Probes through a Postfix with a journal rule.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{
    Archiver, Gateway, Server,
    dns::{Data, Dns},
    folder,
    mail_server::{MailServer as Postfix, field, has_postfix, mails},
    numbered_report,
    ports::free_port,
    run,
};

const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// Subjects of all mails so far, without the name of the machine.
fn subjects(folder: &Path) -> Result<Vec<String>> {
    let shown = |mail: &String| {
        let subject = field(mail, "Subject")?;
        Ok(subject.rsplit_once(" (").map_or(subject.clone(), |(said, _)| said.to_owned()))
    };
    mails(folder)?.iter().map(shown).collect()
}

fn wait_for(what: &str, limit: u64, mut reached: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !reached()? {
        ensure!(began.elapsed() < Duration::from_secs(limit), "{what} does not happen within {limit} s");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(began.elapsed())
}

fn mail_comes(folder: &Path, beginning: &str) -> Result<Duration> {
    let came = || Ok(subjects(folder)?.iter().any(|subject| subject.starts_with(beginning)));
    wait_for(beginning, 60, came).with_context(|| format!("mails: {:?}", subjects(folder)))
}

fn told(port: u16, silence: &str) -> String {
    format!(
        "\n[mail]\nfrom = \"postkeep@aurora.example\"\nrelay = \"127.0.0.1:{port}\"\nsecurity = \"none\"\n\n[alarms]\n\
         mail = [\"admin@ops.test\"]\nsettle = \"1s\"\nretry = \"500ms\"\nlook = \"200ms\"\nhost_down = \"2s\"\n\
         silence = \"{silence}\"\ndisk_free = 0\ninodes_free = 0\n[alarms.busy_hours]\nm365 = \"Mon-Sun 00:00-24:00\"\n"
    )
}

fn add(archiver: &Archiver, more: &str) -> Result<String> {
    let before = std::fs::read_to_string(&archiver.config)?;
    std::fs::write(&archiver.config, format!("{before}{more}"))?;
    Ok(before)
}

fn serve(archiver: &Archiver) -> Result<Server> {
    Server::start(&mut archiver.command(&["serve"])?, &[])
}

fn send(gateway: &Gateway, address: &str, n: usize) -> Result<()> {
    let mut sender = gateway.smtp()?;
    let reply = sender.send_data("", &[address], &numbered_report(n).0)?;
    ensure!(reply.code == 250, "{reply:?}");
    sender.quit()?;
    Ok(())
}

/// A gateway whose POP3 port stays the same from start to start.
fn steady_gateway(folder: &Path) -> Result<Gateway> {
    let gateway = Gateway::create(folder)?;
    let text = std::fs::read_to_string(&gateway.config)?;
    let port = free_port(LOOPBACK)?;
    let steady = text.replace("listen_tls = [\"127.0.0.1:0\"]", &format!("listen_tls = [\"127.0.0.1:{port}\"]"));
    ensure!(steady != text);
    std::fs::write(&gateway.config, steady)?;
    Ok(gateway)
}

#[test]
fn silence_gap_and_host_down_each_once_and_nothing_lost_while_the_relay_is_down() -> Result<()> {
    if !has_postfix("alarms by mail") {
        return Ok(());
    }
    let began = Instant::now();
    let folder = folder()?;
    let (inbox, address) = (folder.path().join("postfix"), (LOOPBACK, free_port(LOOPBACK)?));
    let postfix = Postfix::delivering(&inbox, address, "ops.test")?;
    let mut gateway = steady_gateway(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let plain = add(&archiver, &told(address.1, "4s"))?;
    let said = archiver.run(&["check-config"], b"")?.expect(0)?;
    ensure!(said.text().contains("no mistake"), "{}", said.text());
    let test = archiver.run(&["alarm", "test"], b"")?.expect(0)?;
    ensure!(test.text().starts_with("ok     mail:admin@ops.test: taken by 127.0.0.1"), "{}", test.text());
    mail_comes(&inbox, "[test] postkeep-archiver on ")?;

    // Silence, and its end.
    let service = serve(&archiver)?;
    send(&gateway, &access.address, 1)?;
    let silence = mail_comes(&inbox, "[ALARM] no reports: m365")?;
    send(&gateway, &access.address, 2)?;
    mail_comes(&inbox, "[resolved] no reports: m365")?;
    ensure!(service.stop()? == 0);

    // A message that is gone from the spool: `reconcile` finds the gap. It comes back, and all adds up again.
    std::fs::write(&archiver.config, format!("{plain}{}", told(address.1, "never")))?;
    send(&gateway, &access.address, 3)?;
    let lost = gateway.waiting(&access.id)?.pop().context("one waits")?;
    let aside = folder.path().join("aside");
    ensure!(gateway.stop()? == 0);
    std::fs::rename(&lost, &aside)?;
    gateway.start()?;
    archiver.run(&["reconcile"], b"")?.expect(1)?;
    let service = serve(&archiver)?;
    mail_comes(&inbox, "[ALARM] numbers do not add up: m365 mbx-")?;
    ensure!(service.stop()? == 0 && gateway.stop()? == 0);
    std::fs::rename(&aside, &lost)?;
    gateway.start()?;
    let service = serve(&archiver)?;
    wait_for("the message is collected", 60, || Ok(gateway.waiting(&access.id)?.is_empty()))?;
    archiver.run(&["reconcile"], b"")?.expect(0)?;
    mail_comes(&inbox, "[resolved] numbers do not add up: m365 mbx-")?;

    // A host that is down, and up again.
    ensure!(gateway.stop()? == 0);
    mail_comes(&inbox, "[ALARM] host down: m365 at 127.0.0.1")?;
    let listed = archiver.run(&["alarm", "list", "--json"], b"")?.expect(1)?.json()?;
    ensure!(listed.pointer("/alarms/0/kind") == Some(&Value::from("host-down")), "{listed}");
    gateway.start()?;
    mail_comes(&inbox, "[resolved] host down: m365 at 127.0.0.1")?;
    let all = mails(&inbox)?;
    let seen = subjects(&inbox)?;
    println!("{} mails: silence after {silence:.1?}; in order {seen:?}", seen.len());
    for kind in ["no reports", "numbers do not add up", "host down"] {
        for event in ["[ALARM]", "[resolved]"] {
            let count = seen.iter().filter(|subject| subject.starts_with(&format!("{event} {kind}"))).count();
            ensure!(count == 1, "{event} {kind}: {count} times in {seen:?}");
        }
    }
    for mail in &all {
        ensure!(field(mail, "Auto-Submitted")? == "auto-generated" && field(mail, "Date").is_ok());
        ensure!(field(mail, "Message-ID")?.ends_with("@aurora.example>"), "{mail}");
        ensure!(!mail.contains(&access.id) && !mail.contains(&access.password), "a whole mailbox name:\n{mail}");
    }

    // The relay is down, alarms come and go, the archiver is killed: later everything arrives, once and in order.
    let before = seen.len();
    drop(postfix);
    ensure!(gateway.stop()? == 0);
    let stuck = || {
        let listed = archiver.run(&["alarm", "list", "--json"], b"")?.json()?;
        Ok(listed.pointer("/queued/0/failures").and_then(Value::as_u64) > Some(1))
    };
    wait_for("a notice that cannot be delivered", 60, stuck)?;
    service.kill()?;
    gateway.start()?;
    let service = serve(&archiver)?;
    let both = || {
        let listed = archiver.run(&["alarm", "list", "--json"], b"")?.json()?;
        Ok(listed.pointer("/queued/0/waiting").and_then(Value::as_u64) == Some(2))
    };
    wait_for("the resolved notice behind it", 60, both)?;
    std::thread::sleep(Duration::from_secs(2));
    let _postfix = Postfix::start_again(&inbox, address)?;
    wait_for("both mails", 60, || Ok(mails(&inbox)?.len() >= before + 2))?;
    std::thread::sleep(Duration::from_secs(2));
    let seen = subjects(&inbox)?;
    let late = seen.get(before..).unwrap_or_default();
    println!("after the relay was down and the archiver killed: {late:?}; {:.0?} in all", began.elapsed());
    ensure!(late.len() == 2 && late[0].starts_with("[ALARM] host down") && late[1].starts_with("[resolved] host down"));
    ensure!(service.stop()? == 0);
    Ok(())
}

#[test]
fn the_gateway_tells_its_own_by_mail_exchanger_and_by_command() -> Result<()> {
    if !has_postfix("alarms by MX") {
        return Ok(());
    }
    let folder = folder()?;
    let inbox = folder.path().join("postfix");
    // Port 25 is the port of mail exchangers: an address of our own.
    let process = std::process::id();
    let ip = Ipv4Addr::new(127, 91, u8::try_from(process / 250 % 250)?, u8::try_from(process % 250 + 1)?);
    let _postfix = Postfix::delivering(&inbox, (ip, 25), "ops.test")?;
    let table = vec![
        ("ops.test", Data::Mx(5, "gone.ops.test")),
        ("gone.ops.test", Data::A(Ipv4Addr::new(127, 91, 255, 254))),
        ("ops.test", Data::Mx(10, "mx.ops.test")),
        ("mx.ops.test", Data::A(ip)),
    ];
    let dns = Dns::start((LOOPBACK, 0).into(), table)?;
    let hook = folder.path().join("hook.jsonl");
    let mut gateway = Gateway::create(folder.path())?;
    gateway.configure(&format!(
        "\n[dns]\nservers = [\"{}\"]\n[mail]\nfrom = \"postkeep@archive.example\"\n[alarms]\nmail = [\"admin@ops.test\"]\n\
         command = [\"/bin/sh\", \"-c\", \"cat >> {} && echo >> {}\"]\nsettle = \"1s\"\nlook = \"200ms\"\nretry = \"500ms\"\n\
         suspended = \"1s\"\ndisk_free = 0\ninodes_free = 0\n",
        dns.address,
        hook.display(),
        hook.display()
    ))?;
    let access = gateway.create_mailbox()?;
    let test = gateway.run(&["alarm", "test", "--json"], b"")?;
    let test: Value = serde_json::from_str(&test.text())?;
    ensure!(test.as_array().is_some_and(|ways| ways.len() == 2 && ways.iter().all(|way| way["ok"] == true)), "{test}");
    gateway.start()?;
    gateway.run(&["mailbox", "suspend", &access.id], b"")?.expect(0)?;
    let raised = mail_comes(&inbox, "[ALARM] mailbox suspended: mbx-")?;
    gateway.run(&["mailbox", "resume", &access.id], b"")?.expect(0)?;
    mail_comes(&inbox, "[resolved] mailbox suspended: mbx-")?;
    let lines: Vec<Value> =
        std::fs::read_to_string(&hook)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    println!("suspended: told after {raised:.1?} by MX {ip}:25 (the better one does not answer); hook got {events:?}");
    ensure!(events == ["test", "raised", "resolved"], "{lines:?}");
    ensure!(mails(&inbox)?.len() == 3 && mails(&inbox)?.iter().all(|mail| !mail.contains(&access.id)));
    ensure!(gateway.stop()? == 0);
    Ok(())
}

#[test]
fn a_probe_misses_the_rule_within_two_intervals() -> Result<()> {
    const INTERVAL: u64 = 5;
    if !has_postfix("probes") {
        return Ok(());
    }
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    // The company's mail server: everything is delivered to nowhere, and a copy of everything goes to the gateway.
    let address = (LOOPBACK, free_port(LOOPBACK)?);
    let domain = access.address.rsplit_once('@').context("address")?.1;
    let settings = format!(
        "myhostname = mail.aurora.example\nrelayhost =\ndefault_transport = discard:\nsmtp_tls_security_level = may\n\
         transport_maps = inline:{{ {{ {domain} = smtp:[127.0.0.1]:{} }} }}\nalways_bcc = {}",
        gateway.address("smtp")?.port(),
        access.address
    );
    let postfix = Postfix::start(&folder.path().join("sender"), address, &settings)?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let hook = folder.path().join("hook.jsonl");
    add(
        &archiver,
        &format!(
            "\n[alarms]\ncommand = [\"/bin/sh\", \"-c\", \"cat >> {} && echo >> {}\"]\nsettle = \"500ms\"\nlook = \"200ms\"\n\
             silence = \"never\"\ndisk_free = 0\ninodes_free = 0\n\n[[probe]]\nname = \"mail\"\nserver = \"127.0.0.1:{}\"\n\
             security = \"none\"\nfrom = \"probe@aurora.example\"\nto = \"echo@aurora.example\"\ninterval = \"{INTERVAL}s\"\n",
            hook.display(),
            hook.display(),
            address.1
        ),
    )?;
    let service = serve(&archiver)?;
    let state = || archiver.run(&["probe", "list", "--json"], b"")?.json();
    wait_for("the first probe", 60, || Ok(state()?[0]["latency_ms"].is_u64()))
        .with_context(|| format!("{}\n{}", postfix.log(), service.log()))?;
    let first = state()?[0]["latency_ms"].clone();
    let by_hand = archiver.run(&["probe", "run", "mail"], b"")?.expect(0)?;
    println!("probe: latency {first} ms; by hand: {}", by_hand.text().lines().last().unwrap_or_default());

    // A person's mail goes its own way, also with a copied mark.
    let mark = || -> Result<String> {
        let ids = archiver.list("@probe")?;
        let raw = archiver.run(&["show", ids[0]["id"].as_str().context("id")?], b"")?.expect(0)?;
        field(&raw.text().replace("\r\n", "\n"), "Message-ID")
    };
    let copied = format!(
        "From: bob@aurora.example\r\nTo: ann@aurora.example\r\nSubject: hidden\r\nMessage-ID: {}\r\nDate: Tue, 18 Aug 2026 \
         09:14:01 +0000\r\n\r\nNot for auditors.\r\n",
        mark()?
    );
    let mut sender = postfix.connect()?;
    ensure!(sender.send_data("bob@aurora.example", &["ann@aurora.example"], copied.as_bytes())?.code == 250);
    sender.quit()?;
    wait_for("the message with a copied mark", 60, || Ok(!archiver.list("ann")?.is_empty()))?;
    ensure!(archiver.list("@probe")?.iter().all(|entry| entry["subject"] != "hidden"));

    // The rule is switched off.
    postfix.set("always_bcc=")?;
    let off = Instant::now();
    let lines = || -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&hook).unwrap_or_default();
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let raised = |event: &str| Ok(lines()?.iter().any(|line| line["kind"] == "probe" && line["event"] == event));
    wait_for("the alarm", 4 * INTERVAL, || raised("raised"))?;
    let after = off.elapsed();
    ensure!(after < Duration::from_secs(2 * INTERVAL) + Duration::from_secs(2), "{after:?}");
    archiver.run(&["probe", "run", "mail", "--wait", "2s"], b"")?.expect(1)?;
    postfix.set(&format!("always_bcc={}", access.address))?;
    wait_for("its end", 60, || raised("resolved"))?;
    ensure!(service.stop()? == 0);
    let (code, rows) = archiver.reconcile()?;
    let number = |key: &str| rows[0][key].as_u64().unwrap_or_default();
    println!(
        "rule off: alarm after {after:.1?} with an interval of {INTERVAL} s; accepted {}, collected {}, filed {}, catch-all {}, waiting {}",
        number("accepted"),
        number("collected"),
        number("filed"),
        number("catchall"),
        number("waiting")
    );
    ensure!(code == 0 && number("accepted") == number("collected") + number("waiting"), "{rows:?}");
    ensure!(number("collected") == number("filed") && archiver.list("@catchall")?.is_empty(), "{rows:?}");
    Ok(())
}

/// What a mail program makes of a mail: the names and octets of its attachments.
const ATTACHMENTS: &str = "\
import email, email.policy, sys, pathlib
mail = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
for part in mail.iter_attachments():
    pathlib.Path(sys.argv[1], part.get_filename()).write_bytes(part.get_payload(decode=True))
    print(part.get_filename())
";

/// The auditor has two mails and nothing else of the archive but what he is shown: they prove that nothing in between was
/// rewritten, and no octet of them can be changed unnoticed.
#[test]
fn checkpoints_that_came_by_mail_verify() -> Result<()> {
    if !has_postfix("checkpoints by mail") {
        return Ok(());
    }
    let folder = folder()?;
    let (inbox, address) = (folder.path().join("postfix"), (LOOPBACK, free_port(LOOPBACK)?));
    let _postfix = Postfix::delivering(&inbox, address, "ops.test")?;
    let mut gateway = steady_gateway(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    add(&archiver, &told(address.1, "never"))?;
    add(&archiver, "\n[checkpoint]\nmail = [\"auditor@ops.test\"]\n")?;
    archiver.run(&["check-config"], b"")?.expect(0)?;
    send(&gateway, &access.address, 1)?;
    archiver.run(&["run", "--once"], b"")?.expect(0)?;
    let service = serve(&archiver)?;
    let count = || -> Result<usize> {
        Ok(subjects(&inbox)?.iter().filter(|said| said.starts_with("Postkeep checkpoint ")).count())
    };
    wait_for("the first checkpoint by mail", 60, || Ok(count()? == 1))?;
    send(&gateway, &access.address, 2)?;
    wait_for("another message is collected", 60, || Ok(gateway.waiting(&access.id)?.is_empty()))?;
    // The next one is due a day later, or when those of before are gone; their names are seconds.
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::remove_dir_all(archiver.data().join("checkpoints"))?;
    wait_for("the second checkpoint by mail", 90, || Ok(count()? == 2))?;
    ensure!(service.stop()? == 0);

    let received = folder.path().join("received");
    std::fs::create_dir(&received)?;
    for mail in mails(&inbox)?.iter().filter(|mail| field(mail, "Subject").is_ok_and(|s| s.contains("checkpoint"))) {
        ensure!(field(mail, "To")?.contains("auditor@ops.test"), "{mail}");
        ensure!(!mail.contains(&access.password) && !mail.contains(&access.id), "a secret in a mail:\n{mail}");
        let named =
            run(Command::new("python3").args(["-c", ATTACHMENTS]).arg(&received), mail.as_bytes())?.expect(0)?;
        ensure!(named.text().trim().ends_with(".checkpoint"), "{}", named.text());
    }
    // Those of the archive itself are out of the game.
    std::fs::remove_dir_all(archiver.data().join("checkpoints"))?;
    let mut files: Vec<_> = std::fs::read_dir(&received)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let (old, new) = (files.first().context("the oldest")?, files.last().context("the newest")?);
    let verify = |old: &Path, new: &Path| {
        let pair = [old, new].map(|path| path.display().to_string());
        archiver.run(&["checkpoint", "verify", "--json", &pair[0], &pair[1]], b"")
    };
    let verdict = verify(old, new)?.expect(0)?.json()?;
    let octets = std::fs::read(old)?;
    let (changed, mut refused) = (folder.path().join("changed.checkpoint"), 0);
    for at in (0..octets.len()).step_by(29) {
        let mut other = octets.clone();
        other[at] ^= 1;
        std::fs::write(&changed, other)?;
        let output = verify(&changed, new)?;
        ensure!(output.code != 0, "octet {at} of a checkpoint was changed, and it verifies");
        refused += 1;
    }
    println!("{} checkpoints by mail; the first and the last: {verdict}; {refused} changed ones refused", files.len());
    Ok(())
}
