//! Several stores are one archive: what is listed does not tell how many there are, the next store begins by itself and
//! whatever breaks in between, and stores come and go whole.

#[path = "store/scene.rs"]
mod scene;
#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    archive::{Archive, Folder, Which},
    octets::Staging,
    refile::{Reach, refile},
};
use postkeep_shared::disk::{
    Disk, LocalDisk,
    faulty::{FaultyDisk, Operation},
};
use scene::*;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use support::{PASSPHRASE, disk, walk};

#[test]
fn several_stores_are_one_archive() {
    let mails = mails(60);
    let (one, many) = (Scene::new(1_000_000), Scene::new(7));
    for scene in [&one, &many] {
        fill(&mut scene.open(), &mails[..30], 0);
        // Started again half-way: nothing is collected twice.
        let mut archive = scene.open();
        for mail in &mails[..30] {
            assert!(archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_some());
            assert!(archive.confirm("src", Some("mbx"), &mail.uidl).expect("reads").is_some());
        }
        fill(&mut archive, &mails[30..], 30);
    }
    let (single, several) = (one.read(), many.read());
    let stores = several.members().len();
    assert_eq!(single.members().len(), 1);
    assert!(stores >= 4, "{stores}");
    assert_same(&seen(&single), &seen(&several));
    drop((single, several));
    // Zoe comes: what is filed to her lies in the stores of the reports.
    let names = ["ann", "bob", "cat", "zoe", "yan"];
    for scene in [&one, &many] {
        let done = refile(&mut scene.open(), &owners(&names), &|_| rules(), Reach::Waiting, &|| false).expect("files");
        assert!(done.instances > 0 && done.write_protected == 0, "{done:?}");
        let again = refile(&mut scene.open(), &owners(&names), &|_| rules(), Reach::All, &|| false).expect("files");
        assert_eq!((again.changed, again.instances), (0, 0));
    }
    let (single, several) = (one.read(), many.read());
    let normal = |mut all: Value| {
        // When it was filed is another moment in each.
        for list in all["envelopes"].as_object_mut().expect("a map").values_mut() {
            for envelope in list.as_array_mut().expect("a list") {
                envelope["instances"]
                    .as_array_mut()
                    .expect("a list")
                    .iter_mut()
                    .for_each(|i| i["filed_at"] = Value::Null);
            }
        }
        all
    };
    assert_same(&normal(seen(&single)), &normal(seen(&several)));
    let stats = several.stats().expect("reads");
    drop((single, several));
    // The catalogs gone, all of it comes from packs and records.
    for scene in [&one, &many] {
        for entry in fs::read_dir(scene.config().stores_dir()).expect("is there") {
            let catalog = entry.expect("reads").path().join("catalog");
            if catalog.is_dir() {
                fs::remove_dir_all(catalog).expect("removes");
            }
        }
    }
    let (single, several) = (one.open(), many.open());
    assert_same(&normal(seen(&single)), &normal(seen(&several)));
    println!(
        "60 reports in 1 store and in {stores}: lists of {} archives, envelopes, unowned, held, collected and numbers are \
         equal, before and after refiling and after rebuilding ({} messages stored in {stores} stores, {} appearances)",
        names.len(),
        stats.messages,
        stats.instances
    );
}

#[test]
fn whatever_fails_while_the_next_store_begins_there_is_one_current_store() {
    let mails = mails(12);
    let base = Scene::new(6);
    {
        let mut archive = Archive::open(&base.config(), &disk()).expect("opens");
        mails[..4].iter().enumerate().for_each(|(n, mail)| add(&mut archive, mail, n as u64));
        assert_eq!(archive.commit().expect("commits").failures.len(), 0);
    }
    let trial = || {
        let scene = Scene::new(6);
        fs::remove_dir_all(scene.0.path().join("data")).expect("removes");
        copy(&base.0.path().join("data"), &scene.0.path().join("data"));
        (scene, FaultyDisk::new(Arc::new(LocalDisk)))
    };
    let go = |scene: &Scene, disk: &FaultyDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut archive = Archive::open(&scene.config(), &disk).ok()?;
        for (n, mail) in mails[4..9].iter().enumerate() {
            try_add(&mut archive, mail, 4 + n as u64)?;
        }
        archive.commit().ok()
    };
    let (scene, whole) = trial();
    assert!(go(&scene, &whole).is_some());
    let done = whole.take_done();
    let (mut points, step) = (0, step());
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let count = done.iter().filter(|one| one.operation == operation).count();
        for at in (0..count).step_by(step) {
            let (scene, disk) = trial();
            disk.fail_with_errno(operation, at as u32 + 1, 5);
            let receipts = go(&scene, &disk).map(|commit| commit.receipts.len()).unwrap_or_default();
            drop(disk);
            points += 1;
            let mut archive = scene.open();
            let stored = mails[4..9]
                .iter()
                .filter(|mail| archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_some())
                .count();
            assert!(stored >= receipts, "{operation:?} {at}: {stored} of {receipts}");
            let current = scene.states().values().filter(|state| *state == "current").count();
            assert_eq!(current, 1, "{operation:?} {at}: {:?}", scene.states());
            for (n, mail) in mails.iter().enumerate() {
                if archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_none() {
                    add(&mut archive, mail, n as u64);
                }
            }
            assert_eq!(archive.commit().expect("commits").failures.len(), 0);
            drop(archive);
            let archive = scene.read();
            assert_eq!(archive.collected("src").count(), mails.len());
            assert!((2..=3).contains(&archive.members().len()), "{operation:?} {at}: {:?}", scene.states());
        }
    }
    println!(
        "the next store begins: {points} operations of the disk fail, 1 current store each time, {} reports each",
        12
    );
}

