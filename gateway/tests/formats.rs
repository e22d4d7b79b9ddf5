//! The examples in `docs/formats/{keys,ledger,spool}.md` are one whole data directory; today's code must read it.
//!
//! Blocks between ```` ```text keys.node ```` and the like are taken as they stand; hex blocks may hold comments
//! behind `|`. `cargo test -p postkeep-gateway --test formats -- --ignored --nocapture` prints new ones.

use anyhow::{Context as _, Result, ensure};
use postkeep_gateway::{
    ledger::{HEADER_LEN, Header, Scan},
    mailbox::Mailboxes,
    node::Node,
    spool::{Folder, Layout, Origin, Spool, age_geometry, open_message},
    verify::Verifier,
};
use postkeep_shared::{
    crypt::Password,
    disk::LocalDisk,
    mail::{Digest, MailboxId},
    receipt::{Entry, Event, Flags, parse_trace},
};
use std::{io::Read as _, path::Path, sync::Arc};

const PASSWORD: &[u8] = b"correct horse battery staple";
const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nHello\r\n";

/// The block of this name on a page.
fn block(page: &str, name: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats").join(page);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (_, rest) =
        text.split_once(&format!("```text {name}\n")).with_context(|| format!("{page}: no block {name}"))?;
    let (block, _) = rest.split_once("```").context("the block has no end")?;
    Ok(block.to_owned())
}

/// The octets of a hex block.
fn hex(page: &str, name: &str) -> Result<Vec<u8>> {
    let block = block(page, name)?;
    let digits: String = block.lines().filter_map(|line| line.split('|').next()).collect();
    let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
    Ok(data_encoding::HEXLOWER.decode(digits.as_bytes())?)
}

fn write(path: &Path, octets: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().context("below the data directory")?)?;
    std::fs::write(path, octets)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

/// The data directory that the pages describe.
fn assembled(data: &Path) -> Result<MailboxId> {
    let definition = block("keys.md", "mailbox")?;
    let id = definition.lines().find_map(|line| line.strip_prefix("id = ")).context("the definition has an id")?;
    let id: MailboxId = id.trim_matches('"').parse()?;
    let sealed = hex("spool.md", "sealed")?;
    let layout = Layout::new(data);
    let ledger = [hex("ledger.md", "header")?, hex("ledger.md", "entry")?].concat();
    write(&data.join("node.key"), block("keys.md", "node")?.as_bytes())?;
    write(&data.join(format!("mailboxes/{id}.toml")), definition.as_bytes())?;
    write(&layout.ledger(id), &ledger)?;
    let entry = Entry::decode(ledger.get(HEADER_LEN..).context("header")?)?;
    write(&layout.message(id, Folder::New, entry.body.uidl), &sealed)?;
    Ok(id)
}

#[test]
fn the_documented_data_directory_is_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let id = assembled(folder.path())?;
    let mailboxes = Mailboxes::existing(folder.path(), Arc::new(LocalDisk))?;
    let verdict = Verifier::new(folder.path(), Arc::new(LocalDisk), mailboxes.clone()).run(None)?;
    ensure!(verdict.messages == 1 && verdict.problems.is_empty(), "{:?}", verdict.problems);

    let mailbox = mailboxes.lookup(&id)?.context("the mailbox is there")?;
    ensure!(mailbox.unlock(&Password::received(b"another password")).is_err());
    let identity = mailbox.unlock(&Password::received(PASSWORD))?;
    ensure!(identity.to_text().trim() == block("keys.md", "identity")?.trim());

    let layout = Layout::new(folder.path());
    let slot = Scan::open(&LocalDisk, &layout.ledger(id), id)?.next().context("one entry")??;
    let entry = slot.entry?;
    let mut octets = Vec::new();
    let path = layout.message(id, Folder::New, entry.body.uidl);
    open_message(&LocalDisk, &path, &entry, &identity)?.read_to_end(&mut octets)?;
    let trace = parse_trace(&octets)?;
    ensure!(octets.get(trace.len..) == Some(MESSAGE), "another message");
    ensure!(octets == block("spool.md", "retrieved")?.replace('\n', "\r\n").as_bytes(), "RETR gives something else");
    Ok(())
}

