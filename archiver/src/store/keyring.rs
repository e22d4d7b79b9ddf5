//! The store key, what wraps it, and the keys derived from it (`docs/formats/pack.md`, keys).
//!
//! One random key per store; every use has its own subkey (`blake3::derive_key`), so that no octet of one use means
//! anything in another. `store.toml` holds the key twice: wrapped by the unlock key and by the recovery passphrase.

use super::{StoreError, StoreResult, Unlock, UnlockKey};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use data_encoding::{BASE64, HEXLOWER};
use postkeep_shared::crypt::{KdfParams, Password, SecretBytes, UnwrapError, random, unwrap_key, wrap_key};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"postkeep store key v1\0";
const UNLOCK_MAGIC: &[u8] = b"PKU1";
const FAMILY: &str = "postkeep 2026 store key of a family v1";
/// Version of a `store.toml` with a `root`.
pub(crate) const VERSION_OF_FAMILY: u32 = 2;

/// Octets of a nonce.
pub const NONCE: usize = 24;
/// Octets that sealing adds.
pub const TAG: usize = 16;

/// `store.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreFile {
    /// Keyed hash of all other fields, hex: shows damage also in the wrap that is not used every day. First, so that no
    /// cut leaves a whole file without it. Stores of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<String>,
    pub(crate) version: u32,
    /// 16 octets, hex.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// The store whose wraps these are, 32 hex digits, where it is another one: the stores of an archive open with the
    /// same passphrase (`docs/formats/pack.md`, keys). Only with version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    /// The store key wrapped by the unlock key, base64.
    pub(crate) key_by_unlock: String,
    /// The store key wrapped by the recovery passphrase, base64.
    pub(crate) key_by_passphrase: String,
}

/// A symmetric key that seals octets together with what they belong to.
pub struct SealKey(XChaCha20Poly1305);

/// The keys of an open store. Wiped when dropped; no `Debug`.
pub struct Keyring {
    /// Store id: part of everything that is authenticated.
    pub id: [u8; 16],
    /// Id of the store whose wraps open this one: its own, or that of the first store of the archive. Stores of one
    /// family name chunks, messages and owners with the same key.
    pub family: [u8; 16],
    /// Seals pack frames.
    pub pack: SealKey,
    /// Seals records.
    pub record: SealKey,
    /// Seals catalog values.
    pub catalog: SealKey,
    ids: Zeroizing<[u8; 32]>,
}

impl SealKey {
    fn derive(context: &str, key: &[u8]) -> Self {
        Self(XChaCha20Poly1305::new((&*Zeroizing::new(blake3::derive_key(context, key))).into()))
    }

    /// Encrypts; the result is [`TAG`] octets longer.
    ///
    /// # Panics
    /// Never: the cipher fails only beyond 256 GiB.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE], plain: &[u8], aad: &[u8]) -> Vec<u8> {
        let payload = Payload { msg: plain, aad };
        self.0.encrypt(&XNonce::from(nonce), payload).expect("less than 256 GiB at a time")
    }

    /// Decrypts; `None` when key, nonce, octets or `aad` are not those of the sealing.
    #[must_use]
    pub fn open(&self, nonce: [u8; NONCE], sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad }).ok()
    }
}

impl Keyring {
    /// The keys derived from a store key.
    #[must_use]
    pub fn derive(id: [u8; 16], store_key: &[u8; 32]) -> Self {
        Self {
            id,
            family: id,
            pack: SealKey::derive("postkeep 2026 store key pack v1", store_key),
            record: SealKey::derive("postkeep 2026 store key record v1", store_key),
            catalog: SealKey::derive("postkeep 2026 store key catalog v1", store_key),
            ids: Zeroizing::new(blake3::derive_key("postkeep 2026 store key ids v1", store_key)),
        }
    }

