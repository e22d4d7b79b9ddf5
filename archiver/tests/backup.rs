//! A backup is worth something: made while mail comes in, by us or by any copying tool at any moment, it opens, and
//! everything committed before it began is whole. A drill says so, and finds what is not.

#[path = "store/scene.rs"]
mod scene;
#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    archive::Archive,
    backup::{Also, MANIFEST, backup},
    store::{PassphraseChange, Rekey, Store, Unlock, UnlockKey, rekey},
};
use postkeep_shared::{
    crypt::{Password, random},
    disk::{LocalDisk, faulty::FaultyDisk},
};
use scene::*;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{PASSPHRASE, disk};

/// Copies at a leisurely pace in the order of a folder listing, as rsync does: much happens meanwhile.
fn slow_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    let mut names: Vec<_> = fs::read_dir(from).expect("reads").map(|entry| entry.expect("reads").path()).collect();
    names.sort();
    for path in names {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            slow_copy(&path, &target);
        } else if fs::copy(&path, &target).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_copy_of_any_moment_has_everything_committed_before_it_began() {
    let scene = Scene::new(25);
    let all = mails(90);
    fill(&mut scene.open(), &all[..5], 0);
    let (done, committed) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let mut copies = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut archive = scene.open();
            for (at, batch) in all[5..].chunks(3).enumerate() {
                batch.iter().enumerate().for_each(|(n, mail)| add(&mut archive, mail, (5 + at * 3 + n) as u64));
                let commit = archive.commit().expect("commits");
                committed.lock().expect("sound").extend(commit.receipts.iter().map(|r| r.uidl().to_owned()));
            }
            done.store(true, Ordering::Release);
        });
        let mut number = 0;
        while !done.load(Ordering::Acquire) && number < 12 {
            number += 1;
            let name = format!("copy{number}");
            let to = scene.0.path().join(&name);
            let before: BTreeSet<String> = committed.lock().expect("sound").clone();
            if number % 2 == 0 {
                let backed = scene.run(&["backup", "--to", &name, "--json"], "");
                assert_eq!(backed.status.code(), Some(0), "{}", String::from_utf8_lossy(&backed.stderr));
            } else {
                slow_copy(&scene.config().stores_dir(), &to.join("stores"));
            }
            copies.push((name, before, number % 2 == 0));
        }
    });
    let (mut whole, mut later, mut torn) = (0, 0, 0);
    for (name, before, ours) in &copies {
        let stores = scene.0.path().join(name).join("stores");
        for entry in fs::read_dir(&stores).expect("reads") {
            // Worth nothing when it was copied while it changed.
            let _ = fs::remove_dir_all(entry.expect("reads").path().join("catalog"));
        }
        let key = UnlockKey::load(&scene.config().unlock_key_file(), &LocalDisk).expect("loads");
        let copy = Archive::open_copy(&stores, &Unlock::Key(&key), &disk()).expect("opens");
        for uidl in before {
            copy.read_report("src", Some("mbx"), uidl, &mut std::io::sink())
                .unwrap_or_else(|error| panic!("{name}: {uidl} was committed before the copy began: {error}"));
            whole += 1;
        }
        for one in copy.collected("src") {
            let uidl = one.expect("reads").uidl;
            if before.contains(&uidl) {
                continue;
            }
            match copy.read_report("src", Some("mbx"), &uidl, &mut std::io::sink()) {
                Ok(()) => later += 1,
                Err(error) => {
                    assert!(!ours, "{name}: our own copy names only what it has: {error}");
                    torn += 1;
                }
            }
        }
    }
    assert!(copies.len() >= 2 && whole > 0, "{} copies", copies.len());
    println!(
        "{} copies while mail came in ({} by `backup`): {whole} reports committed before their copy began, all whole; of those \
         committed meanwhile {later} whole, {torn} named and without their packs (in copies by other tools alone)",
        copies.len(),
        copies.iter().filter(|(_, _, ours)| *ours).count()
    );
}

/// Every so many moments, from one drawn by lot; `POSTKEEP_POINTS=all` for each.
const STEP: u32 = 4;

