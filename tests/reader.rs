//! The format pages are enough: a reader that was written from them alone (`examples/read_store.rs`) gives back every
//! octet of stores of all versions, through epochs, deletions and moves, and lists what the archiver lists.

mod support;

#[allow(dead_code, reason = "its main")]
#[path = "../examples/read_store.rs"]
mod read_store;
#[path = "../archiver/tests/store/support.rs"]
mod store;

use anyhow::{Context as _, Result, ensure};
use postkeep_archiver::store::{Compacting, Deletion, PassphraseChange, Rekey, Unlock, rekey};
use postkeep_shared::{crypt::Password, disk::LocalDisk, mail::Digest};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use store::{PASSPHRASE, Place, add, add_octets, list, noise, plan, report, show, verdict};
use support::{Archiver, folder, message};

/// What the reader made of a store.
struct Taken {
    /// Owner, folder and id.
    places: BTreeSet<(String, String, String)>,
    messages: BTreeMap<String, Vec<u8>>,
    /// By digest.
    reports: BTreeMap<String, Vec<u8>>,
    problems: Vec<String>,
}

fn folder_of(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_stem()) {
            found.insert(name.to_string_lossy().into_owned(), fs::read(&path)?);
        }
    }
    Ok(found)
}

fn take(dir: &Path, passphrase: &[u8]) -> Result<Taken> {
    let (out, mut list) = (folder()?, Vec::new());
    let problems = read_store::read(dir, out.path(), std::str::from_utf8(passphrase)?, &mut list)?;
    let mut places = BTreeSet::new();
    for line in String::from_utf8(list)?.lines() {
        let mut fields = line.split('\t');
        let (id, here) = (fields.next().context("an id")?, fields.next().context("places")?);
        places.extend(
            here.split(", ")
                .filter_map(|place| place.split_once(" / "))
                .map(|(owner, folder)| (owner.to_owned(), folder.to_owned(), id.to_owned())),
        );
    }
    Ok(Taken { places, messages: folder_of(out.path())?, reports: folder_of(&out.path().join("reports"))?, problems })
}

#[test]
fn every_octet_comes_back_through_epochs_and_deletions() -> Result<()> {
    let place = Place::new();
    let right = Password::received(PASSPHRASE);
    let mut reports = BTreeMap::new();
    for epoch in 0..3 {
        let mut store = place.open();
        for n in 0..8 {
            let number = epoch * 8 + n;
            // Every other attachment is that of another message; every fourth report comes again over another host.
            let base = report(&format!("<{number}@x>"), &format!("body {number}\r\n"), 3 + n / 2);
            let owners: &[&str] = if n % 2 == 0 { &["ann", "bob"] } else { &["cat"] };
            add(&mut store, &format!("u{number}"), &base, &plan(owners))?;
            reports.insert(format!("u{number}"), base.octets.clone());
            if n % 4 == 1 {
                let fork = base.replaced("Received: first", "Received: second");
                add(&mut store, &format!("f{number}"), &fork, &plan(&["ann"]))?;
                reports.insert(format!("f{number}"), fork.octets);
            }
            if n % 3 == 2 {
                ensure!(store.commit()?.failures.is_empty());
            }
        }
        // A part of more than one chunk, in base64; a body that is no base64 although it says so; nothing at all.
        if epoch != 1 {
            let large = report(&format!("<large {epoch}@x>"), "large\r\n", 5 * 1024 + epoch);
            add(&mut store, &format!("large{epoch}"), &large, &plan(&["ann"]))?;
            reports.insert(format!("large{epoch}"), large.octets);
        }
        let odd_len = if epoch == 0 { 5 * 1024 * 1024 } else { 5_000 };
        let odd = [b"Content-Transfer-Encoding: base64\n\n".to_vec(), noise(odd_len + epoch)].concat();
        for (name, octets) in [(format!("odd{epoch}"), odd), (format!("empty{epoch}"), vec![b'\n'; epoch])] {
            add_octets(&mut store, &name, &octets, &verdict(None), &plan(&[]))?;
            reports.insert(name, octets);
        }
        ensure!(store.commit()?.failures.is_empty());
        // Whoever had it first in the epoch has it no more; then nobody has.
        for owner in ["ann", "bob"] {
            let subject = format!("subject <{}@x>", epoch * 8);
            let id = list(&store, owner).into_iter().find(|one| one.subject.as_deref() == Some(&subject));
            let id = id.context("there")?.id;
            store.delete(&Deletion { owner, id: &id, folder: None, reason: "test", who: None, deleted_ms: 1 })?;
        }
        reports.remove(&format!("u{}", epoch * 8));
        if epoch == 1 {
            let told = store.compact(Compacting { least: 0.0, old_epochs: true }, None, &mut |_, _| ())?;
            ensure!(told.packs > 0, "{told:?}");
        }
        drop(store);
        let wanted = Rekey { passphrase: PassphraseChange::Present(&right), epoch: true, ..Rekey::default() };
        rekey(&[place.store()], &place.key_file(), &Unlock::Key(&place.key()), &wanted, &LocalDisk)?;
    }
    // The catalog is not needed.
    let store = place.open_read();
    let mut places = BTreeSet::new();
    let mut messages = BTreeMap::new();
    for owner in store.owners()? {
        for one in list(&store, &owner) {
            messages.insert(one.id.clone(), show(&store, &one.id));
            places.insert((owner.clone(), one.folder, one.id));
        }
    }
    drop(store);
    fs::remove_dir_all(place.store().join("catalog"))?;
    let taken = take(&place.store(), PASSPHRASE)?;
    ensure!(taken.problems.is_empty(), "{:?}", taken.problems);
    let wanted: BTreeSet<&Vec<u8>> = reports.values().collect();
    ensure!(taken.reports.values().collect::<BTreeSet<_>>() == wanted, "{} reports", taken.reports.len());
    for (id, octets) in &messages {
        ensure!(taken.messages.get(id) == Some(octets), "message {id}");
    }
    // The reader shows every variant of a message, a listing the first.
    ensure!(taken.places.is_superset(&places), "{:?}", places.difference(&taken.places).collect::<Vec<_>>());
    println!("{} messages, {} reports, {} places", taken.messages.len(), taken.reports.len(), taken.places.len());
    let wrong = take(&place.store(), b"correct horse batterz").err().context("a wrong passphrase opens it")?;
    ensure!(wrong.to_string() == "the passphrase is not the recovery passphrase of this store", "{wrong}");
    Ok(())
}