    /// The keys of a store whose wraps are those of store `root`, which hold `root_key`: seals of its own, names in
    /// common.
    #[must_use]
    pub fn of_family(id: [u8; 16], root: [u8; 16], root_key: &[u8; 32]) -> Self {
        if root == id {
            return Self::derive(id, root_key);
        }
        let own = Zeroizing::new(blake3::derive_key(FAMILY, Zeroizing::new([&root_key[..], &id].concat()).as_slice()));
        let mut keys = Self::derive(id, &own);
        keys.family = root;
        keys.ids = Self::derive(root, root_key).ids;
        keys
    }

    /// Name of octets in packs: keyed, so that nobody without the key can test for the presence of a known file.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.ids, plain).as_bytes()
    }

    /// As [`Self::chunk_id`], for octets that come in pieces.
    #[must_use]
    pub fn chunk_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.ids)
    }

    /// Keyed name of a list of fields for one use: no two lists give the same octets to hash.
    #[must_use]
    pub fn name(&self, purpose: &str, fields: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.ids);
        hasher.update(b"postkeep name\0");
        for field in [purpose.as_bytes()].iter().chain(fields) {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        *hasher.finalize().as_bytes()
    }

    /// What people call a message: 32 hex digits, derived from its SHA-256.
    #[must_use]
    pub fn message_id(&self, sha256: &[u8; 32]) -> String {
        HEXLOWER.encode(self.name("message id", &[sha256]).get(..16).unwrap_or_default())
    }

    /// A new store's keys and its `store.toml`.
    pub(crate) fn create(name: &str, passphrase: &Password, unlock: &UnlockKey) -> StoreResult<(Self, StoreFile)> {
        let id = random::<16>();
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(random());
        let wrap = KdfParams::CHOSEN;
        let by_passphrase = wrap_key(passphrase, wrap, key.as_slice(), &context(&id))
            .map_err(|e| StoreError::Failed(format!("the store key cannot be wrapped: {e}")))?;
        let keys = Self::derive(id, &key);
        let mut file = StoreFile {
            check: None,
            version: 1,
            id: HEXLOWER.encode(&id),
            name: name.to_owned(),
            state: "current".to_owned(),
            root: None,
            key_by_unlock: BASE64.encode(&wrap_with_unlock(unlock, key.as_slice(), &id)),
            key_by_passphrase: BASE64.encode(&by_passphrase),
        };
        file.check = Some(file.checked_by(&keys));
        Ok((keys, file))
    }

    /// Unwraps the keys in `store.toml`; `dir` is for messages.
    pub(crate) fn open(file: &StoreFile, unlock: &Unlock<'_>, dir: &Path) -> StoreResult<Self> {
        let key = file.store_key(unlock, dir)?;
        let damaged = || StoreError::damaged(&dir.join("store.toml"), 0, "the store key has not 32 octets");
        Ok(Self::of_family(file.id(dir)?, file.wrap_id(dir)?, key.expose().try_into().map_err(|_| damaged())?))
    }
}

impl StoreFile {
    /// `store.toml` of another store that opens with the same unlock key and passphrase as this one.
    pub(crate) fn sibling(&self, name: &str, unlock: &Unlock<'_>, dir: &Path) -> StoreResult<Self> {
        let mut file = Self {
            check: None,
            version: VERSION_OF_FAMILY,
            id: HEXLOWER.encode(&random::<16>()),
            name: name.to_owned(),
            state: "normal".to_owned(),
            root: Some(HEXLOWER.encode(&self.wrap_id(dir)?)),
            key_by_unlock: self.key_by_unlock.clone(),
            key_by_passphrase: self.key_by_passphrase.clone(),
        };
        file.check = Some(file.checked_by(&Keyring::open(&file, unlock, dir)?));
        Ok(file)
    }

    /// Wraps the store key by another unlock key, after the recovery passphrase opened it.
    pub(crate) fn rewrap(&mut self, passphrase: &Password, unlock: &UnlockKey, dir: &Path) -> StoreResult<()> {
        let key = self.store_key(&Unlock::Passphrase(passphrase), dir)?;
        self.key_by_unlock = BASE64.encode(&wrap_with_unlock(unlock, key.expose(), &self.wrap_id(dir)?));
        self.check = Some(self.checked_by(&Keyring::open(self, &Unlock::Key(unlock), dir)?));
        Ok(())
    }