#[test]
fn the_documented_fields_are_where_the_tables_say() -> Result<()> {
    let octets = hex("ledger.md", "header")?;
    let header = Header::decode(octets.first_chunk::<HEADER_LEN>().context("64 octets")?).context("a header")?;
    ensure!(octets.get(..8) == Some(b"PKLEDGR1".as_slice()) && octets.get(8..24) == Some(header.mailbox.0.as_slice()));
    ensure!(octets.get(24..56) == Some(header.node.0.as_slice()));
    ensure!(octets.get(56..) == Some(header.created_ms.to_be_bytes().as_slice()));

    let octets = hex("ledger.md", "entry")?;
    let entry = Entry::decode(&octets)?;
    entry.verify()?;
    let body = &entry.body;
    ensure!(octets.len() == 276 && octets.get(..6) == Some(&[0, 0, 1, 20, 1, 1]) && body.event == Event::Accepted);
    ensure!(body.prev == Digest::of(&hex("ledger.md", "header")?) && body.flags.has(Flags::ENDS_WITH_CRLF));
    let fields: [(usize, &[u8]); 13] = [
        (6, &body.flags.0.to_be_bytes()),
        (8, &body.seq.to_be_bytes()),
        (16, &body.time_ms.to_be_bytes()),
        (24, &body.mailbox.0),
        (40, &body.uidl.0),
        (56, &body.size.to_be_bytes()),
        (64, &body.sealed_content.to_be_bytes()),
        (72, &body.refers_to.to_be_bytes()),
        (80, &body.sealed_sha256.0),
        (112, &body.digest.0),
        (144, &body.prev.0),
        (176, &entry.node.0),
        (208, &entry.signature),
    ];
    for (at, field) in fields {
        ensure!(octets.get(at..at + field.len()) == Some(field), "the field at {at}");
    }
    ensure!(octets.get(272..) == Digest::of(octets.get(..272).context("272 octets")?).0.get(..4));
    ensure!(entry.hash() == Digest::of(octets.get(..272).context("272 octets")?));
    let sealed = hex("spool.md", "sealed")?;
    ensure!(Digest::of(&sealed) == body.sealed_sha256);
    ensure!(age_geometry(&sealed, sealed.len() as u64) == Some(body.sealed_content));
    let node = hex("keys.md", "node-public")?;
    ensure!(node == entry.node.0);
    Ok(())
}

/// Prints the blocks of a fresh data directory, for a new version of the pages.
#[tokio::test]
#[ignore = "prints new examples"]
async fn make_examples() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path();
    let (spool, _) = Spool::open(data, "msgw.archive.example", Arc::new(LocalDisk))?;
    let password = Password::received(PASSWORD);
    let (mailbox, _) = spool.mailboxes().create("example", Some(&password))?;
    let origin = Origin {
        ip: "192.0.2.7".parse()?,
        reverse_name: None,
        helo: "mail.aurora.example".into(),
        mail_from: String::new(),
        rcpt_to: format!("{}@msgw.archive.example", mailbox.id),
        tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into()),
        certificate: None,
        verified: None,
        protocol: "ESMTPS",
    };
    let mut incoming = spool.begin(&mailbox, &origin)?;
    incoming.write(MESSAGE)?;
    let receipts = spool.commit(vec![incoming]).await?;
    let entry = receipts.first().context("one receipt")?.entry().clone();
    spool.close();
    let layout = Layout::new(data);
    let identity = mailbox.unlock(&password)?;
    let path = layout.message(mailbox.id, Folder::New, entry.body.uidl);
    let mut octets = String::new();
    open_message(&LocalDisk, &path, &entry, &identity)?.read_to_string(&mut octets)?;
    let ledger = std::fs::read(layout.ledger(mailbox.id))?;
    let definition = data.join(format!("mailboxes/{}.toml", mailbox.id));
    let hex = |octets: &[u8]| {
        let lines = octets.chunks(32).map(|line| data_encoding::HEXLOWER.encode(line));
        lines.map(|line| line + "\n").collect::<String>()
    };
    let (header, entry) = ledger.split_at(HEADER_LEN);
    let blocks = [
        ("node", std::fs::read_to_string(data.join("node.key"))?),
        ("node-public", hex(&Node::load(data, &LocalDisk)?.public().0)),
        ("mailbox", std::fs::read_to_string(definition)?),
        ("identity", format!("{}\n", identity.to_text().as_str())),
        ("header", hex(header)),
        ("entry", hex(entry)),
        ("sealed", hex(&std::fs::read(path)?)),
        ("retrieved", octets.replace("\r\n", "\n")),
    ];
    for (name, text) in blocks {
        println!("```text {name}\n{text}```");
    }
    Ok(())
}
