//! The life of a mailbox, by commands: while the server runs and while it does not, and killed at its system calls.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{
    Access, Gateway,
    archiver::restrict,
    folder,
    killed::{killed, points},
    numbered_report, pop3,
};

fn send(gateway: &Gateway, access: &Access, n: usize) -> Result<u16> {
    Ok(gateway.smtp()?.send("", &[&access.address], &numbered_report(n).0)?.code)
}

/// Everything that waits, by number of the report; nothing is removed.
fn waiting(gateway: &Gateway, access: &Access) -> Result<Vec<Vec<u8>>> {
    let mut session = gateway.pop3(access)?;
    let mut all = Vec::new();
    for (number, _) in session.list()? {
        all.push(pop3::without_trace(&session.xretr(number)?.0)?.to_vec());
    }
    session.quit()?;
    Ok(all)
}

fn expected(numbers: &[usize]) -> Vec<Vec<u8>> {
    numbers.iter().map(|n| numbered_report(*n).0).collect()
}

fn opens(gateway: &Gateway, id: &str, password: &str) -> Result<bool> {
    let output = gateway.run(&["mailbox", "identity", id], format!("{password}\n").as_bytes())?;
    ensure!([0, 4].contains(&output.code), "mailbox identity: {} {}", output.code, output.err);
    Ok(output.code == 0)
}

/// An escrow: its recipient, and a file with its identity. Any age key will do; this one is a mailbox's of its own.
fn escrow(gateway: &Gateway, folder: &Path, name: &str) -> Result<(String, PathBuf)> {
    let access = gateway.create_mailbox()?;
    let recipient = gateway.show(&access.id)?.get("recipient").and_then(Value::as_str).context("show")?.to_owned();
    let password = format!("{}\n", access.password);
    let identity = gateway.run(&["mailbox", "identity", &access.id], password.as_bytes())?.expect(0)?;
    let file = folder.join(name);
    std::fs::write(&file, format!("# an escrow\n{}", identity.text()))?;
    restrict(&file)?;
    Ok((recipient, file))
}

fn with_password(access: &Access, password: &str) -> Access {
    Access { password: password.to_owned(), ..access.clone() }
}

#[test]
fn suspend_resume_rotate_and_delete_while_the_server_runs() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let id = access.id.as_str();
    ensure!(send(&gateway, &access, 0)? == 250);

    gateway.run(&["mailbox", "suspend", id], b"")?.expect(0)?;
    ensure!(send(&gateway, &access, 1)? == 450);
    ensure!(gateway.show(id)?.get("state") == Some(&Value::from("suspended")));
    ensure!(waiting(&gateway, &access)? == expected(&[0]), "POP3 must go on");
    gateway.run(&["mailbox", "resume", id], b"")?.expect(0)?;
    ensure!(send(&gateway, &access, 1)? == 250);

    let new = "rotated password";
    let lines = format!("{}\n{new}\n", access.password);
    gateway.run(&["mailbox", "rotate", id, "--stdin"], lines.as_bytes())?.expect(0)?;
    ensure!(send(&gateway, &access, 2)? == 250);
    let refused = gateway.pop3(&access);
    ensure!(refused.is_err(), "the old password still opens the mailbox");
    let rotated = with_password(&access, new);
    ensure!(waiting(&gateway, &rotated)? == expected(&[0, 1, 2]), "what waited before the rotation");
    let identities = gateway.run(&["mailbox", "identity", id], format!("{new}\n").as_bytes())?.expect(0)?;
    ensure!(identities.text().lines().filter(|l| l.starts_with("AGE-SECRET-KEY-1")).count() == 2);
    let early = gateway.run(&["mailbox", "rotate", id, "--stdin", "--forget-earlier"], b"x\ny\n")?;
    ensure!(early.code == 5 && early.err.contains("3 waiting"), "{} {}", early.code, early.err);

    // Ended only on purpose, and only with the number of what is lost.
    let delete = |more: &[&str]| gateway.run(&[&["mailbox", "delete", id], more].concat(), b"");
    ensure!(delete(&[])?.code == 5, "it takes mail");
    gateway.run(&["mailbox", "suspend", id], b"")?.expect(0)?;
    for more in [&[][..], &["--discard", "2"], &["--discard", "4"]] {
        let refused = delete(more)?;
        ensure!(refused.code == 5 && refused.err.contains("--discard 3"), "{} {}", refused.code, refused.err);
    }
    ensure!(waiting(&gateway, &rotated)? == expected(&[0, 1, 2]), "a refusal must remove nothing");
    delete(&["--discard", "3"])?.expect(0)?;
    ensure!(send(&gateway, &access, 3)? == 550);
    ensure!(gateway.pop3(&rotated).is_err(), "it still opens");
    ensure!(gateway.run(&["mailbox", "show", id], b"")?.code == 2);
    let ledger = std::fs::read(gateway.data().join(format!("ledger/{id}.ledger")))?;
    ensure!(ledger.len() == 64 + 6 * 276, "the ledger must tell what was discarded");
    gateway.run(&["verify"], b"")?.expect(0)?;
    ensure!(gateway.stop()? == 0);
    gateway.start()?;
    ensure!(!gateway.server()?.log().contains("ALARM"), "{}", gateway.server()?.log());
    gateway.run(&["verify"], b"")?.expect(0)?;
    println!("suspended, rotated and deleted while running: 3 messages read with both keys, 3 discarded by number");
    Ok(())
}