#[test]
fn damage_is_told_and_passed_over() -> Result<()> {
    let place = Place::new();
    let mut store = place.open();
    let reports: Vec<_> = (0..6).map(|n| report(&format!("<{n}@x>"), &format!("body {n}\r\n"), 20 + n)).collect();
    for (n, report) in reports.iter().enumerate() {
        add(&mut store, &format!("u{n}"), report, &plan(&["ann"]))?;
        ensure!(store.commit()?.failures.is_empty());
    }
    drop(store);
    for path in place.files() {
        let octets = fs::read(&path)?;
        let mut changed = octets.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&path, changed)?;
        let taken = take(&place.store(), PASSPHRASE)?;
        ensure!(!taken.problems.is_empty(), "{}", path.display());
        ensure!(!taken.reports.is_empty() && taken.reports.len() < 6, "{}: {}", path.display(), taken.reports.len());
        ensure!(taken.reports.values().all(|octets| reports.iter().any(|report| report.octets == *octets)));
        fs::write(&path, octets)?;
    }
    ensure!(take(&place.store(), PASSPHRASE)?.reports.len() == 6);
    fs::remove_file(place.store().join("records/00000001.rec"))?;
    ensure!(take(&place.store(), PASSPHRASE).is_err(), "a store without records is no empty store");
    Ok(())
}

#[test]
fn the_first_formats_are_read_too() -> Result<()> {
    let fixture = support::root().join("archiver/tests/fixtures/first/stores/main");
    let taken = take(&fixture, PASSPHRASE)?;
    ensure!(taken.problems.is_empty(), "{:?}", taken.problems);
    let reports: Vec<_> = (0..10).map(|n| report(&format!("<{n}@x>"), &format!("body {n}\r\n"), 2 + n % 3)).collect();
    for report in &reports {
        ensure!(taken.reports.get(&Digest::of(&report.octets).to_string()) == Some(&report.octets));
        ensure!(taken.messages.values().any(|octets| octets == report.embedded()));
    }
    let count = |owner: &str| taken.places.iter().filter(|place| place.0 == owner).count();
    ensure!((taken.reports.len(), taken.messages.len()) == (10, 10));
    ensure!((count("ann"), count("bob"), count("zoe")) == (10, 5, 1), "{:?}", taken.places);
    Ok(())
}

#[test]
fn stores_of_a_family_list_what_the_archiver_lists() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver { folder: folder.path().to_owned(), config: folder.path().join("postkeep-archiver.toml") };
    let init = archiver.run(&["init", "--data", "data"], b"")?.expect(0)?.text();
    let line = init.lines().find_map(|line| line.strip_prefix("recovery passphrase: "));
    let passphrase = line.context("init shows the passphrase")?.to_owned();
    archiver.configure("")?;
    let owners = |names: &[&str]| {
        let one = |name: &&str| format!("[[owner]]\nname = \"{name}\"\naddresses = [\"{name}@aurora.example\"]\n");
        fs::write(archiver.folder.join("owners.toml"), names.iter().map(one).collect::<String>())
    };
    owners(&["ann", "bob"])?;
    let mut sent = BTreeSet::new();
    for (store, numbers) in [("main", 0..20), ("second", 20..40)] {
        let eml = folder.path().join(format!("eml-{store}"));
        fs::create_dir(&eml)?;
        for n in numbers {
            let name = ["ann", "bob", "zoe"][n % 3];
            let octets =
                message(&format!("r-{n}"), &format!("{name}@aurora.example"), "x@y.example", &format!("R {n}"), "text");
            fs::write(eml.join(format!("{n}.eml")), &octets)?;
            sent.insert(octets);
        }
        let eml = eml.display().to_string();
        for name in ["ann", "bob"] {
            archiver.run(&["import", &eml, "--owner", name], b"")?.expect(0)?;
        }
        if store == "main" {
            archiver.run(&["store", "create", "second"], b"")?.expect(0)?;
            archiver.run(&["store", "set-state", "second", "current"], b"")?.expect(0)?;
        }
    }
    archiver.run(&["store", "transfer", "--owner", "ann", "main", "second"], b"")?.expect(0)?;
    let (mut listed, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for name in ["ann", "bob"] {
        let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        listed.extend(archiver.list(name)?.iter().map(|one| (name.to_owned(), text(one, "folder"), text(one, "id"))));
    }
    let mut messages = BTreeSet::new();
    for store in ["main", "second"] {
        let found = take(&archiver.data().join("stores").join(store), passphrase.as_bytes())?;
        ensure!(found.problems.is_empty(), "{store}: {:?}", found.problems);
        println!("{store}: {} messages, {} reports", found.messages.len(), found.reports.len());
        taken.extend(found.places);
        messages.extend(found.messages.into_values());
    }
    ensure!(listed.len() == 80 && taken == listed, "{listed:?}\n{taken:?}");
    ensure!(messages == sent, "{} of {} messages", messages.len(), sent.len());
    Ok(())
}