/// Backs up again and again, and `event` comes before the first operation of the disk, before the second and so on. Each
/// copy opens, has what was committed before it began, and whatever it names.
fn interrupted_everywhere(what: &str, begun: usize, event: fn(&Scene)) {
    let step = if std::env::var("POSTKEEP_POINTS").is_ok_and(|points| points == "all") { 1 } else { STEP };
    let first = u32::from(random::<1>()[0]) % step + 1;
    let mut moments = 0;
    let (before, all) = (Scene::new(1_000), mails(begun));
    if begun > 0 {
        fill(&mut before.open(), &all, 0);
    }
    for n in (first..).step_by(step as usize) {
        let scene = Arc::new(before.copy());
        let (faulty, within) = (FaultyDisk::new(disk()), Arc::clone(&scene));
        faulty.interrupt(n, move || event(&within));
        let to = scene.0.path().join("copy");
        let backed = backup(&scene.config(), &to, Also::default(), &faulty, 1_000, &mut |_, _| {});
        let is_over = !faulty.was_interrupted();
        let backed = backed.unwrap_or_else(|failure| panic!("moment {n}: {failure}"));
        let sums = std::process::Command::new("sha256sum").args(["--quiet", "-c", MANIFEST]).current_dir(&to).output();
        assert!(sums.expect("runs").status.success(), "moment {n}");
        let lines = fs::read_to_string(to.join(MANIFEST)).expect("reads").lines().count();
        assert_eq!(backed.files, lines as u64, "moment {n}");
        let key = UnlockKey::load(&scene.config().unlock_key_file(), &LocalDisk).expect("loads");
        let copy = Archive::open_copy(&to.join("stores"), &Unlock::Key(&key), &disk())
            .unwrap_or_else(|error| panic!("moment {n}: {error}"));
        let named: BTreeSet<String> = copy.collected("src").map(|one| one.expect("reads").uidl).collect();
        for uidl in all.iter().map(|mail| &mail.uidl).chain(&named) {
            copy.read_report("src", Some("mbx"), uidl, &mut std::io::sink())
                .unwrap_or_else(|error| panic!("moment {n}: {uidl}: {error}"));
        }
        // As it is brought back. Copies of records that came meanwhile may be in the packs: the first writer takes them back.
        drop(copy);
        for name in &backed.stores {
            let store = Store::open(&to.join("stores").join(name), &Unlock::Key(&key), disk())
                .unwrap_or_else(|error| panic!("moment {n}, {name}: {error}"));
            let verified = store.verify().expect("goes on");
            assert!(verified.ok, "moment {n}, {name}: {:?}", verified.problems);
        }
        // The one that is current is among them.
        if let Ok(pointer) = fs::read_to_string(to.join("stores/current")) {
            let id = pointer.lines().nth(1).expect("an id");
            let is_that = |name: &String| {
                fs::read_to_string(to.join("stores").join(name).join("store.toml")).is_ok_and(|text| text.contains(id))
            };
            assert!(backed.stores.iter().any(is_that), "moment {n}: {id} of {:?}", backed.stores);
        }
        if is_over {
            break;
        }
        moments += 1;
    }
    assert!(moments > 0);
    println!("{what}: in {moments} moments of a backup, every {step}. one from the {first}.; all copies whole");
}

/// `mails(..)` from this one on come while the copy is made.
const LATER: usize = 7;

fn later(scene: &Scene) {
    fill(&mut scene.open(), &mails(LATER + 5)[LATER..], LATER);
}

#[test]
fn a_copy_made_in_the_first_commit_is_whole() {
    interrupted_everywhere("first commit", 0, later);
}

#[test]
fn a_copy_made_while_mail_comes_is_whole() {
    interrupted_everywhere("commit", LATER, later);
}

#[test]
fn a_copy_made_while_the_next_store_begins_is_whole() {
    interrupted_everywhere("next store", LATER, |scene| {
        assert_eq!(scene.code(&["store", "create", "next"]), Some(0));
        assert_eq!(scene.code(&["store", "set-state", "next", "current"]), Some(0));
        later(scene);
    });
}

#[test]
fn a_copy_made_while_reports_move_is_whole() {
    interrupted_everywhere("merge into a new store", LATER, |scene| {
        assert_eq!(scene.code(&["store", "create", "next"]), Some(0));
        assert_eq!(scene.code(&["store", "merge", "main", "next"]), Some(0));
    });
}

/// Keys of a new epoch.
fn rotate(scene: &Scene) {
    let (config, passphrase) = (scene.config(), Password::received(PASSPHRASE));
    let key = UnlockKey::load(&config.unlock_key_file(), &LocalDisk).expect("loads");
    let wanted = Rekey { passphrase: PassphraseChange::Present(&passphrase), epoch: true, ..Rekey::default() };
    let store = config.stores_dir().join("main");
    rekey(&[store], &config.unlock_key_file(), &Unlock::Key(&key), &wanted, &LocalDisk).expect("rotates");
}

