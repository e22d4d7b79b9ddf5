//! A new password for a mailbox in which messages wait.

mod support;

use anyhow::{Result, ensure};
use support::{Access, Gateway, Pop3, folder, numbered_report, pop3};

const WAITING: usize = 50;

#[test]
fn a_new_password_keeps_what_waits() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let old = gateway.create_mailbox()?;
    let mut sender = gateway.smtp()?;
    for n in 0..WAITING {
        ensure!(sender.send("", &[&old.address], &numbered_report(n).0)?.code == 250);
    }
    let new = Access { password: "a new password for it".into(), ..old.clone() };

    let wrong =
        gateway.run(&["mailbox", "passwd", &old.id, "--stdin"], b"not the old one at all\nnever used here\n")?;
    ensure!(wrong.code == 4 && !wrong.err.contains("never used here"), "exit {}: {}", wrong.code, wrong.err);
    let short = gateway.run(&["mailbox", "passwd", &old.id, "--stdin"], lines(&old.password, "short").as_bytes())?;
    ensure!(short.code == 2, "a short password: exit {} {}", short.code, short.err);
    gateway
        .run(&["mailbox", "passwd", &old.id, "--stdin"], lines(&old.password, &new.password).as_bytes())?
        .expect(0)?;

    let refused = Pop3::connect_tls(gateway.address("pop3s")?, &gateway.pin()?)?.login(&old.id, &old.password);
    let Err(refused) = refused else { anyhow::bail!("the old password still opens the mailbox") };
    ensure!(refused.to_string().starts_with("-ERR"), "{refused:#}");

    let mut collector = gateway.pop3(&new)?;
    let mut exact = 0;
    for (number, _) in collector.list()? {
        let (message, _) = collector.xretr(number)?;
        pop3::same("message", pop3::without_trace(&message)?, &numbered_report(exact).0)?;
        exact += 1;
    }
    println!("passwd with {WAITING} waiting: {exact} come out exactly; the old password: {refused}");
    ensure!(exact == WAITING);
    Ok(())
}

fn lines(old: &str, new: &str) -> String {
    format!("{old}\n{new}\n")
}
