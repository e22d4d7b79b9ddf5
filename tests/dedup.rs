//! What many messages carry is stored once.

mod support;

use anyhow::{Result, ensure};
use support::{Archiver, Gateway, files_below, folder};

const MESSAGES: usize = 20;

#[test]
fn an_attachment_is_stored_once() -> Result<()> {
    for octets in [300_000, 5_000_000] {
        stored_once(octets)?;
    }
    Ok(())
}

fn stored_once(octets: usize) -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let mut random = support::Random::new(octets as u64);
    let attachment: Vec<u8> = (0..octets).map(|_| random.number() as u8).collect();

    let (mut first, mut sent) = (0, 0);
    for n in 0..MESSAGES {
        let report = message(n, &attachment);
        sent += report.len() as u64;
        ensure!(gateway.smtp()?.send("", &[&access.address], &report)?.code == 250);
        if n == 0 {
            archiver.round()?;
            first = pack_octets(&archiver)?;
        }
    }
    archiver.round()?;
    let all = pack_octets(&archiver)?;
    let instances = archiver.list_all()?.len();
    println!(
        "an attachment of {octets} octets in {MESSAGES} messages, {instances} instances: {sent} octets in, packs hold {first} after the first message, {all} after the last"
    );
    println!("store stats: {}", archiver.stats()?);
    ensure!(instances == MESSAGES * 5, "{instances} instances");
    ensure!(first >= octets as u64 && first < octets as u64 * 11 / 10, "base64 was not stored decoded");
    ensure!(all - first < octets as u64 / 2, "the attachment was stored more than once");
    Ok(())
}

/// From ann to the four others, so that five archives get it.
fn message(n: usize, attachment: &[u8]) -> Vec<u8> {
    let others = ["bob@aurora.example", "carl@aurora.example", "dora@aurora.example", "erik@aurora.example"];
    let encoded = data_encoding::BASE64.encode(attachment);
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    let original = format!(
        "From: ann@aurora.example\r\nTo: {}\r\nSubject: Number {n}\r\nMessage-ID: <dedup-{n}@aurora.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"x{n}\"\r\n\r\n--x{n}\r\nContent-Type: text/plain\r\n\r\nText {n}\r\n--x{n}\r\n\
         Content-Type: application/pdf; name=\"plan-{n}.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--x{n}--\r\n",
        others.join(", "),
        lines.join("\r\n")
    );
    let id = format!("<dedup-{n}@aurora.example>");
    support::report("ann@aurora.example", &others, &format!("Number {n}"), &id, original.as_bytes())
}

fn pack_octets(archiver: &Archiver) -> Result<u64> {
    let mut sum = 0;
    for file in files_below(&archiver.store().join("packs"))? {
        sum += std::fs::metadata(file)?.len();
    }
    Ok(sum)
}