#[test]
fn stores_come_and_go_whole() {
    let mails = mails(20);
    let scene = Scene::new(1_000_000);
    fill(&mut scene.open(), &mails[..10], 0);
    assert_eq!(scene.code(&["store", "create", "main"]), Some(5), "there is one");
    assert_eq!(scene.code(&["store", "create", "../x"]), Some(5), "no path");
    assert_eq!(scene.code(&["store", "create", "second"]), Some(0));
    assert_eq!(scene.code(&["store", "set-state", "second", "current"]), Some(0));
    fill(&mut scene.open(), &mails[10..], 10);
    let whole = seen(&scene.read());
    let states = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(scene.states(), states(&[("main", "normal"), ("second", "current")]));
    // A name is a folder's; moving it is moving the store.
    assert_eq!(scene.code(&["store", "rename", "main", "old"]), Some(0));
    assert_eq!(scene.code(&["store", "rename", "old", "second"]), Some(5));
    assert_eq!(scene.code(&["store", "rename", "nobody", "x"]), Some(2));
    fs::rename(scene.config().stores_dir().join("old"), scene.config().stores_dir().join("older")).expect("moves");
    assert_same(&seen(&scene.read()), &whole);
    assert_eq!(scene.states(), states(&[("older", "normal"), ("second", "current")]));
    // Write-protected: read, and not written to.
    assert_eq!(scene.code(&["store", "set-state", "second", "disabled"]), Some(5), "somebody must take the mail");
    assert_eq!(scene.code(&["store", "set-state", "older", "write-protected"]), Some(0));
    assert_same(&seen(&scene.read()), &whole);
    let done =
        refile(&mut scene.open(), &owners(&["ann", "bob", "cat", "zoe", "yan"]), &|_| rules(), Reach::All, &|| false);
    let done = done.expect("files");
    assert!(done.write_protected > 0 && done.instances > 0, "{done:?}");
    // Disabled: not seen, and said so.
    assert_eq!(scene.code(&["store", "set-state", "older", "disabled"]), Some(0));
    let listed = scene.run(&["list", "--owner", "ann", "--json"], "");
    assert!(String::from_utf8_lossy(&listed.stderr).contains("older is disabled"), "{listed:?}");
    assert!(scene.read().collected("src").count() < mails.len());
    assert_eq!(scene.code(&["store", "detach", "second"]), Some(5), "the current one stays");
    assert_eq!(scene.code(&["store", "detach", "older"]), Some(0));
    assert_eq!(scene.states(), states(&[("second", "current")]));
    // Into another archive: only with its passphrase, and only once.
    let other = Scene::new(1_000_000);
    let detached = scene.0.path().join("data/detached/older");
    let dir = detached.to_str().expect("text");
    assert_eq!(other.code(&["store", "attach", dir]), Some(4), "the unlock key is another one");
    assert_eq!(other.run(&["store", "attach", dir, "--passphrase-stdin"], "wrong one\n").status.code(), Some(4));
    let passphrase = format!("{}\n", String::from_utf8_lossy(PASSPHRASE));
    let attached = other.run(&["store", "attach", dir, "--passphrase-stdin"], &passphrase);
    assert_eq!(attached.status.code(), Some(0), "{}", String::from_utf8_lossy(&attached.stderr));
    assert_eq!(other.states(), states(&[("main", "current"), ("older", "normal")]));
    assert_eq!(other.read().collected("src").count(), 10);
    // The same mail comes here too: shown once, although this store names everything otherwise.
    fill(&mut other.open(), &mails[10..], 10);
    let before: Vec<_> = other.read().owners().expect("reads");
    let count = |archive: &Archive| {
        let mut count = 0;
        for owner in &before {
            archive
                .list(owner, None, &mut |_| {
                    count += 1;
                    Ok(())
                })
                .expect("lists");
        }
        count
    };
    let archive = other.read();
    assert_eq!(count(&archive), archive.stats().expect("reads").instances);
    assert_eq!(other.code(&["store", "verify"]), Some(0));
    assert_eq!(other.code(&["status"]), Some(0));
    // Damage of one store stops a reader with a name, not silently.
    fs::write(other.config().stores_dir().join("older/store.toml"), "nonsense").expect("writes");
    let refused = other.run(&["list", "--owner", "ann"], "");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("store older"), "{refused:?}");
    assert_eq!(other.code(&["store", "list"]), Some(1));
    let folder = Folder::of(&other.config(), disk());
    assert_eq!(folder.list().expect("lists").len(), 2);
}

