//! An export is the archive: taken in again by another one, owners, folders, octets and envelopes are the same; it can be
//! interrupted, it overwrites nothing, and its signature verifies with openssl.

#[path = "store/scene.rs"]
mod scene;
#[path = "store/support.rs"]
mod support;

use scene::*;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What must be the same: owner, folder, digest, and the envelope's sender and recipients.
fn essence(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let archive = scene.read();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for owner in archive.owners().expect("reads") {
        archive
            .list(&owner, None, &mut |listed| {
                let envelopes = archive.envelopes(&listed.id).expect("reads");
                let mut recipients: Vec<String> = envelopes
                    .iter()
                    .flat_map(|envelope| envelope["recipients"].as_array().cloned().unwrap_or_default())
                    .map(|recipient| recipient.to_string())
                    .collect();
                recipients.sort();
                recipients.dedup();
                let sender = envelopes.iter().find_map(|envelope| envelope["sender"].as_str().map(str::to_owned));
                let line = format!("{} {} {sender:?} {recipients:?}", listed.folder, listed.sha256);
                found.entry(owner.clone()).or_default().push(line);
                Ok(())
            })
            .expect("lists");
    }
    found.values_mut().for_each(|lines| lines.sort());
    found
}

fn archive() -> Scene {
    let scene = Scene::new(9);
    fill(&mut scene.open(), &mails(30), 0);
    scene
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("reads") {
            let path = entry.expect("reads").path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(path.clone(), fs::read(&path).expect("reads"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, &mut found);
    found.into_iter().map(|(path, octets)| (path.strip_prefix(dir).expect("below").to_owned(), octets)).collect()
}

#[test]
fn an_export_taken_in_again_is_the_same_archive() {
    let scene = archive();
    let wanted = essence(&scene);
    let messages: usize = wanted.values().map(Vec::len).sum();
    for (name, arguments) in [
        ("eml", &["--format", "eml"][..]),
        ("mbox", &["--format", "mbox"][..]),
        ("eml-headers", &["--format", "eml", "--mailstore-headers"][..]),
        ("mbox-headers", &["--format", "mbox", "--mailstore-headers"][..]),
    ] {
        let exported = scene.run(&[&["export", "--all", "--out", name, "--json"], arguments].concat(), "");
        assert_eq!(exported.status.code(), Some(0), "{}", String::from_utf8_lossy(&exported.stderr));
        let said: Value = serde_json::from_slice(&exported.stdout).expect("JSON");
        assert_eq!(said["messages"], messages);
        let out = scene.0.path().join(name);
        let sums = Command::new("sha256sum").args(["--quiet", "-c", "manifest.sha256"]).current_dir(&out).output();
        assert!(sums.expect("runs").status.success(), "{name}: the sums do not fit");
        assert!(!out.join("unfinished").exists());
        let other = Scene::new(1_000_000);
        let owners: String = OWNERS
            .iter()
            .map(|owner| format!("[[owner]]\nname = \"{owner}\"\naddresses = [\"{owner}@x\"]\n\n"))
            .collect();
        fs::write(other.0.path().join("owners.toml"), owners).expect("writes");
        let path = out.to_str().expect("text");
        let imported = other.run(&["import", path, "--owner", "ann", "--json"], "");
        let counts: Value = serde_json::from_slice(&imported.stdout).expect("JSON");
        assert_eq!((&counts["read"], &counts["failed"]), (&messages.into(), &0.into()), "{name}: {counts}");
        assert_eq!(counts["problems"].as_array().map(Vec::len), Some(0), "{name}: {counts}");
        assert_eq!(essence(&other), wanted, "{name}");
        // Said again: refused, nothing changed.
        let before = files(&out);
        assert_eq!(scene.code(&[&["export", "--all", "--out", name], arguments].concat()), Some(2));
        assert_eq!(files(&out), before);
        println!(
            "{name}: {messages} messages out and in again, the same owners, folders, octets, senders and recipients"
        );
    }
}

#[test]
fn an_interrupted_export_goes_on_and_overwrites_nothing() {
    let scene = archive();
    for format in ["eml", "mbox"] {
        let (whole, broken) = (format!("{format}-whole"), format!("{format}-broken"));
        let run = |out: &str| scene.run(&["export", "--all", "--format", format, "--out", out, "--json"], "");
        assert_eq!(run(&whole).status.code(), Some(0));
        let wanted = files(&scene.0.path().join(&whole));
        // As if it had been killed behind the first few files, in the middle of one.
        let out = scene.0.path().join(&broken);
        assert_eq!(run(&broken).status.code(), Some(0));
        let plan = format!(
            "postkeep export 1, not finished; the same command goes on with it\n{}\n",
            serde_json::json!({
                "owners": scene.read().owners().expect("reads"), "format": format, "mailstore_headers": false
            })
        );
        fs::write(out.join("unfinished"), plan).expect("writes");
        fs::remove_file(out.join("manifest.sha256")).expect("removes");
        let mut kept = 0;
        for path in wanted.keys().filter(|path| path.components().count() > 1) {
            kept += 1;
            if kept % 2 == 0 {
                fs::remove_file(out.join(path)).expect("removes");
                fs::write(format!("{}.part", out.join(path).display()), "half").expect("writes");
            }
        }
        let other = scene.run(&["export", "--owner", "ann", "--format", format, "--out", &broken], "");
        assert_eq!(other.status.code(), Some(2), "another export does not go on with it");
        let again = run(&broken);
        assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
        let said: Value = serde_json::from_slice(&again.stdout).expect("JSON");
        assert!(said["before"].as_u64().expect("a number") > 0, "{said}");
        assert_eq!(files(&out), wanted, "{format}");
        // What is there and something else is never replaced.
        fs::write(out.join("unfinished"), fs::read(out.join("manifest.sha256")).expect("reads")).expect("writes");
        assert_eq!(run(&broken).status.code(), Some(2));
    }
}

#[test]
fn openssl_verifies_the_signature() {
    let scene = archive();
    assert_eq!(scene.code(&["export", "--all", "--out", "signed", "--sign"]), Some(0));
    let out = scene.0.path().join("signed");
    let verify = || {
        let command = "openssl pkeyutl -verify -pubin -inkey manifest.sha256.pem -rawin -in manifest.sha256 -sigfile \
            manifest.sha256.sig";
        Command::new("sh").args(["-c", command]).current_dir(&out).output()
    };
    let output = verify().expect("runs");
    if output.status.code() == Some(127) {
        println!("NOT RUN: openssl is not there");
        assert!(std::env::var_os("CI").is_none(), "install openssl");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = fs::read_to_string(out.join("manifest.sha256")).expect("reads");
    fs::write(out.join("manifest.sha256"), manifest.replacen('1', "2", 1)).expect("writes");
    assert!(!verify().expect("runs").status.success(), "a changed manifest is noticed");
    println!("openssl verifies the manifest's signature, and refuses a changed one");
}
