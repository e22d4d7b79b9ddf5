//! What opens a store: new passphrases, unlock keys, escrow, epochs; each change killed at every operation on the disk.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{
    EscrowChange, EscrowIdentity, PassphraseChange, Rekey, Store, StoreError, StoreResult, Unlock, UnlockKey, rekey,
    restore_unlock,
};
use postkeep_shared::{
    crypt::Password,
    disk::{
        LocalDisk,
        faulty::{FaultyDisk, Operation},
    },
};
use std::{fs, path::Path, sync::Arc};
use support::*;

const NEW: &[u8] = b"another passphrase";

fn opens(dir: &Path, unlock: &Unlock<'_>) -> bool {
    match Store::open_read(dir, unlock, disk()) {
        Ok(_) => true,
        Err(StoreError::WrongKey { .. } | StoreError::NoEscrow(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn key_opens(place: &Place) -> bool {
    opens(&place.store(), &Unlock::Key(&place.key()))
}

fn passphrase_opens(place: &Place, passphrase: &[u8]) -> bool {
    opens(&place.store(), &Unlock::Passphrase(&Password::received(passphrase)))
}

fn change(place: &Place, wanted: &Rekey<'_>) -> StoreResult<usize> {
    rekey(&[place.store()], &place.key_file(), &Unlock::Key(&place.key()), wanted, &LocalDisk)
}

#[test]
fn new_wraps_open_and_old_ones_do_not() {
    let place = Place::new();
    let old = place.key();
    let (passphrase, made) = (Password::received(NEW), age_identity());
    let mut store = place.open();
    add(&mut store, "u1", &report("<1@x>", "body\r\n", 1), &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    drop(store);
    let identity_file = place.0.path().join("escrow.txt");
    fs::write(&identity_file, format!("# kept offline\n{}\n", made.0)).expect("writes");
    let identity = EscrowIdentity::load(&identity_file, &LocalDisk).expect("loads");
    assert!(!opens(&place.store(), &Unlock::Escrow(&identity)));
    let wanted = Rekey {
        passphrase: PassphraseChange::New(&passphrase),
        unlock_key: true,
        escrow: EscrowChange::Set(&made.1),
        epoch: false,
    };
    assert_eq!(change(&place, &wanted).expect("changes"), 1);
    assert!(key_opens(&place) && passphrase_opens(&place, NEW));
    assert!(!passphrase_opens(&place, PASSPHRASE));
    assert!(!opens(&place.store(), &Unlock::Key(&old)));
    assert!(opens(&place.store(), &Unlock::Escrow(&identity)));
    place.assert_sound(1);
    // Everything lost but the escrow's identity.
    fs::remove_file(place.key_file()).expect("removes");
    restore_unlock(&[place.store()], &Unlock::Escrow(&identity), &place.key_file(), &LocalDisk).expect("makes a key");
    assert!(key_opens(&place));
    let wanted = Rekey { escrow: EscrowChange::Remove, ..Rekey::default() };
    change(&place, &wanted).expect("changes");
    assert!(!opens(&place.store(), &Unlock::Escrow(&identity)));
    place.assert_sound(1);
    let wanted = Rekey { escrow: EscrowChange::Set("age1nonsense"), ..Rekey::default() };
    assert!(matches!(change(&place, &wanted), Err(StoreError::Recipient)));
}

#[test]
fn a_new_epoch_leaves_everything_readable() {
    let place = Place::new();
    let mut sizes = Vec::new();
    for epoch in 1..=3 {
        let mut store = place.open();
        let name = format!("u{epoch}");
        let report = report(&format!("<{epoch}@x>"), &format!("body {epoch}\r\n"), epoch);
        add(&mut store, &name, &report, &plan(&["ann"])).expect("adds");
        assert_eq!(store.commit().expect("commits").receipts.len(), 1);
        drop(store);
        sizes.push(report.octets);
        place.assert_sound(epoch as u64);
        let before = fs::read(place.store().join("store.toml")).expect("reads");
        let wrong = Password::received(b"mistyped");
        let wanted = Rekey { passphrase: PassphraseChange::Present(&wrong), epoch: true, ..Rekey::default() };
        assert!(matches!(change(&place, &wanted), Err(StoreError::WrongKey { .. })), "a mistyped one is not taken");
        assert_eq!(fs::read(place.store().join("store.toml")).expect("reads"), before);
        let right = Password::received(PASSPHRASE);
        let wanted = Rekey { passphrase: PassphraseChange::Present(&right), epoch: true, ..Rekey::default() };
        assert_eq!(change(&place, &wanted).expect("changes"), epoch + 1);
        // The store.toml of before opens the store, but not what is written from now on.
    }
    let store = place.open();
    for (at, octets) in sizes.iter().enumerate() {
        assert_eq!(raw(&store, &format!("u{}", at + 1)), *octets);
    }
    assert_eq!(list(&store, "ann").len(), 3);
    drop(store);
    assert!(key_opens(&place) && passphrase_opens(&place, PASSPHRASE));
    place.assert_sound(3);
}

/// The line of store.toml with the passphrase's wrap.
fn passphrase_wrap(place: &Place) -> String {
    let text = fs::read_to_string(place.store().join("store.toml")).expect("reads");
    text.lines().find(|line| line.starts_with("key_by_passphrase")).expect("there").to_owned()
}

#[test]
fn a_change_stopped_anywhere_leaves_old_or_new() {
    let (old, new) = (Password::received(PASSPHRASE), Password::received(NEW));
    let changes = [
        ("rekey", Rekey { passphrase: PassphraseChange::New(&new), unlock_key: true, ..Rekey::default() }),
        ("unlock key", Rekey { unlock_key: true, ..Rekey::default() }),
        ("rotate", Rekey { passphrase: PassphraseChange::Present(&old), epoch: true, ..Rekey::default() }),
    ];
    let template = Place::new();
    // Deriving a key from a passphrase takes long: the same octets open as they did before.
    let wrap = passphrase_wrap(&template);
    for (what, wanted) in changes {
        let (mut points, mut kept) = (0, 0);
        for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
            for n in 1.. {
                let place = template.copied();
                let before = place.key();
                let faulty = FaultyDisk::new(Arc::new(LocalDisk));
                // From there on nothing works any more, as if the machine had stopped.
                faulty.keep_failing(operation, n, 5);
                let dirs = [place.store()];
                if rekey(&dirs, &place.key_file(), &Unlock::Key(&before), &wanted, &faulty).is_ok() {
                    break;
                }
                points += 1;
                assert!(key_opens(&place), "{what}, {operation:?} {n}: unlock.key opens nothing");
                let is_old = passphrase_wrap(&place) == wrap;
                assert!(is_old || what != "unlock key");
                if !is_old && points % 4 == 0 {
                    let (by_old, by_new) = (passphrase_opens(&place, PASSPHRASE), passphrase_opens(&place, NEW));
                    assert_eq!((by_old, by_new), (what == "rotate", what == "rekey"), "{what}, {operation:?} {n}");
                }
                // A writer takes over, and the command can be said again.
                drop(place.open());
                assert!(key_opens(&place), "{what}, {operation:?} {n}: after a writer");
                let again = Rekey { passphrase: PassphraseChange::Keep, epoch: false, ..wanted };
                rekey(&dirs, &place.key_file(), &Unlock::Key(&place.key()), &again, &LocalDisk).expect("again");
                assert!(key_opens(&place));
                if wanted.unlock_key {
                    assert!(!opens(&place.store(), &Unlock::Key(&before)), "the old key opens it still");
                }
                place.assert_sound(0);
                kept += usize::from(is_old);
            }
        }
        println!("{what}: stopped at {points} operations, {kept} before and {} after the new wraps", points - kept);
        assert!(points > 3);
    }
}

#[test]
fn stores_of_the_first_builds_open_and_become_new_ones() {
    // Made before there were versions of store.toml; its wraps hold one key.
    let place = Place::new();
    let file = place.store().join("store.toml");
    let text = fs::read_to_string(&file).expect("reads");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("check")).collect();
    fs::write(&file, lines.join("\n").replace("version = 2", "version = 1")).expect("writes");
    assert!(key_opens(&place) && passphrase_opens(&place, PASSPHRASE));
    let verified = place.open_read().verify().expect("goes on");
    assert!(verified.ok, "{verified:#?}");
    let key = UnlockKey::load(&place.key_file(), &LocalDisk).expect("loads");
    rekey(&[place.store()], &place.key_file(), &Unlock::Key(&key), &Rekey::default(), &LocalDisk).expect("changes");
    assert!(fs::read_to_string(&file).expect("reads").contains("version = 2"));
    place.assert_sound(0);
}

/// Identity and recipient.
fn age_identity() -> (String, String) {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
}

/// One unlock key opens every store of an archive, so a `store.toml` of another store opens too: then nothing beside it
/// does, which must not be taken for damage everywhere.
#[test]
fn a_store_file_of_another_store_is_refused() {
    let place = Place::new();
    let mut store = place.open();
    for n in 0..3 {
        let report = report(&format!("<{n}@x>"), "body\r\n", 4);
        add(&mut store, &format!("u{n}"), &report, &plan(&["ann"])).expect("adds");
        let _ = store.commit().expect("commits");
    }
    let listed = list(&store, "ann").len();
    drop(store);
    let other = place.0.path().join("stores/other");
    drop(Store::create(&other, "other", &Password::received(PASSPHRASE), &place.key(), disk()).expect("makes"));

    let (own, files) = (fs::read(place.store().join("store.toml")).expect("reads"), place.files());
    fs::copy(other.join("store.toml"), place.store().join("store.toml")).expect("copies");
    for way in [Store::open, Store::open_read] {
        let refused = way(&place.store(), &Unlock::Key(&place.key()), disk()).map(drop);
        let Err(StoreError::Damaged { .. }) = &refused else { panic!("{refused:?}") };
        let said = refused.map_err(|error| error.to_string()).expect_err("refused");
        assert!(said.contains("restore store.toml from a backup") && said.contains("store.toml"), "{said}");
    }
    assert_eq!(place.files(), files, "nothing was made or moved");
    fs::write(place.store().join("store.toml"), own).expect("writes");

    // The name of the store decayed in one header: the other files say whose they are.
    let decayed = files.iter().find(|path| path.extension().is_some_and(|e| e == "pack")).expect("a pack");
    let mut octets = fs::read(decayed).expect("reads");
    octets[8] ^= 1;
    fs::write(decayed, octets).expect("writes");
    assert_eq!(list(&place.open_read(), "ann").len(), listed);
    // In all of them: then they are another store's, as far as anyone can tell.
    for path in files.iter().filter(|path| *path != decayed) {
        let mut octets = fs::read(path).expect("reads");
        octets[8] ^= 1;
        fs::write(path, octets).expect("writes");
    }
    let refused = Store::open_read(&place.store(), &Unlock::Key(&place.key()), disk()).map(drop);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
}