/// A `store.toml` from before the last rotation, brought back by mistake.
#[test]
fn an_old_store_toml_lets_nobody_write_and_hides_nothing() {
    let mails = mails(8);
    let scene = Scene::new(1_000_000);
    let main = scene.config().stores_dir().join("main");
    let passphrase = format!("{}\n", String::from_utf8_lossy(PASSPHRASE));
    fill(&mut scene.open(), &mails[..4], 0);
    let old = fs::read(main.join("store.toml")).expect("reads");
    let kept = tempfile::tempdir().expect("temporary folder");
    copy(&main.join("catalog"), kept.path());
    let rotate = || scene.run(&["store", "rotate"], &passphrase);
    assert_eq!(rotate().status.code(), Some(0));
    let rotated = fs::read(main.join("store.toml")).expect("reads");
    // Nothing is sealed with the new keys yet: the old ones go on.
    fs::write(main.join("store.toml"), &old).expect("writes");
    drop(scene.open());
    fs::write(main.join("store.toml"), &rotated).expect("writes");
    fill(&mut scene.open(), &mails[4..], 4);
    let (whole, files) = (seen(&scene.read()), contents(&main));

    fs::write(main.join("store.toml"), &old).expect("writes");
    let opened = Archive::open(&scene.config(), &disk()).err().expect("nobody may write").to_string();
    assert!(opened.contains("keys of epoch 1"), "{opened}");
    let again = rotate();
    assert_eq!(again.status.code(), Some(4), "epoch 1 must not be given to other keys: {again:?}");
    // What only lacks its keys is not damaged, and not to be mended.
    for command in ["repair", "rebuild-records", "rebuild-catalog"] {
        assert_eq!(scene.code(&["store", command]), Some(4), "{command}");
    }
    for command in
        [&["list", "--owner", "ann"][..], &["store", "stats"], &["store", "list"], &["status"], &["store", "verify"]]
    {
        let said = scene.run(command, "");
        let text = String::from_utf8_lossy(&[said.stdout.as_slice(), &said.stderr].concat()).into_owned();
        assert_eq!(said.status.code(), Some(1), "{command:?}: {text}");
        assert!(text.contains("keys of epoch 1"), "{command:?}: {text}");
    }
    assert!(scene.read().unseen().count() > 0);
    // With the catalog of that time, which a reader brings up and keeps, it is told every time too.
    fs::remove_dir_all(main.join("catalog")).expect("removes");
    fs::create_dir(main.join("catalog")).expect("makes");
    copy(kept.path(), &main.join("catalog"));
    for _ in 0..2 {
        assert_eq!(scene.code(&["list", "--owner", "ann"]), Some(1));
    }
    assert!(Archive::open(&scene.config(), &disk()).is_err());
    assert!(contents(&main) == files, "packs and records are what they were");

    fs::write(main.join("store.toml"), &rotated).expect("writes");
    assert_same(&seen(&scene.read()), &whole);
    assert_eq!(scene.code(&["store", "verify"]), Some(0));
    assert_eq!(scene.read().unseen().count(), 0);
}

/// Packs and records of a store.
fn contents(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = Vec::new();
    ["packs", "records"].iter().for_each(|folder| walk(&store.join(folder), &mut found));
    found.into_iter().map(|path| (path.clone(), fs::read(path).expect("reads"))).collect()
}

/// Every operation of the disk, or every third.
fn step() -> usize {
    if std::env::var("POSTKEEP_POINTS").is_ok_and(|all| all == "all") { 1 } else { 3 }
}

