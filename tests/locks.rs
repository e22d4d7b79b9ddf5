//! One data folder, one program: ten gateways and ten archivers are started on one at once.

mod support;

use anyhow::{Result, ensure};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Archiver, Gateway, folder};

const PROGRAMS: usize = 10;

/// Starts `command` many times at once; all but one must end with exit 3 and say why, the last stays.
fn only_one(what: &str, command: impl Fn() -> Result<Command>, says: &str) -> Result<()> {
    let mut running: Vec<Child> = Vec::new();
    for _ in 0..PROGRAMS {
        running.push(command()?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    }
    let (deadline, mut refused) = (Instant::now() + Duration::from_secs(60), 0);
    while running.len() > 1 && Instant::now() < deadline {
        let mut still = Vec::new();
        for mut child in running {
            match child.try_wait()? {
                None => still.push(child),
                Some(_) => {
                    let output = child.wait_with_output()?;
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    ensure!(output.status.code() == Some(3), "{what}: {:?}\n{said}", output.status);
                    ensure!(said.contains(says), "{what} does not say why: {said}");
                    refused += 1;
                }
            }
        }
        running = still;
        std::thread::sleep(Duration::from_millis(20));
    }
    // The one that is left must be at work, not just slow to find out.
    std::thread::sleep(Duration::from_secs(1));
    let left = running.len();
    for mut child in running {
        ensure!(child.try_wait()?.is_none(), "{what}: nobody was left");
        child.kill()?;
        child.wait()?;
    }
    println!("{what}: {PROGRAMS} started at once on one folder, {left} runs, {refused} ended with exit 3 and said why");
    ensure!(left == 1 && refused == PROGRAMS - 1);
    Ok(())
}

#[test]
fn ten_gateways_on_one_folder() -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::create(folder.path())?;
    gateway.create_mailbox()?;
    only_one("gateway", || gateway.command(&["serve"]), "is in use by another postkeep-gateway")
}

#[test]
fn ten_archivers_on_one_store() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    only_one("archiver", || archiver.command(&["serve"]), "another archiver works on")?;
    ensure!(gateway.stop()? == 0);
    Ok(())
}