#[test]
fn a_copy_made_while_keys_change_is_whole() {
    // Packs and records that are open go on with the keys they have: none are, and the first ones get the new keys.
    interrupted_everywhere("new epoch", 0, |scene| {
        rotate(scene);
        later(scene);
    });
}

#[test]
fn a_copy_made_while_packs_are_rewritten_is_whole() {
    interrupted_everywhere("compaction", LATER, |scene| {
        rotate(scene);
        assert_eq!(scene.code(&["store", "compact", "--least", "0", "--old-epochs"]), Some(0));
    });
}

#[test]
fn a_backup_copies_what_is_new_and_a_drill_finds_what_is_broken() {
    let scene = Scene::new(20);
    let all = mails(60);
    fill(&mut scene.open(), &all[..30], 0);
    let back = |arguments: &[&str]| -> Value {
        let output = scene.run(&[&["backup", "--to", "copy", "--json"], arguments].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let first = back(&[]);
    let again = back(&[]);
    assert!(first["copied"].as_u64() > again["copied"].as_u64(), "{first} {again}");
    fill(&mut scene.open(), &all[30..], 30);
    let more = back(&[]);
    assert!(more["copied"].as_u64() > again["copied"].as_u64(), "{more}");
    let copy = scene.0.path().join("copy");
    let sums = || {
        let command = std::process::Command::new("sha256sum")
            .args(["--quiet", "-c", "manifest.sha256"])
            .current_dir(&copy)
            .output();
        command.expect("runs").status.success()
    };
    assert!(sums());
    for secret in ["unlock.key", "archiver.key"] {
        let octets = fs::read(scene.0.path().join("data").join(secret)).unwrap_or_default();
        let text = String::from_utf8_lossy(&octets).lines().nth(1).unwrap_or("no such key").to_owned();
        let is_there = std::process::Command::new("grep").args(["-rqF", &text]).arg(&copy).status().expect("runs");
        assert_eq!(is_there.code(), Some(1), "{secret} is in the backup");
    }
    let drill = |arguments: &[&str], input: &str| {
        let output = scene.run(&[&["restore-drill", "--from", "copy", "--json"], arguments].concat(), input);
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), said)
    };
    let (code, some) = drill(&["--sample", "10"], "");
    assert_eq!((code, &some["result"]["clean"], &some["result"]["population"]), (Some(0), &10.into(), &60.into()));
    assert!(some["note"].as_str().is_some_and(|note| note.starts_with("postkeep restore-drill 1\n")));
    let bound = some["result"]["damaged_below_percent"]["at_95"].as_f64().expect("a number");
    assert!((bound - 25.887).abs() < 0.01, "{bound}");
    let passphrase = format!("{}\n", String::from_utf8_lossy(PASSPHRASE));
    let (code, every) = drill(&["--sample", "100", "--passphrase-stdin"], &passphrase);
    assert_eq!((code, &every["result"]["clean"]), (Some(0), &60.into()), "with the passphrase alone");
    // One octet of one pack.
    let is_wanted = |path: &String| path.ends_with(".pack") && !path.contains("/main/");
    let pack = files(&copy).into_iter().find(is_wanted).expect("a pack");
    let mut octets = fs::read(&pack).expect("reads");
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    fs::write(&pack, octets).expect("writes");
    assert!(!sums());
    let (code, broken) = drill(&["--sample", "100"], "");
    assert_eq!(code, Some(1), "{broken}");
    let differences = broken["result"]["differences"].as_array().map_or(0, Vec::len);
    assert!(differences > 0);
    println!(
        "backup: {} files copied first, {} again, {} after 30 more reports; drill: 10 of 60 clean rule out more than {bound:.2} % \
         at 95 %, all 60 clean, one octet changed: {differences} reports differ",
        first["copied"], again["copied"], more["copied"]
    );
    // The decayed pack is copied anew; a detached store stays in the copy until it is pruned.
    assert_eq!(scene.code(&["store", "detach", "main"]), Some(0));
    let kept = back(&["--check"]);
    assert_eq!(kept["mended"], 1, "{kept}");
    assert!(kept["obsolete"].as_u64() > Some(0) && kept["removed"] == 0, "{kept}");
    let pruned = back(&["--prune"]);
    assert_eq!(pruned["removed"], pruned["obsolete"]);
    assert!(sums());
    assert_eq!(scene.code(&["backup", "--to", "data/inside"]), Some(2));
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("reads") {
        let path = entry.expect("reads").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}