/// Ids as `list` shows them, by digest.
fn ids(archive: &Archive) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    for owner in archive.owners().expect("reads") {
        archive
            .list(&owner, None, &mut |listed| {
                ids.insert(listed.id, listed.sha256);
                Ok(())
            })
            .expect("lists");
    }
    ids
}

fn go(
    scene: &Scene,
    disk: &Arc<dyn Disk>,
    pair: (&str, &str),
    which: Which<'_>,
) -> Option<postkeep_archiver::archive::Moved> {
    let mut archive = Archive::open(&scene.config(), disk).ok()?;
    let staging = Staging::open(&scene.config().staging_dir(), Arc::clone(disk)).ok()?;
    archive.transfer(pair, which, &staging, 1, &mut |_, _| {}).ok()
}

/// Two stores of an archive with mail in each, decisions about some of it, and what a reader sees.
fn two_stores(count: usize) -> (Scene, Value) {
    let mails = mails(count);
    let scene = Scene::new(1_000_000);
    fill(&mut scene.open(), &mails[..count / 2], 0);
    assert_eq!(scene.code(&["store", "create", "second"]), Some(0));
    assert_eq!(scene.code(&["store", "set-state", "second", "current"]), Some(0));
    fill(&mut scene.open(), &mails[count / 2..], count / 2);
    let names = ["ann", "bob", "cat", "zoe"];
    refile(&mut scene.open(), &owners(&names), &|_| rules(), Reach::Waiting, &|| false).expect("files");
    let all = seen(&scene.read());
    (scene, all)
}

#[test]
fn a_merged_or_transferred_report_is_the_same_elsewhere() {
    let (scene, before) = two_stores(40);
    let named = ids(&scene.read());
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let reports = |name: &str| {
        let archive = scene.read();
        archive.member(name).expect("is there").store().stats().expect("reads").reports
    };
    let part = go(&scene, &disk, ("main", "second"), Which::Owner("cat")).expect("moves");
    assert!(part.reports > 0 && part.left > 0 && part.problems.is_empty(), "{part:?}");
    assert_same(&seen(&scene.read()), &before);
    let early = go(&scene, &disk, ("second", "main"), Which::Before(1_787_040_000_000 + 30)).expect("moves");
    assert!(early.reports > 0 && early.left > 0, "{early:?}");
    assert_same(&seen(&scene.read()), &before);
    let all = go(&scene, &disk, ("main", "second"), Which::All).expect("moves");
    assert!(all.reports > 0 && all.left == 0 && all.problems.is_empty(), "{all:?}");
    assert_same(&seen(&scene.read()), &before);
    assert_eq!((reports("main"), reports("second")), (0, 40));
    let again = go(&scene, &disk, ("main", "second"), Which::All).expect("moves");
    assert_eq!((again.reports, again.left), (0, 0), "said again it has nothing to do");
    assert_eq!(scene.code(&["store", "verify"]), Some(0));
    // Built anew from packs and records it is the same, and so it is without the empty store.
    for name in ["main", "second"] {
        fs::remove_dir_all(scene.config().stores_dir().join(name).join("catalog")).expect("removes");
    }
    drop(scene.open());
    assert_same(&seen(&scene.read()), &before);
    assert_eq!(ids(&scene.read()), named, "ids stay in a family");
    assert_eq!(scene.code(&["store", "detach", "main"]), Some(0));
    assert_same(&seen(&scene.read()), &before);
    println!(
        "transfer by owner {} reports, back by day {}, merge {}: lists, envelopes, held, unowned and numbers equal each time",
        part.reports, early.reports, all.reports
    );
}

#[test]
fn what_was_moved_away_gives_its_space_back() {
    let (scene, before) = two_stores(40);
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    // Packs have copies of records too, which grow in number with every move: chunks of messages are counted apart.
    let stored = |name: &str| {
        let stats = scene.read().member(name).expect("is there").store().stats().expect("reads");
        (stats.chunks, stats.pack_bytes)
    };
    let full = stored("main");
    go(&scene, &disk, ("main", "second"), Which::Owner("cat")).expect("moves");
    let compact = ["store", "compact", "--least", "0"];
    assert_eq!(scene.code(&compact), Some(0));
    let part = stored("main");
    assert_same(&seen(&scene.read()), &before);
    assert_eq!(scene.code(&["store", "verify"]), Some(0));
    // There and back again: what is here once more is kept.
    go(&scene, &disk, ("second", "main"), Which::All).expect("moves");
    assert_eq!(scene.code(&compact), Some(0));
    assert_same(&seen(&scene.read()), &before);
    go(&scene, &disk, ("main", "second"), Which::All).expect("moves");
    assert_eq!(scene.code(&compact), Some(0));
    let none = stored("main");
    println!(
        "chunks and octets of packs of the store that was left: {full:?}, {part:?} without one owner's, {none:?} without all"
    );
    assert!(part.0 < full.0 && part.1 < full.1, "what one owner had goes");
    assert!(none.0 == 0 && none.1 < full.1, "everything goes");
    assert_same(&seen(&scene.read()), &before);
    // What lies elsewhere is neither missed nor called lost.
    for command in [["store", "verify"], ["store", "repair"], ["store", "rebuild-catalog"], ["store", "verify"]] {
        let done = scene.run(&command, "");
        assert_eq!(done.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&done.stdout));
        assert_same(&seen(&scene.read()), &before);
    }
}