#[test]
fn the_same_without_a_server() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    ensure!(send(&gateway, &access, 0)? == 250 && send(&gateway, &access, 1)? == 250);
    ensure!(gateway.stop()? == 0);
    let id = access.id.as_str();
    let lines = format!("{}\nrotated password\n", access.password);
    gateway.run(&["mailbox", "rotate", id, "--stdin"], lines.as_bytes())?.expect(0)?;
    gateway.run(&["mailbox", "suspend", id], b"")?.expect(0)?;
    gateway.start()?;
    ensure!(send(&gateway, &access, 2)? == 450);
    ensure!(waiting(&gateway, &with_password(&access, "rotated password"))? == expected(&[0, 1]));
    ensure!(gateway.stop()? == 0);
    ensure!(gateway.run(&["mailbox", "delete", id], b"")?.code == 5);
    gateway.run(&["mailbox", "delete", id, "--discard", "2"], b"")?.expect(0)?;
    gateway.run(&["verify"], b"")?.expect(0)?;
    ensure!(gateway.run(&["mailbox", "list", "--json"], b"")?.expect(0)?.json_stream()?.is_empty());
    Ok(())
}

#[test]
fn a_lost_password() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let (recipient, file) = escrow(&gateway, folder.path(), "escrow.txt")?;
    let (_, other) = escrow(&gateway, folder.path(), "other.txt")?;
    let made = gateway.run(&["mailbox", "create", "--escrow", &recipient, "--json"], b"")?.expect(0)?.json()?;
    let text = |key: &str| made.get(key).and_then(Value::as_str).map(str::to_owned).context("create --json");
    let access = Access { id: text("id")?, address: text("address")?, password: text("password")? };
    ensure!(send(&gateway, &access, 0)? == 250);
    let id = access.id.as_str();
    let definition = || std::fs::read(gateway.data().join(format!("mailboxes/{id}.toml")));
    let before = definition()?;

    // Without the identity, and with another one: clearly refused, nothing changed.
    let reset = |more: &[&str]| gateway.run(&[&["mailbox", "reset-password", id], more].concat(), b"");
    let refused = reset(&[])?;
    ensure!(refused.code == 5 && refused.err.contains(&recipient), "{} {}", refused.code, refused.err);
    let with = |file: &Path| file.to_str().map(str::to_owned).context("a path");
    let wrong = reset(&["--escrow-identity", &with(&other)?])?;
    ensure!(wrong.code == 4 && wrong.err.contains("not the identity"), "{} {}", wrong.code, wrong.err);
    ensure!(definition()? == before);

    let done = reset(&["--escrow-identity", &with(&file)?, "--json"])?.expect(0)?.json()?;
    let password = done.get("password").and_then(Value::as_str).context("a password")?;
    ensure!(gateway.pop3(&access).is_err(), "the lost password still opens it");
    ensure!(waiting(&gateway, &with_password(&access, password))? == expected(&[0]));

    // Without escrow: what is lost is said before anything is done.
    let bare = gateway.create_mailbox()?;
    ensure!(send(&gateway, &bare, 1)? == 250 && send(&gateway, &bare, 2)? == 250);
    let reset = |more: &[&str]| gateway.run(&[&["mailbox", "reset-password", &bare.id], more].concat(), b"");
    let told = reset(&[])?;
    ensure!(told.code == 5 && told.err.contains("2 messages") && told.err.contains("no escrow"), "{}", told.err);
    ensure!(reset(&["--lose", "1"])?.code == 5);
    let none = reset(&["--escrow-identity", &with(&file)?])?;
    ensure!(none.code == 4 && none.err.contains("no escrow"), "{} {}", none.code, none.err);
    ensure!(waiting(&gateway, &bare)? == expected(&[1, 2]), "a refusal must change nothing");
    let done = reset(&["--lose", "2", "--json"])?.expect(0)?;
    ensure!(done.err.contains("2 messages"), "{}", done.err);
    let password = done.json()?.get("password").and_then(Value::as_str).context("a password")?.to_owned();
    ensure!(send(&gateway, &bare, 3)? == 250);
    ensure!(waiting(&gateway, &with_password(&bare, &password))? == expected(&[3]));
    println!(
        "lost passwords: reset with the escrow identity, refused without; without escrow 2 messages named before they were lost"
    );
    Ok(())
}

#[test]
fn rotation_killed_at_its_system_calls() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let mut access = gateway.create_mailbox()?;
    ensure!(send(&gateway, &access, 0)? == 250);
    let id = access.id.clone();
    let command = gateway.command(&["mailbox", "rotate", &id, "--stdin"])?;
    let lines = |access: &Access, new: &str| format!("{}\n{new}\n", access.password).into_bytes();
    let first = "another password 0";
    let Some((output, all)) = points(&command, &lines(&access, first), folder.path(), 1)? else { return Ok(()) };
    output.expect(0)?;
    access.password = first.to_owned();
    let (mut ended, mut with_old, mut with_new) = (0, 0, 0);
    for (i, point) in all.iter().enumerate() {
        let new = format!("another password {}", i + 1);
        let output = killed(&command, &lines(&access, &new), *point)?;
        ended += usize::from(output.code != 0);
        let (old_opens, new_opens) = (opens(&gateway, &id, &access.password)?, opens(&gateway, &id, &new)?);
        ensure!(old_opens != new_opens, "{point:?}: old password opens: {old_opens}, new one: {new_opens}");
        ensure!(new_opens || output.code != 0, "{point:?}: confirmed, and does not hold");
        with_old += usize::from(old_opens);
        with_new += usize::from(new_opens);
        if new_opens {
            access.password = new;
        }
        if with_new % 10 == 9 {
            break;
        }
    }
    ensure!(waiting(&gateway, &access)? == expected(&[0]), "what waited is not readable");
    println!(
        "rotation killed at system calls: points {}, killed {ended}, opens with the old password {with_old}, with the new one \
         {with_new}, with both or neither 0",
        all.len()
    );
    ensure!(ended >= 4 && with_old > 0);
    Ok(())
}
