//! Bad input of every kind: one clear sentence, the documented exit code, no panic, no secret.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;
use support::{Access, Archiver, Gateway, Output, Pop3, files_below, folder, numbered_report};

/// Checks how a command failed and shows what a person sees.
fn refused(what: &str, output: &Output, code: i32, naming: &[&str]) -> Result<()> {
    let said = output.err.trim();
    println!("{what}: exit {} · {}", output.code, said.lines().last().unwrap_or_default());
    ensure!(output.code == code, "{what}: exit {} instead of {code}: {said}", output.code);
    ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{what}: {said}");
    ensure!(!said.is_empty() && said.len() < 600, "{what}: not one clear sentence: {said}");
    for word in naming {
        ensure!(said.contains(word), "{what}: `{word}` is not named: {said}");
    }
    Ok(())
}

#[test]
fn gateway_configuration() -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::create(folder.path())?;
    let good = std::fs::read_to_string(&gateway.config)?;
    let with = |what: &str, text: String, naming: &[&str]| -> Result<()> {
        std::fs::write(&gateway.config, text)?;
        refused(what, &gateway.run(&["check-config"], b"")?, 2, naming)?;
        refused(what, &gateway.run(&["serve"], b"")?, 2, naming)
    };
    with("misspelt key", good.replace("hostname", "hostnam"), &["hostnam", "hostname", "postkeep-gateway.toml"])?;
    with("misspelt key in a table", good.replace("listen_tls", "listen_tsl"), &["listen_tsl", "listen_tls"])?;
    with("wrong type", good.replace("[smtp]\nlisten = [\"127.0.0.1:0\"]", "[smtp]\nlisten = 25"), &["smtp.listen"])?;
    with("not an address", good.replace("127.0.0.1:0", "here"), &["listen"])?;
    with("impossible size", good.replace("[smtp]", "[smtp]\nmax_message_size = \"much\""), &["smtp.max_message_size"])?;
    with("not TOML", format!("{good}\n= 5\n"), &["postkeep-gateway.toml"])?;
    std::fs::remove_file(&gateway.config)?;
    refused("no configuration", &gateway.run(&["serve"], b"")?, 2, &["postkeep-gateway.toml"])?;
    std::fs::write(&gateway.config, good)?;
    let again = gateway.run(&["init", "--hostname", "x.example"], b"")?;
    ensure!(matches!(again.code, 2 | 5), "init over an existing one: exit {} {}", again.code, again.err);
    refused("unknown option", &gateway.run(&["serve", "--fast"], b"")?, 2, &["--fast"])
}

#[test]
fn gateway_keys_ports_and_names() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    gateway.stop()?;

    let key = gateway.data().join("node.key");
    let good = std::fs::read(&key)?;
    std::fs::write(&key, b"postkeep-node-key-v1\nnot base64!\n")?;
    refused("unreadable key", &gateway.run(&["serve"], b"")?, 3, &["node.key"])?;
    std::fs::write(&key, &good)?;

    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.to_string();
    let text = std::fs::read_to_string(&gateway.config)?;
    std::fs::write(&gateway.config, text.replacen("127.0.0.1:0", &port, 1))?;
    refused("port in use", &gateway.run(&["serve"], b"")?, 3, &[&port])?;
    std::fs::write(&gateway.config, &text)?;

    gateway.start()?;
    refused("a second one on the same data", &gateway.run(&["serve"], b"")?, 3, &[])?;
    let unknown = format!("mbx-{}", "0".repeat(32));
    refused("unknown mailbox", &gateway.run(&["mailbox", "show", &unknown], b"")?, 2, &[&unknown])?;
    refused("not a mailbox name", &gateway.run(&["mailbox", "show", "../../etc/passwd"], b"")?, 2, &[])?;
    refused("unknown mailbox, ledger", &gateway.run(&["ledger", "show", &unknown], b"")?, 2, &[&unknown])?;
    let wrong = gateway.run(&["mailbox", "identity", &access.id], b"quite the wrong password\n")?;
    refused("wrong password", &wrong, 4, &[])?;
    ensure!(!wrong.err.contains("quite the wrong"), "the password is repeated: {}", wrong.err);
    let short = gateway.run(&["mailbox", "create", "--password-stdin"], b"short\n")?;
    refused("a password too short", &short, 2, &["12"])?;
    on_the_wire(&gateway, &access, &unknown)
}

