//! Certificate files: refused at start when they are wrong, replaced under load without a failure, never replaced by
//! something broken.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};
use support::{
    Gateway, Pop3, Smtp,
    authority::{Authority, Pair, write_private},
    folder, numbered_report, run,
    wire::pin_of,
};

const NAME: &str = "msgw.archive.example";
const NOW: (i32, i32) = (2024, 2100);
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with `mode = "files"`, and where its files are.
fn gateway(folder: &std::path::Path) -> Result<(Gateway, Pair)> {
    let gateway = Gateway::create(folder)?;
    let text = std::fs::read_to_string(&gateway.config)?;
    let files = "mode = \"files\"\ncertificate_file = \"live.pem\"\nkey_file = \"live.key\"";
    std::fs::write(&gateway.config, text.replace("mode = \"self-signed\"", files))?;
    let live = Pair { certificate: gateway.folder.join("live.pem"), key: gateway.folder.join("live.key") };
    Ok((gateway, live))
}

fn hangup(gateway: &Gateway) -> Result<()> {
    run(Command::new("kill").args(["-HUP", &gateway.server()?.pid().to_string()]), b"")?.expect(0)?;
    Ok(())
}

/// Waits until new connections see the certificate with this pin, at SMTP and POP3; gives the time that took.
fn until_served(gateway: &Gateway, pin: &str) -> Result<Duration> {
    let started = Instant::now();
    let seen = || -> Result<()> {
        Smtp::connect_tls(gateway.address("smtp")?, pin)?.quit()?;
        Pop3::connect_tls(gateway.address("pop3s")?, pin).map(drop)
    };
    loop {
        match seen() {
            Ok(()) => return Ok(started.elapsed()),
            Err(error) if started.elapsed() > PATIENCE => bail!("{error}\n{}", gateway.server()?.log()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn wrong_files_are_refused_at_start() -> Result<()> {
    let folder = folder()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let (mut gateway, live) = gateway(folder.path())?;
    let (good, other) = (authority.make("good", NAME, NOW, false)?, authority.make("other", NAME, NOW, true)?);
    let mixed = Pair { certificate: good.certificate.clone(), key: other.key.clone() };
    let expired = authority.make("expired", NAME, (2020, 2021), true)?;
    let nothing = Pair { certificate: good.key.clone(), key: good.key.clone() };
    for (what, pair, said) in [
        ("mismatch", &mixed, "live.key: this key does not belong to the certificate"),
        ("expired", &expired, "live.pem: this certificate ended on 2021-01-01T00:00:00Z"),
        ("no certificate", &nothing, "live.pem: holds no certificate"),
        ("readable", &good, "live.key: others can read this private key; run chmod 600 on it"),
    ] {
        pair.install(&live)?;
        if what == "readable" {
            std::fs::set_permissions(&live.key, std::fs::Permissions::from_mode(0o644))?;
        }
        for command in ["check-config", "serve"] {
            let output = gateway.run(&[command], b"")?.expect(2)?;
            let sentence = output.err.trim().lines().last().unwrap_or_default().to_owned();
            println!("{what}, {command}: {sentence}");
            ensure!(sentence.contains(said), "{what}: {}", output.err);
        }
    }
    for pair in [&good, &other] {
        pair.install(&live)?;
        gateway.start()?;
        until_served(&gateway, &pin_of(&pair.certificate)?)?;
        gateway.stop()?;
    }
    Ok(())
}

#[test]
fn replaced_under_load_without_a_failure() -> Result<()> {
    const SENDERS: usize = 20;
    let folder = folder()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let (mut gateway, live) = gateway(folder.path())?;
    let pairs = [authority.make("first", NAME, NOW, true)?, authority.make("second", NAME, NOW, false)?];
    let [first, second] = [pin_of(&pairs[0].certificate)?, pin_of(&pairs[1].certificate)?];
    pairs[0].install(&live)?;
    gateway.start()?;
    let (drained, filled) = (gateway.create_mailbox()?, gateway.create_mailbox()?);
    let smtp = gateway.address("smtp")?;
    let mut sender = Smtp::connect_tls(smtp, &first)?;
    for n in 0..SENDERS {
        ensure!(sender.send("", &[&drained.address], &numbered_report(n).0)?.code == 250);
    }
    sender.quit()?;

    // Everybody stands in the middle of a message when the files change, and goes on afterwards.
    let (middle, changed) = (Arc::new(Barrier::new(SENDERS + 2)), Arc::new(Barrier::new(SENDERS + 2)));
    let mut tasks = Vec::new();
    for n in 0..SENDERS {
        let (middle, changed) = (Arc::clone(&middle), Arc::clone(&changed));
        let (address, pin) = (filled.address.clone(), first.clone());
        tasks.push(std::thread::spawn(move || -> Result<()> {
            let (report, _) = numbered_report(n);
            let begun = Smtp::connect_tls(smtp, &pin).and_then(|mut sender| {
                sender.command(&format!("MAIL FROM:<> SIZE={}", report.len()))?;
                sender.command(&format!("RCPT TO:<{address}>"))?;
                let half = report.len() / 2;
                sender.raw(format!("BDAT {half}\r\n").as_bytes())?;
                sender.raw(report.get(..half).unwrap_or_default())?;
                ensure!(sender.reply()?.code == 250);
                Ok((sender, half))
            });
            middle.wait();
            changed.wait();
            let (mut sender, half) = begun?;
            sender.raw(format!("BDAT {} LAST\r\n", report.len() - half).as_bytes())?;
            sender.raw(report.get(half..).unwrap_or_default())?;
            let reply = sender.reply()?;
            ensure!(reply.code == 250, "{reply:?}");
            sender.quit()
        }));
    }
    let (pop3s, pin, access) = (gateway.address("pop3s")?, first.clone(), drained.clone());
    let (half_way, go_on) = (Arc::clone(&middle), Arc::clone(&changed));
    let collector = std::thread::spawn(move || -> Result<usize> {
        let begun = Pop3::connect_tls(pop3s, &pin).and_then(|mut pop3| {
            pop3.login(&access.id, &access.password)?;
            for n in 1..=SENDERS / 2 {
                pop3.retr(n as u64)?;
                pop3.command(&format!("DELE {n}"))?;
            }
            Ok(pop3)
        });
        half_way.wait();
        go_on.wait();
        let mut pop3 = begun?;
        for n in SENDERS / 2 + 1..=SENDERS {
            pop3.retr(n as u64)?;
            pop3.command(&format!("DELE {n}"))?;
        }
        pop3.command("QUIT")?;
        Ok(SENDERS)
    });
    middle.wait();
    pairs[1].install(&live)?;
    hangup(&gateway)?;
    let took = until_served(&gateway, &second)?;
    changed.wait();
    let mut failures = 0;
    for task in tasks {
        if let Err(error) = task.join().ok().context("a sender panicked")? {
            failures += 1;
            println!("{error:#}");
        }
    }
    let taken = collector.join().ok().context("the collector panicked")??;
    let show = gateway.show(&filled.id)?;
    println!(
        "replaced under {SENDERS} deliveries and a POP3 drain of {taken}: {failures} failures; new connections see the \
         new certificate {} ms after SIGHUP",
        took.as_millis()
    );
    ensure!(failures == 0 && show["messages"] == SENDERS && gateway.show(&drained.id)?["messages"] == 0);
    ensure!(took < Duration::from_secs(1), "{took:?}");
    ensure!(Smtp::connect_tls(smtp, &first).is_err(), "the old certificate is still served");
    gateway.stop()?;
    Ok(())
}

#[test]
fn changes_are_noticed_and_a_broken_one_keeps_the_old() -> Result<()> {
    let folder = folder()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let (mut gateway, live) = gateway(folder.path())?;
    let first = authority.make("first", NAME, NOW, false)?;
    let second = authority.make("second", NAME, NOW, true)?;
    let expired = authority.make("expired", NAME, (2020, 2021), false)?;
    first.install(&live)?;
    gateway.start()?;
    second.install(&live)?;
    let pin = pin_of(&second.certificate)?;
    println!(
        "without a signal: new connections see the new certificate after {} ms",
        until_served(&gateway, &pin)?.as_millis()
    );

    let garbage = gateway.folder.join("garbage");
    write_private(&garbage, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    let mixed = Pair { certificate: first.certificate.clone(), key: second.key.clone() };
    let broken = Pair { certificate: garbage, key: second.key.clone() };
    for (what, pair, said) in
        [("mismatch", &mixed, "does not belong"), ("expired", &expired, "ended on"), ("broken", &broken, "")]
    {
        let before = alarms(&gateway)?;
        pair.install(&live)?;
        hangup(&gateway)?;
        let deadline = Instant::now() + PATIENCE;
        while alarms(&gateway)? == before {
            ensure!(Instant::now() < deadline, "{what}: no alarm\n{}", gateway.server()?.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = gateway.server()?.log();
        let alarm = log.lines().rev().find(|line| line.contains("alarm=\"certificate\"")).context("alarm")?;
        println!("{what}: {alarm}");
        ensure!(alarm.contains("the old certificate stays in use") && alarm.contains(said), "{what}: {alarm}");
        until_served(&gateway, &pin)?;
    }
    let status = attention(&gateway, 1)?;
    ensure!(status["certificate"]["last_error"].is_string(), "{status:#}");
    let third = authority.make("third", NAME, NOW, false)?;
    third.install(&live)?;
    hangup(&gateway)?;
    until_served(&gateway, &pin_of(&third.certificate)?)?;
    let status = attention(&gateway, 0)?;
    ensure!(status["certificate"]["last_error"].is_null(), "{status:#}");
    gateway.stop()?;
    Ok(())
}

fn alarms(gateway: &Gateway) -> Result<usize> {
    Ok(gateway.server()?.log().matches("alarm=\"certificate\"").count())
}

/// `status`, once it ends with this code.
fn attention(gateway: &Gateway, code: i32) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = gateway.run(&["status", "--json"], b"")?;
        if output.code == code {
            return output.json();
        }
        ensure!(Instant::now() < deadline, "{}\n{}", output.text(), output.err);
        std::thread::sleep(Duration::from_millis(100));
    }
}
