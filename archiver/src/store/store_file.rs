//! `store.toml`: id, name and state of a store, and the keys of its family, wrapped (`docs/formats/keys.md`).
//!
//! What is wrapped are the root keys of all epochs, 32 octets each, the oldest first; by the unlock key, by the recovery
//! passphrase, and by the escrow where there is one. The file is only ever replaced whole, so that at any moment the old
//! wraps open or the new ones. Not here: what the keys are used for (`keyring.rs`), and changing wraps (`rekey.rs`).

use super::{
    StoreError, StoreResult, Unlock, UnlockKey,
    escrow::seal_to,
    keyring::{Keyring, NONCE, SealKey},
};
use data_encoding::{BASE64, HEXLOWER};
use postkeep_shared::{
    crypt::{KdfParams, Password, SecretBytes, UnwrapError, random, unwrap_key, wrap_key},
    disk::{Disk, replace_file},
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"postkeep store key v1\0";
const UNLOCK_MAGIC: &[u8] = b"PKU1";
/// The version that is written.
const VERSION: u32 = 2;
/// Octets of a key.
const KEY: usize = 32;
/// A family has no more epochs than this.
const MAX_EPOCHS: usize = 1024;

/// `store.toml`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreFile {
    /// Keyed hash of all other fields, hex: shows damage also in the wrap that is not used every day. First, so that no
    /// cut leaves a whole file without it. Stores of the first builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<String>,
    pub(crate) version: u32,
    /// 16 octets, hex.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// The store whose wraps these are, hex; absent where they are this store's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    /// The root keys wrapped by the unlock key, base64.
    pub(crate) key_by_unlock: String,
    /// The same by the unlock key that is about to take its place; only while that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_by_unlock_next: Option<String>,
    /// The root keys wrapped by the recovery passphrase, base64.
    pub(crate) key_by_passphrase: String,
    /// `age1…`: whose identity opens the store too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) escrow_recipient: Option<String>,
    /// The root keys sealed to it, base64 of an age file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_by_escrow: Option<String>,
}

/// Only the version, for files that say more than this release knows.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The root keys of a family, one for each epoch. Wiped when dropped; no `Debug`.
pub(crate) struct RootKeys(SecretBytes);

impl RootKeys {
    pub(crate) fn random() -> Self {
        let key: Zeroizing<[u8; KEY]> = Zeroizing::new(random());
        Self(SecretBytes::new(key.to_vec()))
    }

    pub(crate) fn copy(&self) -> Self {
        Self(SecretBytes::new(self.expose().to_vec()))
    }

    fn new(octets: SecretBytes) -> Option<Self> {
        let len = octets.expose().len();
        (len > 0 && len.is_multiple_of(KEY) && len <= MAX_EPOCHS * KEY).then_some(Self(octets))
    }

    /// With one epoch more.
    pub(crate) fn with_new_epoch(&self) -> StoreResult<Self> {
        let key: Zeroizing<[u8; KEY]> = Zeroizing::new(random());
        let all = SecretBytes::new([self.expose(), key.as_slice()].concat());
        Self::new(all).ok_or_else(|| StoreError::Failed(format!("a store has at most {MAX_EPOCHS} epochs")))
    }

    /// How many.
    pub(crate) fn epochs(&self) -> usize {
        self.expose().len() / KEY
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    fn keys(&self) -> &[[u8; KEY]] {
        self.expose().as_chunks().0
    }
}

impl StoreFile {
    /// A new family's first store: its file and root keys.
    pub(crate) fn create(
        name: &str,
        passphrase: &Password,
        unlock: &UnlockKey,
        escrow: Option<&str>,
    ) -> StoreResult<(Self, RootKeys)> {
        let keys = RootKeys::random();
        let mut file = Self {
            check: None,
            version: VERSION,
            id: HEXLOWER.encode(&random::<16>()),
            name: name.to_owned(),
            state: "current".to_owned(),
            root: None,
            key_by_unlock: String::new(),
            key_by_unlock_next: None,
            key_by_passphrase: String::new(),
            escrow_recipient: None,
            key_by_escrow: None,
        };
        let here = Path::new("store.toml");
        file.key_by_unlock = file.wrapped_by_unlock(unlock, &keys, here)?;
        file.key_by_passphrase = file.wrapped_by_passphrase(passphrase, &keys, here)?;
        file.wrap_for_escrow(escrow, &keys, here)?;
        file.seal(&keys, here)?;
        Ok((file, keys))
    }