    /// What [`Self::check`] must be.
    pub(crate) fn checked_by(&self, keys: &Keyring) -> String {
        let version = self.version.to_be_bytes();
        let texts = [&self.id, &self.name, &self.state, &self.key_by_unlock, &self.key_by_passphrase];
        let mut fields: Vec<&[u8]> =
            std::iter::once(version.as_slice()).chain(texts.map(|text| text.as_bytes())).collect();
        fields.extend(self.root.iter().map(|root| root.as_bytes()));
        HEXLOWER.encode(&keys.name("store.toml", &fields))
    }

    /// The id that the wraps are bound to.
    fn wrap_id(&self, dir: &Path) -> StoreResult<[u8; 16]> {
        let Some(root) = &self.root else { return self.id(dir) };
        let id = HEXLOWER.decode(root.as_bytes()).ok().and_then(|id| id.try_into().ok());
        id.ok_or_else(|| StoreError::damaged(&dir.join("store.toml"), 0, "`root` is not 32 hex digits"))
    }

    pub(crate) fn id(&self, dir: &Path) -> StoreResult<[u8; 16]> {
        let id = HEXLOWER.decode(self.id.as_bytes()).ok().and_then(|id| id.try_into().ok());
        id.ok_or_else(|| StoreError::damaged(&dir.join("store.toml"), 0, "`id` is not 32 hex digits"))
    }

    fn store_key(&self, unlock: &Unlock<'_>, dir: &Path) -> StoreResult<SecretBytes> {
        let path = dir.join("store.toml");
        let damaged = |detail: &str| StoreError::damaged(&path, 0, detail);
        let octets = |text: &str, what: &str| {
            BASE64.decode(text.as_bytes()).map_err(|_| damaged(&format!("`{what}` is not base64")))
        };
        let id = self.wrap_id(dir)?;
        match unlock {
            Unlock::Key(unlock) => {
                let wrapped = octets(&self.key_by_unlock, "key_by_unlock")?;
                unwrap_with_unlock(unlock, &wrapped, &id)
                    .ok_or_else(|| damaged("`key_by_unlock` is cut short"))?
                    .ok_or_else(|| StoreError::WrongKey { with: "unlock key", store: dir.to_owned() })
            }
            Unlock::Passphrase(passphrase) => {
                let wrapped = octets(&self.key_by_passphrase, "key_by_passphrase")?;
                unwrap_key(passphrase, &wrapped, &context(&id)).map_err(|error| match error {
                    UnwrapError::WrongKey => {
                        StoreError::WrongKey { with: "recovery passphrase", store: dir.to_owned() }
                    }
                    other => damaged(&format!("`key_by_passphrase`: {other}")),
                })
            }
        }
    }
}

fn context(id: &[u8; 16]) -> Vec<u8> {
    [CONTEXT, id].concat()
}

fn unlock_cipher(unlock: &UnlockKey) -> SealKey {
    SealKey::derive("postkeep 2026 unlock key wraps store key v1", unlock.expose())
}

fn wrap_with_unlock(unlock: &UnlockKey, key: &[u8], id: &[u8; 16]) -> Vec<u8> {
    let nonce = random::<NONCE>();
    let sealed = unlock_cipher(unlock).seal(nonce, key, &[UNLOCK_MAGIC, &context(id)].concat());
    [UNLOCK_MAGIC, &nonce, &sealed].concat()
}

/// `None`: not a wrapped key; `Some(None)`: another key.
fn unwrap_with_unlock(unlock: &UnlockKey, wrapped: &[u8], id: &[u8; 16]) -> Option<Option<SecretBytes>> {
    let (nonce, sealed) = wrapped.strip_prefix(UNLOCK_MAGIC)?.split_first_chunk::<NONCE>()?;
    let plain = unlock_cipher(unlock).open(*nonce, sealed, &[UNLOCK_MAGIC, &context(id)].concat());
    Some(plain.map(SecretBytes::new))
}
