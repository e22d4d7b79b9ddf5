//! Every index can be thrown away.

mod support;

use anyhow::{Result, ensure};
use support::{Access, Archiver, Gateway, folder, numbered_report, samples};

/// What anybody can see of a gateway's mailbox.
fn gateway_lists(gateway: &Gateway, access: &Access) -> Result<String> {
    let mut collector = gateway.pop3(access)?;
    let lists = format!(
        "{:?}\n{:?}\n{}\n{:?}",
        collector.list()?,
        collector.uidl()?,
        gateway.show(&access.id)?,
        gateway.ledger(&access.id)?
    );
    collector.quit()?;
    Ok(lists)
}

/// What anybody can see of an archive.
fn archive_lists(archiver: &Archiver) -> Result<String> {
    let mut listed: Vec<String> =
        archiver.list_all()?.iter().map(|(owner, entry)| format!("{owner} {entry}")).collect();
    listed.sort();
    let (code, numbers) = archiver.reconcile()?;
    Ok(format!("{}\n{code} {numbers:?}", listed.join("\n")))
}

#[test]
fn the_gateway_index_is_rebuilt() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let (access, other) = (gateway.create_mailbox()?, gateway.create_mailbox()?);
    let mut sender = gateway.smtp()?;
    for sample in samples::all()? {
        ensure!(sender.send(sample.mail_from(), &[&access.address, &other.address], &sample.bytes)?.code == 250);
    }
    sender.quit()?;
    let mut collector = gateway.pop3(&access)?;
    for number in [1, 7, 67] {
        collector.command(&format!("DELE {number}"))?;
    }
    collector.quit()?;
    let before = (gateway_lists(&gateway, &access)?, gateway_lists(&gateway, &other)?);
    ensure!(gateway.stop()? == 0, "the gateway did not end well");
    let index = gateway.data().join("index");
    ensure!(index.is_dir(), "{} does not exist", index.display());
    std::fs::remove_dir_all(&index)?;
    gateway.start()?;
    let after = (gateway_lists(&gateway, &access)?, gateway_lists(&gateway, &other)?);
    ensure!(before == after, "before:\n{}\nafter:\n{}", before.0, after.0);
    println!("gateway: index deleted, {} octets of lists as before", before.0.len() + before.1.len());
    let again = gateway.smtp()?.send("", &[&access.address], &numbered_report(1).0)?;
    ensure!(again.receipts()?.first().is_some_and(|(_, seq, _)| *seq == 71), "67 in, 3 out, then {again:?}");
    Ok(())
}

#[test]
fn the_archive_catalog_is_rebuilt() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let mut sender = gateway.smtp()?;
    for sample in samples::all()? {
        ensure!(sender.send(sample.mail_from(), &[&access.address], &sample.bytes)?.code == 250);
    }
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    archiver.run(&["run", "--once"], b"")?;
    let before = archive_lists(&archiver)?;
    ensure!(before.lines().count() > 60, "hardly anything was archived:\n{before}");
    let catalog = archiver.store().join("catalog");
    ensure!(catalog.is_dir(), "{} does not exist", catalog.display());
    std::fs::remove_dir_all(&catalog)?;

    // A start is enough, and it goes on collecting.
    ensure!(sender.send("", &[&access.address], &numbered_report(1).0)?.code == 250);
    archiver.run(&["run", "--once"], b"")?;
    let after = archive_lists(&archiver)?;
    let lost: Vec<&str> = before.lines().filter(|l| !l.starts_with("0 [") && !after.contains(l)).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");

    // And by command, with the small state gone as well.
    std::fs::remove_dir_all(&catalog)?;
    std::fs::remove_dir_all(archiver.data().join("state"))?;
    archiver.run(&["store", "rebuild-catalog"], b"")?.expect(0)?;
    ensure!(after == archive_lists(&archiver)?, "rebuild-catalog gives another list");
    let (code, verdict) = archiver.verify()?;
    ensure!(code == 0, "{verdict}");
    println!("archiver: catalog deleted twice, state once, {} lines of lists as before", after.lines().count());
    Ok(())
}