    /// `store.toml` of another store that opens with the same wraps as this one, with keys of its own.
    pub(crate) fn sibling(&self, name: &str, keys: &RootKeys, dir: &Path) -> StoreResult<Self> {
        let mut file = self.clone();
        file.root = Some(HEXLOWER.encode(&self.wrap_id(dir)?));
        file.id = HEXLOWER.encode(&random::<16>());
        file.name = name.to_owned();
        file.state = "normal".to_owned();
        file.seal(keys, dir)?;
        Ok(file)
    }

    /// Reads the file of the store in `dir`.
    pub(crate) fn read(dir: &Path, disk: &dyn Disk) -> StoreResult<Self> {
        let path = dir.join("store.toml");
        let octets = match disk.read(&path, 1024 * 1024) {
            Err(error) if error.is_missing() => return Err(StoreError::Absent(dir.to_owned())),
            other => other?,
        };
        let damaged = || StoreError::damaged(&path, 0, "not a store file; restore it from a backup");
        let text = std::str::from_utf8(&octets).map_err(|_| damaged())?;
        // The version first: a newer file says what this release does not know.
        let Versioned { version } = toml::from_str(text).map_err(|_| damaged())?;
        if !(1..=VERSION).contains(&version) {
            return Err(StoreError::Version { path, version, newest: VERSION });
        }
        toml::from_str(text).map_err(|_| damaged())
    }

    /// Replaces the file of the store in `dir`.
    pub(crate) fn write(&self, dir: &Path, disk: &dyn Disk) -> StoreResult<()> {
        Ok(replace_file(disk, &dir.join("store.toml"), self.text()?.as_bytes())?)
    }

    pub(crate) fn text(&self) -> StoreResult<String> {
        toml::to_string(self).map_err(|e| StoreError::Failed(format!("store.toml cannot be written: {e}")))
    }

    /// The store's id; `dir` is for messages.
    pub(crate) fn id(&self, dir: &Path) -> StoreResult<[u8; 16]> {
        id_of(&self.id, "id", dir)
    }

    /// The id that wraps are bound to.
    pub(crate) fn wrap_id(&self, dir: &Path) -> StoreResult<[u8; 16]> {
        id_of(self.root.as_ref().unwrap_or(&self.id), "root", dir)
    }

    /// The keys of the store.
    pub(crate) fn keyring(&self, keys: &RootKeys, dir: &Path) -> StoreResult<Keyring> {
        let id = self.id(dir)?;
        let own = keys.keys().iter().map(|key| match self.root {
            None => Zeroizing::new(*key),
            Some(_) => own_key(key, &id),
        });
        let own: Vec<_> = own.collect();
        let damaged = || StoreError::damaged(&dir.join("store.toml"), 0, "it holds no key");
        Keyring::of_epochs(id, self.wrap_id(dir)?, keys.keys().first().ok_or_else(damaged)?, &own).ok_or_else(damaged)
    }

    /// Makes the file one of the version that is written, with its check.
    pub(crate) fn seal(&mut self, keys: &RootKeys, dir: &Path) -> StoreResult<()> {
        self.version = VERSION;
        self.check = Some(self.checked_by(&self.keyring(keys, dir)?));
        Ok(())
    }

    /// What [`Self::check`] must be.
    pub(crate) fn checked_by(&self, keys: &Keyring) -> String {
        let version = self.version.to_be_bytes();
        let texts = [&self.id, &self.name, &self.state, &self.key_by_unlock, &self.key_by_passphrase];
        let fields = std::iter::once(version.as_slice()).chain(texts.map(|text| text.as_bytes()));
        if self.version < 2 {
            return HEXLOWER.encode(&keys.name("store.toml", &fields.collect::<Vec<_>>()));
        }
        let more = [&self.root, &self.key_by_unlock_next, &self.escrow_recipient, &self.key_by_escrow];
        let more = more.map(|text| text.as_deref().unwrap_or_default().as_bytes());
        HEXLOWER.encode(&keys.check(&fields.chain(more).collect::<Vec<_>>()))
    }

