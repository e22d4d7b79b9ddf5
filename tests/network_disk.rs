//! Both programs refuse a data directory on NFS, SMB or CephFS with exit 5, unless they are told to accept the loss. Nothing
//! of that kind can be mounted here, so the kernel's answer to statfs(2) is replaced (`support/strike.py`).

mod support;

use anyhow::{Result, ensure};
use std::{path::Path, process::Command};
use support::{Archiver, Gateway, folder, run, strike};

const NETWORK: [(&str, u64); 3] = [("NFS", 0x6969), ("SMB", 0xFF53_4D42), ("CephFS", 0x00C3_6400)];

fn refused(what: &str, command: &Command, folder: &Path, log: &Path) -> Result<()> {
    for (name, magic) in NETWORK {
        let output = run(&mut strike::on_file_system(magic, command, folder, log), b"")?;
        ensure!(output.code == 5, "{what} on {name}: exit {} {}", output.code, output.err);
        ensure!(output.err.contains(&format!("is on {name}")), "{what} on {name} does not say why: {}", output.err);
        ensure!(output.err.contains("--i-accept-data-loss"), "{what} on {name} names no way out: {}", output.err);
    }
    println!("{what}: refused on NFS, SMB and CephFS with exit 5");
    Ok(())
}

#[test]
fn network_file_systems_are_refused() -> Result<()> {
    if !strike::is_possible()? {
        return Ok(());
    }
    let folder = folder()?;
    let log = folder.path().join("calls");
    let mut gateway = Gateway::create(folder.path())?;
    refused("gateway", &gateway.command(&["serve"])?, &gateway.folder, &log)?;
    ensure!(!gateway.data().join("lock").exists(), "the data directory was touched");

    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    refused("archiver", &archiver.command(&["run", "--once"])?, &archiver.folder, &log)?;
    let accepting = archiver.command(&["run", "--once", "--i-accept-data-loss"])?;
    let mut accepted = strike::on_file_system(0x6969, &accepting, &archiver.folder, &log);
    let output = run(&mut accepted, b"")?.expect(0)?;
    ensure!(output.err.contains("is on NFS"), "accepted without a word: {}", output.err);
    ensure!(gateway.stop()? == 0);
    Ok(())
}
