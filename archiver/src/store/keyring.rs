//! The keys derived from a store's keys (`docs/formats/keys.md`).
//!
//! Every use has its own subkey (`blake3::derive_key`), so that no octet of one use means anything in another. What wraps
//! the keys is `store.toml` (`store_file.rs`).

use super::format::copy::is_copy;
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, AeadInOut as _, Payload},
};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

/// Octets of a nonce.
pub const NONCE: usize = 24;
/// Octets that sealing adds.
pub const TAG: usize = 16;

/// Octets of the hash that are left in the name of a copy of records; zeros follow.
const COPY_ID: usize = 24;

/// Whether a chunk of this name is a copy of records. A part of a message can look like one; it is kept like one, too.
#[must_use]
pub fn is_copy_id(id: &[u8]) -> bool {
    id.ends_with(&[0; 32 - COPY_ID])
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
    /// Seals catalog values.
    pub catalog: SealKey,
    ids: Zeroizing<[u8; 32]>,
    /// Checks `store.toml`.
    check: Zeroizing<[u8; 32]>,
    /// By number; the first is made of the store key itself.
    epochs: Vec<EpochKeys>,
}

/// What seals the packs and record files of one key epoch: a rotation begins the next one for what is written from
/// then on.
pub struct EpochKeys {
    /// Seals pack frames.
    pub pack: SealKey,
    /// Seals records.
    pub record: SealKey,
}

impl SealKey {
    pub(crate) fn derive(context: &str, key: &[u8]) -> Self {
        Self(XChaCha20Poly1305::new((&*Zeroizing::new(blake3::derive_key(context, key))).into()))
    }

    /// Encrypts; the result is [`TAG`] octets longer.
    ///
    /// # Panics
    /// Never: the cipher fails only beyond 256 GiB.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE], plain: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        self.seal_behind(nonce, plain, aad, &mut sealed);
        sealed
    }

    /// As [`Self::seal`], behind what stands in `out` already.
    ///
    /// # Panics
    /// Never, as [`Self::seal`].
    pub(crate) fn seal_behind(&self, nonce: [u8; NONCE], plain: &[u8], aad: &[u8], out: &mut Vec<u8>) {
        out.reserve_exact(plain.len() + TAG);
        let start = out.len();
        out.extend_from_slice(plain);
        let inner = out.get_mut(start..).unwrap_or_default();
        let tag = self.0.encrypt_inout_detached(&XNonce::from(nonce), aad, inner.into());
        out.extend_from_slice(&tag.expect("less than 256 GiB at a time"));
    }

    /// Decrypts; `None` when key, nonce, octets or `aad` are not those of the sealing.
    #[must_use]
    pub fn open(&self, nonce: [u8; NONCE], sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad }).ok()
    }

    /// As [`Self::open`], in the memory of `sealed`.
    pub(crate) fn open_within(&self, nonce: [u8; NONCE], mut sealed: Vec<u8>, aad: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt_in_place(&XNonce::from(nonce), aad, &mut sealed).ok()?;
        Some(sealed)
    }
}

impl EpochKeys {
    fn derive(key: &[u8; 32]) -> Self {
        Self {
            pack: SealKey::derive("postkeep 2026 store key pack v1", key),
            record: SealKey::derive("postkeep 2026 store key record v1", key),
        }
    }
}

impl Keyring {
    /// The keys derived from a store key.
    #[must_use]
    pub fn derive(id: [u8; 16], store_key: &[u8; 32]) -> Self {
        Self {
            id,
            family: id,
            catalog: SealKey::derive("postkeep 2026 store key catalog v1", store_key),
            ids: Zeroizing::new(blake3::derive_key("postkeep 2026 store key ids v1", store_key)),
            check: Zeroizing::new(blake3::derive_key("postkeep 2026 store key check v1", store_key)),
            epochs: vec![EpochKeys::derive(store_key)],
        }
    }

    /// Begins a further epoch with its own 32 random octets. Names of chunks and messages stay: they are made of the
    /// store key.
    pub fn add_epoch(&mut self, key: &[u8; 32]) {
        self.epochs.push(EpochKeys::derive(key));
    }

    /// The keys of an epoch; `None` when `store.toml` does not hold it.
    #[must_use]
    pub fn epoch(&self, epoch: u32) -> Option<&EpochKeys> {
        self.epochs.get(usize::try_from(epoch).ok()?)
    }

    /// The epoch that new packs and record files belong to.
    #[must_use]
    pub fn current(&self) -> u32 {
        u32::try_from(self.epochs.len() - 1).unwrap_or(u32::MAX)
    }

    /// Name of octets in packs: keyed, so that nobody without the key can test for the presence of a known file.
    /// That of a copy of records ends with zeros ([`is_copy_id`]), so that names alone tell content from copies.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> [u8; 32] {
        let mut id = self.chunk_hash(plain);
        if is_copy(plain) {
            id.iter_mut().skip(COPY_ID).for_each(|octet| *octet = 0);
        }
        id
    }

    /// The keyed hash of any octets: the name of every chunk in packs of version 1, which hold no copies.
    #[must_use]
    pub fn chunk_hash(&self, plain: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.ids, plain).as_bytes()
    }

    /// Whether this is the name of these octets, in packs of any version.
    #[must_use]
    pub fn is_named(&self, id: &[u8; 32], plain: &[u8]) -> bool {
        self.chunk_id(plain) == *id || self.chunk_hash(plain) == *id
    }

    /// As [`Self::chunk_id`], for octets that come in pieces.
    #[must_use]
    pub fn chunk_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.ids)
    }

    /// Keyed name of a list of fields for one use: no two lists give the same octets to hash.
    #[must_use]
    pub fn name(&self, purpose: &str, fields: &[&[u8]]) -> [u8; 32] {
        name(&self.ids, purpose, fields)
    }

    /// What people call a message: 32 hex digits, derived from its SHA-256.
    #[must_use]
    pub fn message_id(&self, sha256: &[u8; 32]) -> String {
        HEXLOWER.encode(self.name("message id", &[sha256]).get(..16).unwrap_or_default())
    }

    /// As [`Self::name`], with the key that checks `store.toml`: that of the last epoch, so that an old key makes none.
    pub(crate) fn check(&self, fields: &[&[u8]]) -> [u8; 32] {
        name(&self.check, "store.toml", fields)
    }

    /// The keys of a store: names of chunks and messages come from its family's first root key, so that they stay the
    /// same in every epoch and store; the rest from its own keys, one for each epoch. `None` without any.
    pub(crate) fn of_epochs(
        id: [u8; 16],
        family: [u8; 16],
        first: &[u8; 32],
        own: &[Zeroizing<[u8; 32]>],
    ) -> Option<Self> {
        let last = own.last()?;
        let mut keys = Self::derive(id, own.first()?);
        keys.family = family;
        keys.ids = Zeroizing::new(blake3::derive_key("postkeep 2026 store key ids v1", first));
        keys.catalog = SealKey::derive("postkeep 2026 store key catalog v1", last.as_slice());
        keys.check = Zeroizing::new(blake3::derive_key("postkeep 2026 store key check v1", last.as_slice()));
        own.iter().skip(1).for_each(|key| keys.add_epoch(key));
        Some(keys)
    }
}

/// Keyed hash of a list of fields for one use.
fn name(key: &[u8; 32], purpose: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"postkeep name\0");
    for field in [purpose.as_bytes()].iter().chain(fields) {
        hasher.update(&(field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    *hasher.finalize().as_bytes()
}