    /// Unwraps the root keys.
    pub(crate) fn root_keys(&self, unlock: &Unlock<'_>, dir: &Path) -> StoreResult<RootKeys> {
        let path = dir.join("store.toml");
        let damaged = |detail: &str| StoreError::damaged(&path, 0, detail);
        let octets = |text: &str, what: &str| {
            BASE64.decode(text.as_bytes()).map_err(|_| damaged(&format!("`{what}` is not base64")))
        };
        let wrong = |with| StoreError::WrongKey { with, store: dir.to_owned() };
        let id = self.wrap_id(dir)?;
        let keys = match unlock {
            Unlock::Key(unlock) => {
                let wrapped = octets(&self.key_by_unlock, "key_by_unlock")?;
                let opened = unwrap_with_unlock(unlock, &wrapped, &id);
                match (opened, &self.key_by_unlock_next) {
                    (Some(Some(keys)), _) => keys,
                    (opened, None) => {
                        return Err(
                            opened.map_or_else(|| damaged("`key_by_unlock` is cut short"), |_| wrong("unlock key"))
                        );
                    }
                    (_, Some(next)) => {
                        let next = octets(next, "key_by_unlock_next")?;
                        unwrap_with_unlock(unlock, &next, &id).flatten().ok_or_else(|| wrong("unlock key"))?
                    }
                }
            }
            Unlock::Passphrase(passphrase) => {
                let wrapped = octets(&self.key_by_passphrase, "key_by_passphrase")?;
                unwrap_key(passphrase, &wrapped, &context(&id)).map_err(|error| match error {
                    UnwrapError::WrongKey => wrong("recovery passphrase"),
                    other => damaged(&format!("`key_by_passphrase`: {other}")),
                })?
            }
            Unlock::Escrow(identity) => {
                let sealed = self.key_by_escrow.as_deref().ok_or_else(|| StoreError::NoEscrow(dir.to_owned()))?;
                let sealed = octets(sealed, "key_by_escrow")?;
                let plain = identity.open(&sealed).ok_or_else(|| wrong("escrow identity"))?;
                let keys = plain.strip_prefix(context(&id).as_slice()).ok_or_else(|| wrong("escrow identity"))?;
                SecretBytes::new(keys.to_vec())
            }
        };
        RootKeys::new(keys).ok_or_else(|| damaged("what is wrapped are no keys of 32 octets"))
    }

    pub(crate) fn wrapped_by_unlock(&self, unlock: &UnlockKey, keys: &RootKeys, dir: &Path) -> StoreResult<String> {
        Ok(BASE64.encode(&wrap_with_unlock(unlock, keys.expose(), &self.wrap_id(dir)?)))
    }

    pub(crate) fn wrapped_by_passphrase(
        &self,
        passphrase: &Password,
        keys: &RootKeys,
        dir: &Path,
    ) -> StoreResult<String> {
        let wrapped = wrap_key(passphrase, KdfParams::CHOSEN, keys.expose(), &context(&self.wrap_id(dir)?));
        let wrapped = wrapped.map_err(|e| StoreError::Failed(format!("the store key cannot be wrapped: {e}")))?;
        Ok(BASE64.encode(&wrapped))
    }

    /// Seals the keys to the escrow's recipient, or takes the escrow out.
    pub(crate) fn wrap_for_escrow(&mut self, recipient: Option<&str>, keys: &RootKeys, dir: &Path) -> StoreResult<()> {
        (self.escrow_recipient, self.key_by_escrow) = match recipient {
            None => (None, None),
            Some(recipient) => {
                let plain = Zeroizing::new([&context(&self.wrap_id(dir)?), keys.expose()].concat());
                let (recipient, sealed) = seal_to(recipient, &plain)?;
                (Some(recipient), Some(BASE64.encode(&sealed)))
            }
        };
        Ok(())
    }