/// What strangers see: the same answer for a wrong name and a wrong password, no credentials in clear.
fn on_the_wire(gateway: &Gateway, access: &Access, unknown: &str) -> Result<()> {
    let mut answers = Vec::new();
    for (user, password) in [(access.id.as_str(), "quite the wrong password"), (unknown, access.password.as_str())] {
        let mut pop3 = Pop3::connect_tls(gateway.address("pop3s")?, &gateway.pin()?)?;
        match pop3.login(user, password) {
            Ok(()) => bail!("logged in as {user}"),
            Err(error) => answers.push(error.to_string()),
        }
    }
    println!("wrong password, unknown name over POP3: {answers:?}");
    ensure!(answers.first() == answers.last() && answers.iter().all(|a| a.starts_with("-ERR")));
    let clear = Pop3::connect_clear(gateway.address("pop3")?)?.login(&access.id, &access.password);
    ensure!(clear.is_err(), "a password was taken in clear");

    let mut sender = gateway.smtp()?;
    sender.command("MAIL FROM:<>")?;
    let reply = sender.command(&format!("RCPT TO:<{unknown}@msgw.archive.example>"))?;
    ensure!(reply.code == 550, "unknown mailbox: {reply:?}");
    sender.quit()?;
    // Each on a connection of its own: after some of them nobody can tell where the next command begins.
    for line in ["BOGUS", "MAIL FROM", "RCPT TO:<>", "BDAT x", "DATA now", "\u{1}\u{2}"] {
        let reply = gateway.smtp()?.command(line)?;
        ensure!((500..=555).contains(&reply.code), "{line:?}: {reply:?}");
    }
    Ok(())
}

#[test]
fn damaged_spool() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let mut sender = gateway.smtp()?;
    for n in 0..3 {
        ensure!(sender.send("", &[&access.address], &numbered_report(n).0)?.code == 250);
    }
    let files = gateway.waiting(&access.id)?;
    let file = files.get(1).context("three files")?;
    let bytes = std::fs::read(file)?;
    let uidl = file.file_name().context("name")?.to_string_lossy().into_owned();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        bytes
    };
    let half = bytes.len() / 2;
    let damages = [
        ("truncated", bytes[..half].to_vec()),
        ("empty", Vec::new()),
        ("one bit", flipped(half)),
        ("longer", [&bytes[..], b"x"].concat()),
    ];
    for (what, damaged) in damages {
        std::fs::write(file, damaged)?;
        let mut collector = gateway.pop3(&access)?;
        let given = collector.retr(2);
        ensure!(given.is_err(), "{what} spool file: a message came out");
        drop(collector);
        let verdict = gateway.run(&["verify", "--json"], b"")?;
        let json = verdict.json()?;
        println!("{what} spool file: RETR fails, verify exit {} {json}", verdict.code);
        ensure!(verdict.code == 1 && json.to_string().contains(&uidl), "{json}");
        let open = gateway.run(&["open", &access.id, &uidl], format!("{}\n", access.password).as_bytes())?;
        ensure!(open.code != 0 && !open.err.contains("panicked"), "open: exit {} {}", open.code, open.err);
    }
    std::fs::write(file, &bytes)?;
    ensure!(gateway.run(&["verify"], b"")?.code == 0, "mended, and verify still complains");
    // The others were never touched by it.
    let mut collector = gateway.pop3(&access)?;
    ensure!(collector.retr(1).is_ok() && collector.retr(3).is_ok());
    Ok(())
}

#[test]
fn archiver_configuration() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    std::fs::write(archiver.folder.join("p"), "password\n")?;
    support::archiver::restrict(&archiver.folder.join("p"))?;
    let source = "\n[[source]]\nname = \"a\"\nkind = \"gateway\"\nprofile = \"journal\"\nhosts = [\"127.0.0.1:9\"]\n\
        mailbox = \"mbx-00000000000000000000000000000000\"\npassword_file = \"p\"\ntls = { verify = \"system\" }\n";
    let with = |what: &str, from: &str, to: &str, naming: &[&str]| -> Result<()> {
        archiver.configure(&source.replace(from, to))?;
        refused(what, &archiver.run(&["check-config"], b"")?, 2, naming)?;
        refused(what, &archiver.run(&["run", "--once"], b"")?, 2, naming)
    };
    with("misspelt key", "profile", "profil", &["profil", "profile"])?;
    with("wrong type", "[\"127.0.0.1:9\"]", "995", &["hosts"])?;
    with("unknown profile", "\"journal\"", "\"jurnal\"", &["profile"])?;
    with("no password file", "\"p\"", "\"nowhere\"", &["nowhere"])?;
    archiver.configure(source)?;
    let unreachable = archiver.run(&["run", "--once", "--json"], b"")?;
    println!("unreachable source: exit {} {}", unreachable.code, unreachable.text().trim());
    ensure!(unreachable.code == 1 && !unreachable.err.contains("panicked"), "{}", unreachable.err);
    refused("unknown owner", &archiver.run(&["list", "--owner", "nobody"], b"")?, 2, &["nobody"])?;
    refused("no such file", &archiver.run(&["inspect", "nowhere.eml"], b"")?, 3, &["nowhere.eml"])?;
    let unknown = archiver.run(&["show", &"0".repeat(32)], b"")?;
    ensure!(matches!(unknown.code, 2 | 3), "unknown message: exit {} {}", unknown.code, unknown.err);
    std::fs::write(archiver.folder.join("owners.toml"), "[[owner]]\nnam = \"ann\"\n")?;
    refused("owners file", &archiver.run(&["run", "--once"], b"")?, 2, &["owners.toml"])
}

