//! What opens a store without a person: the unlock key file (`docs/formats/pack.md`, keys).

use super::{EscrowIdentity, StoreError, StoreResult};
use data_encoding::BASE64;
use postkeep_shared::{
    crypt::{Password, SecretBytes, random},
    disk::{Disk, write_new_file},
};
use std::path::Path;
use zeroize::Zeroizing;

const FIRST_LINE: &str = "postkeep-unlock-key-v1";

/// 32 secret octets that unwrap store keys; lies beside the stores, readable by the service alone (0600).
pub struct UnlockKey(SecretBytes);

/// How a store is opened.
pub enum Unlock<'a> {
    /// With the key file of the service.
    Key(&'a UnlockKey),
    /// With the recovery passphrase that was shown when the store was made.
    Passphrase(&'a Password),
    /// With the identity of its escrow.
    Escrow(&'a EscrowIdentity),
}

impl UnlockKey {
    /// Makes a key and writes it to `path`, which must not exist.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn create(path: &Path, disk: &dyn Disk) -> StoreResult<Self> {
        let key = Self::random();
        key.save(path, disk)?;
        Ok(key)
    }

    /// A key that no file holds yet.
    pub(crate) fn random() -> Self {
        let octets: Zeroizing<[u8; 32]> = Zeroizing::new(random());
        Self(SecretBytes::new(octets.to_vec()))
    }

    /// Writes the key to `path`, which must not exist.
    pub(crate) fn save(&self, path: &Path, disk: &dyn Disk) -> StoreResult<()> {
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", BASE64.encode(self.expose())));
        Ok(write_new_file(disk, path, text.as_bytes())?)
    }

    /// Reads the key file; it must be readable by its owner only.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`] says what is wrong with it.
    pub fn load(path: &Path, disk: &dyn Disk) -> StoreResult<Self> {
        let error = |detail: &str| StoreError::KeyFile { path: path.to_owned(), detail: detail.to_owned() };
        let entry = disk.entry(path).map_err(|e| match e.is_missing() {
            true => error("not there; restore it from a backup, or make another with `store unlock`"),
            false => e.into(),
        })?;
        if entry.mode & 0o077 != 0 {
            return Err(error("others than its owner may read this key file; run `chmod 600` on it"));
        }
        let text = Zeroizing::new(disk.read(path, 4096)?);
        let not_one = || error("not an unlock key file; move it away and make another with `store unlock`");
        let text = std::str::from_utf8(&text).map_err(|_| not_one())?;
        let rest = text.strip_prefix(FIRST_LINE).ok_or_else(not_one)?;
        let octets = BASE64.decode(rest.trim().as_bytes()).map_err(|_| not_one())?;
        if octets.len() != 32 {
            return Err(not_one());
        }
        Ok(Self(SecretBytes::new(octets)))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}