    /// Ends a change of the unlock key that was cut off: the wrap that `unlock` opens stays, the other one goes. `true`
    /// when the file is another one now.
    pub(crate) fn settle(&mut self, unlock: &UnlockKey, keys: &RootKeys, dir: &Path) -> StoreResult<bool> {
        let Some(next) = self.key_by_unlock_next.take() else { return Ok(false) };
        let id = self.wrap_id(dir)?;
        let opens = |text: &str| {
            BASE64
                .decode(text.as_bytes())
                .is_ok_and(|octets| unwrap_with_unlock(unlock, &octets, &id).flatten().is_some())
        };
        if !opens(&self.key_by_unlock) {
            self.key_by_unlock = next;
        }
        self.seal(keys, dir)?;
        Ok(true)
    }
}

/// Reads, changes and replaces the file of the store in `dir`: for name and state.
pub(crate) fn change_store_file(
    dir: &Path,
    unlock: &Unlock<'_>,
    disk: &dyn Disk,
    change: impl FnOnce(&mut StoreFile),
) -> StoreResult<()> {
    let mut file = StoreFile::read(dir, disk)?;
    let keys = file.root_keys(unlock, dir)?;
    change(&mut file);
    file.seal(&keys, dir)?;
    file.write(dir, disk)
}

/// The key of a store that is not its family's first.
fn own_key(root: &[u8; KEY], id: &[u8; 16]) -> Zeroizing<[u8; KEY]> {
    let material = Zeroizing::new([root.as_slice(), id].concat());
    Zeroizing::new(blake3::derive_key("postkeep 2026 store key of a family v1", &material))
}

fn id_of(text: &str, what: &str, dir: &Path) -> StoreResult<[u8; 16]> {
    let id = HEXLOWER.decode(text.as_bytes()).ok().and_then(|id| id.try_into().ok());
    id.ok_or_else(|| StoreError::damaged(&dir.join("store.toml"), 0, format!("`{what}` is not 32 hex digits")))
}

fn context(id: &[u8; 16]) -> Vec<u8> {
    [CONTEXT, id].concat()
}

fn unlock_cipher(unlock: &UnlockKey) -> SealKey {
    SealKey::derive("postkeep 2026 unlock key wraps store key v1", unlock.expose())
}

fn wrap_with_unlock(unlock: &UnlockKey, keys: &[u8], id: &[u8; 16]) -> Vec<u8> {
    let nonce = random::<NONCE>();
    let sealed = unlock_cipher(unlock).seal(nonce, keys, &[UNLOCK_MAGIC, &context(id)].concat());
    [UNLOCK_MAGIC, &nonce, &sealed].concat()
}

/// `None`: not a wrapped key; `Some(None)`: another key.
fn unwrap_with_unlock(unlock: &UnlockKey, wrapped: &[u8], id: &[u8; 16]) -> Option<Option<SecretBytes>> {
    let (nonce, sealed) = wrapped.strip_prefix(UNLOCK_MAGIC)?.split_first_chunk::<NONCE>()?;
    let plain = unlock_cipher(unlock).open(*nonce, sealed, &[UNLOCK_MAGIC, &context(id)].concat());
    Some(plain.map(SecretBytes::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    fn opened(file: &StoreFile, unlock: &Unlock<'_>) -> Option<Keyring> {
        let dir = Path::new("store");
        file.root_keys(unlock, dir).ok().and_then(|keys| file.keyring(&keys, dir).ok())
    }

    #[test]
    fn members_of_a_family_share_names_and_wraps_and_nothing_else() {
        let (passphrase, unlock) = (Password::received(b"correct horse"), UnlockKey::random());
        let (root, keys) = StoreFile::create("main", &passphrase, &unlock, None).expect("makes");
        let member = root.sibling("second", &keys, Path::new("store")).expect("makes");
        let (a, b) = (opened(&root, &Unlock::Key(&unlock)).expect("opens"), opened(&member, &Unlock::Key(&unlock)));
        let b = b.expect("opens");
        assert_eq!(a.chunk_id(b"x"), b.chunk_id(b"x"));
        assert_ne!(a.id, b.id);
        let sealed = a.catalog.seal([0; NONCE], b"x", b"");
        assert!(b.catalog.open([0; NONCE], &sealed, b"").is_none());
        assert!(opened(&member, &Unlock::Passphrase(&passphrase)).is_some());
        assert_eq!(member.check, Some(member.checked_by(&b)));
        let again = member.sibling("third", &keys, Path::new("store")).expect("makes");
        assert_eq!(again.root, Some(root.id.clone()));
    }

    #[test]
    fn every_field_is_checked_and_newer_files_are_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (passphrase, unlock) = (Password::received(b"correct horse"), UnlockKey::random());
        let identity = age::x25519::Identity::generate().to_public().to_string();
        let (file, _) = StoreFile::create("main", &passphrase, &unlock, Some(&identity)).expect("makes");
        file.write(folder.path(), &LocalDisk).expect("writes");
        change_store_file(folder.path(), &Unlock::Key(&unlock), &LocalDisk, |file| file.state = "normal".to_owned())
            .expect("changes");
        let file = StoreFile::read(folder.path(), &LocalDisk).expect("reads");
        let keys = opened(&file, &Unlock::Key(&unlock)).expect("opens");
        assert_eq!((file.state.as_str(), file.check.clone()), ("normal", Some(file.checked_by(&keys))));
        let changes: [fn(&mut StoreFile); 8] = [
            |f| f.name.push('x'),
            |f| f.state = "write-protected".to_owned(),
            |f| f.root = Some(f.id.clone()),
            |f| f.key_by_unlock.push('x'),
            |f| f.key_by_unlock_next = Some("x".to_owned()),
            |f| f.key_by_passphrase.push('x'),
            |f| f.escrow_recipient = None,
            |f| f.key_by_escrow = None,
        ];
        for change in changes {
            let mut changed = file.clone();
            change(&mut changed);
            assert_ne!(changed.check, Some(changed.checked_by(&keys)));
        }
        let newer = file.text().expect("text").replace("version = 2", "version = 3\nnew = 1");
        std::fs::write(folder.path().join("store.toml"), newer).expect("writes");
        assert!(matches!(StoreFile::read(folder.path(), &LocalDisk), Err(StoreError::Version { version: 3, .. })));
    }
}