#[test]
fn archiver_keys_and_damage() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let mut sender = gateway.smtp()?;
    for n in 0..5 {
        ensure!(sender.send("", &[&access.address], &numbered_report(n).0)?.code == 250);
    }
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;

    let password = archiver.folder.join("m365.password");
    std::fs::write(&password, "quite the wrong password\n")?;
    let wrong = archiver.run(&["run", "--once"], b"")?;
    println!("wrong mailbox password: exit {} · {}", wrong.code, wrong.err.trim());
    ensure!(matches!(wrong.code, 1 | 4) && !wrong.err.contains("quite the wrong"), "exit {} {}", wrong.code, wrong.err);
    std::fs::write(&password, format!("{}\n", access.password))?;
    archiver.round()?;

    let key = archiver.data().join("unlock.key");
    let good = std::fs::read(&key)?;
    std::fs::write(&key, "postkeep-unlock-key-v1\nnot base64!\n")?;
    let unreadable = archiver.run(&["list", "--owner", "bob"], b"")?;
    ensure!(matches!(unreadable.code, 3 | 4), "unreadable key: exit {} {}", unreadable.code, unreadable.err);
    refused("unreadable key", &unreadable, unreadable.code, &["unlock.key"])?;
    let other = data_encoding::BASE64.encode(&[7; 32]);
    std::fs::write(&key, format!("postkeep-unlock-key-v1\n{other}\n"))?;
    refused("another store's key", &archiver.run(&["list", "--owner", "bob"], b"")?, 4, &[])?;
    std::fs::write(&key, good)?;

    damaged_packs(&archiver)
}

fn damaged_packs(archiver: &Archiver) -> Result<()> {
    let files = files_below(&archiver.store().join("packs"))?;
    let file = files.first().context("no pack")?;
    let good = std::fs::read(file)?;
    let cut = |keep: usize| good.get(..keep).unwrap_or_default().to_vec();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x10;
        }
        bytes
    };
    let damages = [
        ("one bit in the middle", flipped(good.len() / 2)),
        ("one bit in the header", flipped(20)),
        ("one bit near the end", flipped(good.len() - 20)),
        ("truncated", cut(good.len() / 2)),
        ("empty", cut(0)),
    ];
    for (what, bytes) in damages {
        std::fs::write(file, bytes)?;
        verify_names_it(archiver, what, file)?;
    }
    std::fs::remove_file(file)?;
    verify_names_it(archiver, "missing", file)?;
    std::fs::write(file, &good)?;
    let (code, verdict) = archiver.verify()?;
    ensure!(code == 0, "mended, and verify still complains: {verdict}");
    Ok(())
}

fn verify_names_it(archiver: &Archiver, what: &str, file: &Path) -> Result<()> {
    let output = archiver.run(&["store", "verify", "--json"], b"")?;
    ensure!(!output.err.contains("panicked"), "{what} pack: {}", output.err);
    let verdict = output.json()?;
    let problems = verdict.get("problems").and_then(|p| p.as_array()).map_or(0, Vec::len);
    let name = file.file_stem().context("name")?.to_string_lossy();
    println!("{what} pack: verify exit {}, {problems} problems", output.code);
    ensure!(output.code == 1 && problems > 0, "{what} pack: exit {} {verdict}", output.code);
    ensure!(verdict.to_string().contains(&*name), "{what} pack: not named in {verdict}");
    let damaged = archiver
        .list("bob")?
        .iter()
        .filter_map(|e| e.get("id").and_then(|i| i.as_str()).map(str::to_owned))
        .map(|id| archiver.run(&["show", &id], b""))
        .collect::<Result<Vec<_>>>()?;
    ensure!(damaged.iter().all(|o| !o.err.contains("panicked")), "{what} pack: show panics");
    Ok(())
}
