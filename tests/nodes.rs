//! Mailboxes of two nodes: passwords changed on one while the other is away, sync, bundles, backups; killed on the way.

mod support;

use anyhow::{Context as _, Result, ensure};
use postkeep_gateway::{
    bundle::{self, Item, Purpose},
    mailbox::{Mailboxes, Portable},
    node::Node,
};
use postkeep_shared::{disk::LocalDisk, mail::MailboxId};
use serde_json::Value;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    Access, Archiver, Gateway,
    archiver::restrict,
    folder,
    killed::{killed, points},
    numbered_report, pop3,
};

fn gateway(folder: &Path, name: &str) -> Result<Gateway> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder)?;
    Gateway::create(&folder)
}

fn opens(gateway: &Gateway, id: &str, password: &str) -> Result<bool> {
    let output = gateway.run(&["mailbox", "identity", id], format!("{password}\n").as_bytes())?;
    ensure!([0, 4].contains(&output.code), "mailbox identity: {} {}", output.code, output.err);
    Ok(output.code == 0)
}

fn send(gateway: &Gateway, access: &Access, n: usize) -> Result<u16> {
    Ok(gateway.smtp()?.send("", &[&access.address], &numbered_report(n).0)?.code)
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Two gateways with one sync key; `b` listens, `a` knows it as its peer once it has been started.
struct Pair {
    a: Gateway,
    b: Gateway,
}

impl Pair {
    fn new(folder: &Path) -> Result<Self> {
        let pair = Self { a: gateway(folder, "a")?, b: gateway(folder, "b")? };
        pair.a.configure("[sync]\nkey_file = \"sync.key\"\n")?;
        pair.a.run(&["mailbox", "sync", "--make-key"], b"")?.expect(0)?;
        std::fs::copy(pair.a.folder.join("sync.key"), pair.b.folder.join("sync.key"))?;
        restrict(&pair.b.folder.join("sync.key"))?;
        pair.b.configure("[sync]\nkey_file = \"sync.key\"\nlisten = [\"127.0.0.1:0\"]\n")?;
        Ok(pair)
    }

    /// Starts the second one; the address it syncs at.
    fn start_b(&mut self) -> Result<String> {
        self.b.start()?;
        Ok(self.b.address("sync")?.to_string())
    }
}

#[test]
fn a_password_changed_while_the_other_node_is_away() -> Result<()> {
    let folder = folder()?;
    let mut pair = Pair::new(folder.path())?;
    pair.a.start()?;
    let access = pair.a.create_mailbox()?;
    let (id, new) = (access.id.as_str(), "the new password");
    let peer = pair.start_b()?;
    let first = pair.a.run(&["mailbox", "sync", &peer, "--json"], b"")?.expect(0)?.json()?;
    ensure!(number(&first, "unchanged") == 1, "{first}");
    ensure!(opens(&pair.b, id, &access.password)?, "a mailbox that was created on one must be on both");
    ensure!(send(&pair.a, &access, 0)? == 250 && send(&pair.b, &access, 1)? == 250);

    // The second node is away; the password is changed, the mailbox suspended.
    ensure!(pair.b.stop()? == 0);
    pair.a.run(&["mailbox", "passwd", id, "--stdin"], format!("{}\n{new}\n", access.password).as_bytes())?.expect(0)?;
    pair.a.run(&["mailbox", "suspend", id], b"")?.expect(0)?;
    let away = pair.a.run(&["mailbox", "sync", &peer], b"")?;
    ensure!(away.code == 3 && away.err.contains("cannot reach"), "{} {}", away.code, away.err);
    let peer = pair.start_b()?;
    ensure!(opens(&pair.b, id, &access.password)? && !opens(&pair.b, id, new)?);
    ensure!(opens(&pair.a, id, new)? && !opens(&pair.a, id, &access.password)?);

    // The archiver holds both.
    let archiver = Archiver::create(folder.path())?;
    let password = archiver.folder.join("m365.password");
    std::fs::write(&password, format!("{new}\n{}\n", access.password))?;
    restrict(&password)?;
    archiver.configure(&format!(
        "[[source]]\nname = \"m365\"\nhosts = [\"{}\", \"{}\"]\nmailbox = \"{id}\"\npassword_file = \"m365.password\"\n\
         tls = {{ verify = \"pin\", pin_sha256 = [\"{}\", \"{}\"] }}\n",
        pair.a.address("pop3s")?,
        pair.b.address("pop3s")?,
        pair.a.pin()?,
        pair.b.pin()?
    ))?;
    let both = archiver.round()?;
    ensure!(number(&both, "collected") == 2, "{both}");

    // In step again: the new password opens both, and the suspension holds on both.
    ensure!(send(&pair.b, &access, 2)? == 250);
    pair.a.run(&["mailbox", "sync", &peer], b"")?.expect(0)?;
    ensure!(opens(&pair.b, id, new)? && !opens(&pair.b, id, &access.password)?);
    ensure!(send(&pair.b, &access, 3)? == 450, "the suspension did not arrive");
    let mut session = pair.b.pop3(&Access { password: new.to_owned(), ..access.clone() })?;
    ensure!(pop3::without_trace(&session.xretr(1)?.0)? == numbered_report(2).0);
    drop(session);
    let after = archiver.round()?;
    ensure!(number(&after, "collected") == 1, "{after}");
    let (code, rows) = archiver.reconcile()?;
    ensure!(code == 0 && rows.len() == 2, "{rows:?}");
    println!(
        "password changed while a node was away: 2 collected with the new and the old password, 1 with the new one after sync"
    );
    Ok(())
}

#[test]
fn running_nodes_keep_in_step_by_themselves() -> Result<()> {
    let folder = folder()?;
    let mut pair = Pair::new(folder.path())?;
    let peer = pair.start_b()?;
    pair.a.configure(&format!("[sync]\nkey_file = \"sync.key\"\npeers = [\"{peer}\"]\ninterval = \"1h\"\n"))?;
    pair.a.start()?;
    let access = pair.a.create_mailbox()?;
    let started = Instant::now();
    let wait = |what: &str, done: &dyn Fn() -> Result<bool>| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done()? {
            ensure!(Instant::now() < deadline, "{what} did not arrive at the other node");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    wait("the mailbox", &|| Ok(pair.b.run(&["mailbox", "show", &access.id], b"")?.code == 0))?;
    let created = started.elapsed();
    pair.a.run(&["mailbox", "suspend", &access.id], b"")?.expect(0)?;
    wait("the suspension", &|| Ok(send(&pair.b, &access, 0)? == 450))?;
    // The peer goes away: that shows.
    ensure!(pair.b.stop()? == 0);
    pair.a.run(&["mailbox", "resume", &access.id], b"")?.expect(0)?;
    wait("the alarm", &|| Ok(pair.a.server()?.log().contains("NOT REACHED")))?;
    println!("running nodes: a new mailbox was on the other one after {created:.1?}, a peer that is away is an alarm");
    Ok(())
}

/// One address, another node behind it: refused, unless the source names both.
#[test]
fn another_node_behind_one_name() -> Result<()> {
    let folder = folder()?;
    let (mut one, mut two) = (gateway(folder.path(), "one")?, gateway(folder.path(), "two")?);
    let access = one.create_mailbox()?;
    let bundle = folder.path().join("bundle").display().to_string();
    one.run(&["mailbox", "export", "--out", &bundle], b"")?.expect(0)?;
    two.run(&["mailbox", "import", &bundle], b"")?.expect(0)?;
    one.start()?;
    ensure!(send(&one, &access, 0)? == 250);
    let archiver = Archiver::create(folder.path())?;
    archiver.collect_from(&one, &access)?;
    ensure!(number(&archiver.round()?, "collected") == 1);
    let address = one.address("pop3s")?;
    let node = |gateway: &Gateway| -> Result<String> {
        let entries = gateway.ledger(&access.id)?;
        Ok(entries.first().and_then(|e| e.get("node")).and_then(Value::as_str).context("ledger")?.to_owned())
    };
    let first = node(&one)?;
    ensure!(one.stop()? == 0);
    let text = std::fs::read_to_string(&two.config)?;
    std::fs::write(
        &two.config,
        text.replace("listen_tls = [\"127.0.0.1:0\"]", &format!("listen_tls = [\"{address}\"]")),
    )?;
    two.start()?;
    ensure!(send(&two, &access, 1)? == 250);
    let config = std::fs::read_to_string(&archiver.config)?;
    let both = config.replace("pin_sha256 = [", &format!("pin_sha256 = [\"{}\", ", two.pin()?));
    std::fs::write(&archiver.config, &both)?;
    let odd = archiver.run(&["run", "--once", "--json"], b"")?;
    ensure!(odd.code == 1 && odd.text().contains("name both"), "{} {}", odd.code, odd.text());
    ensure!(number(&two.show(&access.id)?, "messages") == 1, "deleted at a node nobody named");
    let named =
        both.replace("kind = \"gateway\"", &format!("kind = \"gateway\"\nnodes = [\"{first}\", \"{}\"]", node(&two)?));
    std::fs::write(&archiver.config, named)?;
    archiver.run(&["run", "--once"], b"")?;
    let (code, rows) = archiver.reconcile()?;
    ensure!(rows.len() == 2, "{code} {rows:?}");
    ensure!(rows.iter().all(|row| number(row, "missing") == 0 && number(row, "collected") == 1), "{rows:?}");
    Ok(())
}

/// Changes killed at their system calls: each node opens with exactly one of old and new.
#[test]
fn sync_and_import_killed_at_their_system_calls() -> Result<()> {
    let folder = folder()?;
    let mut pair = Pair::new(folder.path())?;
    let access = pair.a.create_mailbox()?;
    let id = access.id.as_str();
    let peer = pair.start_b()?;
    pair.a.run(&["mailbox", "sync", &peer], b"")?.expect(0)?;
    let bundle = folder.path().join("bundle").display().to_string();
    let mut present = access.password.clone();
    let mut change = |n: usize| -> Result<(String, String)> {
        let (old, new) = (present.clone(), format!("another password {n}"));
        pair.a.run(&["mailbox", "passwd", id, "--stdin"], format!("{old}\n{new}\n").as_bytes())?.expect(0)?;
        if Path::new(&bundle).exists() {
            std::fs::remove_file(&bundle)?;
        }
        pair.a.run(&["mailbox", "export", "--out", &bundle], b"")?.expect(0)?;
        present.clone_from(&new);
        Ok((old, new))
    };
    let import = pair.b.command(&["mailbox", "import", &bundle])?;
    let sync = pair.a.command(&["mailbox", "sync", &peer])?;
    let mut n = 0;
    for (name, command) in [("import", &import), ("sync", &sync)] {
        n += 1;
        change(n)?;
        let Some((output, all)) = points(command, b"", folder.path(), 1)? else { return Ok(()) };
        output.expect(0)?;
        let (mut ended, mut with_old) = (0, 0);
        for point in &all {
            n += 1;
            let (old, new) = change(n)?;
            let output = killed(command, b"", *point)?;
            ended += usize::from(output.code != 0);
            let (old_opens, new_opens) = (opens(&pair.b, id, &old)?, opens(&pair.b, id, &new)?);
            ensure!(old_opens != new_opens, "{name} {point:?}: old opens {old_opens}, new opens {new_opens}");
            ensure!(new_opens || output.code != 0, "{name} {point:?}: confirmed, and does not hold");
            with_old += usize::from(old_opens);
            ensure!(command.get_args().count() > 0);
            // Done again, it is done.
            pair.b.run(&["mailbox", "import", &bundle], b"")?.expect(0)?;
            ensure!(opens(&pair.b, id, &new)?);
        }
        println!(
            "{name} killed at system calls: points {}, killed {ended}, with the old password {with_old}, both or neither 0",
            all.len()
        );
        ensure!(ended >= 4 && with_old > 0);
    }
    Ok(())
}

#[test]
fn bundles() -> Result<()> {
    let folder = folder()?;
    let (mut one, mut two) = (gateway(folder.path(), "one")?, gateway(folder.path(), "two")?);
    let access = one.create_mailbox()?;
    let (id, file) = (access.id.as_str(), folder.path().join("bundle"));
    let name = file.display().to_string();
    one.run(&["mailbox", "export", id, "--out", &name], b"")?.expect(0)?;
    ensure!(one.run(&["mailbox", "export", "--out", &name], b"")?.code == 5, "a file was overwritten");
    let octets = std::fs::read(&file)?;
    ensure!(
        support::find(&octets, b"AGE-SECRET-KEY").is_none()
            && support::find(&octets, access.password.as_bytes()).is_none()
    );

    // One changed octet is refused, wherever it is.
    let changed = folder.path().join("changed");
    for at in (0..octets.len()).step_by(octets.len() / 12) {
        let mut octets = octets.clone();
        octets[at] ^= 1;
        std::fs::write(&changed, octets)?;
        let refused = two.run(&["mailbox", "import", &changed.display().to_string()], b"")?;
        ensure!([2, 3, 4].contains(&refused.code), "octet {at}: {} {}", refused.code, refused.err);
    }
    ensure!(two.run(&["mailbox", "list", "--json"], b"")?.expect(0)?.json_stream()?.is_empty());
    ensure!(
        two.run(&["mailbox", "import", &name, "--node", "0123456789abcdef"], b"")?.code == 5,
        "another node's bundle"
    );

    // A thief has it: nothing opens without the password. Taken in twice it is there once.
    let first = two.run(&["mailbox", "import", &name, "--json"], b"")?.expect(0)?.json()?;
    let again = two.run(&["mailbox", "import", &name, "--json"], b"")?.expect(0)?.json()?;
    ensure!(first.pointer("/new/0") == Some(&Value::from(id)) && number(&again, "unchanged") == 1, "{first} {again}");
    ensure!(!opens(&two, id, "a guessed password")? && opens(&two, id, &access.password)?);
    one.start()?;
    two.start()?;
    ensure!(send(&two, &access, 0)? == 250 && two.pop3(&access)?.list()?.len() == 1);

    // Both change the password: a conflict names both and changes nothing.
    for (gateway, new) in [(&one, "password of one"), (&two, "password of two")] {
        let lines = format!("{}\n{new}\n", access.password);
        gateway.run(&["mailbox", "passwd", id, "--stdin"], lines.as_bytes())?.expect(0)?;
    }
    std::fs::remove_file(&file)?;
    one.run(&["mailbox", "export", "--out", &name], b"")?.expect(0)?;
    let other = one.create_mailbox()?;
    let conflict = two.run(&["mailbox", "import", &name], b"")?;
    ensure!(
        conflict.code == 5 && conflict.err.contains("here key") && conflict.err.contains("node"),
        "{}",
        conflict.err
    );
    ensure!(opens(&two, id, "password of two")? && !opens(&two, id, "password of one")?);
    // Changed once more where it is right, that one wins.
    one.run(&["mailbox", "passwd", id, "--stdin"], b"password of one\npassword of both\n")?.expect(0)?;
    let sealed = folder.path().join("sealed").display().to_string();
    let recipient = one.show(&other.id)?.get("recipient").and_then(Value::as_str).context("show")?.to_owned();
    one.run(&["mailbox", "export", "--out", &sealed, "--seal-to", &recipient], b"")?.expect(0)?;
    let identity = folder.path().join("identity");
    let text = one.run(&["mailbox", "identity", &other.id], format!("{}\n", other.password).as_bytes())?.expect(0)?.out;
    std::fs::write(&identity, text)?;
    restrict(&identity)?;
    ensure!(two.run(&["mailbox", "import", &sealed], b"")?.code == 4, "it is sealed");
    two.run(&["mailbox", "import", &sealed, "--identity", &identity.display().to_string()], b"")?.expect(0)?;
    ensure!(opens(&two, id, "password of both")?);
    Ok(())
}

#[test]
fn a_thousand_mailboxes_are_imported() -> Result<()> {
    const MAILBOXES: usize = 1000;
    let folder = folder()?;
    let (one, two) = (gateway(folder.path(), "one")?, gateway(folder.path(), "two")?);
    one.create_mailbox()?;
    let made =
        Mailboxes::existing(&one.data(), Arc::new(LocalDisk))?.list()?.into_iter().next().context("one mailbox")?;
    let portable = serde_json::to_value(made.to_portable().map_err(anyhow::Error::msg)?)?;
    let items = (0..MAILBOXES).map(|n| {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let mut portable = portable.clone();
        *portable.get_mut("id").context("id")? = Value::from(MailboxId(id).to_string());
        Ok(Item::Mailbox(serde_json::from_value::<Portable>(portable)?))
    });
    let items = items.collect::<Result<Vec<_>>>()?;
    let node = Node::load(&one.data(), &LocalDisk)?;
    let text = bundle::write(Purpose::Mailboxes, "2026-11-21T21:23:28Z".into(), &items, &node)?;
    let file = folder.path().join("bundle");
    std::fs::write(&file, text.as_slice())?;
    let name = file.display().to_string();
    let started = Instant::now();
    let taken = two.run(&["mailbox", "import", &name, "--json"], b"")?.expect(0)?.json()?;
    let took = started.elapsed();
    ensure!(taken.get("new").and_then(Value::as_array).is_some_and(|new| new.len() == MAILBOXES));
    let started = Instant::now();
    let again = two.run(&["mailbox", "import", &name, "--json"], b"")?.expect(0)?.json()?;
    ensure!(number(&again, "unchanged") == MAILBOXES as u64);
    println!("import of {MAILBOXES} mailboxes: {took:.2?}, again {:.2?}", started.elapsed());
    ensure!(took < Duration::from_secs(30), "{took:.1?}");
    Ok(())
}

#[test]
fn backup_and_restore() -> Result<()> {
    let folder = folder()?;
    let mut one = gateway(folder.path(), "one")?;
    one.start()?;
    let access = one.create_mailbox()?;
    ensure!(send(&one, &access, 0)? == 250);
    let keeper = one.create_mailbox()?;
    let recipient = one.show(&keeper.id)?.get("recipient").and_then(Value::as_str).context("show")?.to_owned();
    let text =
        one.run(&["mailbox", "identity", &keeper.id], format!("{}\n", keeper.password).as_bytes())?.expect(0)?.out;
    let identity = folder.path().join("identity");
    std::fs::write(&identity, text)?;
    restrict(&identity)?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    one.run(&["backup", "--out", &path("open")], b"")?.expect(0)?;
    one.run(&["backup", "--out", &path("sealed"), "--seal-to", &recipient], b"")?.expect(0)?;
    let node_key = std::fs::read_to_string(one.data().join("node.key"))?;
    let seed = node_key.lines().nth(1).context("node.key")?;
    let open = std::fs::read(path("open"))?;
    ensure!(support::find(&open, seed.as_bytes()).is_none(), "a secret in the open");

    // A new node from either; the password opens it, its signature is its own.
    let restore = |name: &str, more: &[&str]| -> Result<support::Output> {
        let to = folder.path().join(name);
        std::fs::create_dir_all(&to)?;
        let config = to.join("postkeep-gateway.toml").display().to_string();
        let mut command = std::process::Command::new(support::program::program("postkeep-gateway")?);
        command.args(["--config", &config, "restore"]).args(more);
        support::run(&mut command, b"")
    };
    restore("two", &[&path("open")])?.expect(0)?;
    ensure!(restore("two", &[&path("open")])?.code == 5, "a node was overwritten");
    ensure!(restore("three", &[&path("sealed")])?.code == 4, "it is sealed");
    let with = identity.display().to_string();
    restore("three", &[&path("sealed"), "--identity", &with])?.expect(0)?;
    for name in ["two", "three"] {
        let data = folder.path().join(name).join("data");
        ensure!(std::fs::read_to_string(data.join("node.key"))? != node_key, "{name} signs with the original's key");
        let all = Mailboxes::existing(&data, Arc::new(LocalDisk))?;
        let found = all.lookup(&access.id.parse()?)?.context("the mailbox")?;
        ensure!(found.unlock(&postkeep_shared::crypt::Password::received(access.password.as_bytes())).is_ok());
        let told = std::fs::read_to_string(data.join("restored.json"))?;
        ensure!(told.contains("\"seq\":1"), "{told}");
    }
    let pins =
        ["one/gateway", "three"].map(|d| std::fs::read(folder.path().join(d).join("data/tls/self-signed.key")).ok());
    ensure!(pins[0].is_some() && pins[0] == pins[1], "the pinned key must survive a sealed backup");

    // The same node: not beside the original, and not without its ledgers.
    let same = ["--identity", &with, "--same-node", "--original-is-dead"];
    let again = |name: &str| restore(name, &[&[path("sealed").as_str()], &same[..]].concat());
    let beside = again("four")?;
    ensure!(beside.code == 5 && beside.err.contains("original is still there"), "{} {}", beside.code, beside.err);
    ensure!(
        restore("four", &[&path("sealed"), "--identity", &with, "--same-node"])?.code == 2,
        "nobody said that it is dead"
    );
    one.kill()?;
    let (old, saved) = (one.data(), folder.path().join("saved"));
    std::fs::rename(&old, &saved)?;
    let without = again("four")?;
    ensure!(without.code == 5 && without.err.contains("ledger"), "{} {}", without.code, without.err);
    let target = folder.path().join("four/data");
    std::fs::create_dir_all(&target)?;
    for part in ["ledger", "spool"] {
        std::fs::rename(saved.join(part), target.join(part))?;
    }
    again("four")?.expect(0)?;
    ensure!(std::fs::read_to_string(target.join("node.key"))? == node_key);
    let four = Gateway::at(&folder.path().join("four"));
    four.run(&["verify"], b"")?.expect(0)?;
    ensure!(number(&four.show(&access.id)?, "messages") == 1);
    println!(
        "backup: restored as a new node from an open and a sealed one, as the same node only with its ledgers and without the original"
    );
    Ok(())
}