#[test]
fn a_store_of_another_archive_is_merged_and_old_ids_go_on() {
    let all = mails(30);
    let (here, there) = (Scene::new(1_000_000), Scene::new(1_000_000));
    let apart = |range: std::ops::Range<usize>| -> Vec<Mail> {
        let kept = mails(30).into_iter().enumerate().filter(|(n, _)| range.contains(n) && n % 3 != 2);
        kept.map(|(_, mail)| mail).collect()
    };
    drop(all);
    fill(&mut here.open(), &apart(15..30), 15);
    fill(&mut there.open(), &apart(0..15), 0);
    let old = ids(&there.read());
    fs::rename(there.config().stores_dir().join("main"), there.config().stores_dir().join("foreign")).expect("moves");
    let dir = there.config().stores_dir().join("foreign");
    let passphrase = format!("{}\n", String::from_utf8_lossy(PASSPHRASE));
    let attached = here.run(&["store", "attach", dir.to_str().expect("text"), "--passphrase-stdin"], &passphrase);
    assert_eq!(attached.status.code(), Some(0), "{}", String::from_utf8_lossy(&attached.stderr));
    let before = seen(&here.read());
    let merged = here.run(&["store", "merge", "foreign", "main", "--json"], "");
    assert_eq!(merged.status.code(), Some(0), "{}", String::from_utf8_lossy(&merged.stderr));
    assert_same(&seen(&here.read()), &before);
    assert_eq!(here.code(&["store", "verify"]), Some(0));
    assert_eq!(here.code(&["store", "detach", "foreign"]), Some(0));
    let archive = here.read();
    assert_same(&seen(&archive), &before);
    for (id, sha256) in &old {
        let mut octets = Vec::new();
        archive.read_message(id, &mut octets).expect("the old id names it");
        assert_eq!(postkeep_shared::mail::Digest::of(&octets).to_string(), *sha256);
    }
    println!("a foreign store merged: {} ids of it go on naming their messages", old.len());
}

#[test]
fn whatever_fails_while_stores_are_merged_nothing_is_lost_and_nothing_is_there_twice() {
    let (base, before) = two_stores(12);
    let trial = || {
        let scene = Scene::new(1_000_000);
        fs::remove_dir_all(scene.0.path().join("data")).expect("removes");
        copy(&base.0.path().join("data"), &scene.0.path().join("data"));
        (scene, FaultyDisk::new(Arc::new(LocalDisk)))
    };
    let (scene, whole) = trial();
    let disk: Arc<dyn Disk> = Arc::new(whole.clone());
    let moved = go(&scene, &disk, ("main", "second"), Which::All).expect("moves");
    let (done, mut points) = (whole.take_done(), 0);
    let step = step();
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let count = done.iter().filter(|one| one.operation == operation).count();
        for at in (0..count).step_by(step) {
            let (scene, disk) = trial();
            disk.fail_with_errno(operation, at as u32 + 1, 5);
            let faulty: Arc<dyn Disk> = Arc::new(disk);
            let _ = go(&scene, &faulty, ("main", "second"), Which::All);
            drop(faulty);
            points += 1;
            let mut between = seen(&scene.read());
            // Counted in both while it is in both.
            between["instances"] = before["instances"].clone();
            between["reports"] = before["reports"].clone();
            between["bytes in"] = before["bytes in"].clone();
            assert_same(&between, &before);
            let sound: Arc<dyn Disk> = Arc::new(LocalDisk);
            go(&scene, &sound, ("main", "second"), Which::All).expect("goes on");
            assert_same(&seen(&scene.read()), &before);
            assert_eq!(scene.read().member("main").expect("there").store().stats().expect("reads").reports, 0);
        }
    }
    println!(
        "a merge of {} reports: {points} operations of the disk fail (every {step}. of each kind); before and after the \
         second run everything is there once",
        moved.reports
    );
}
