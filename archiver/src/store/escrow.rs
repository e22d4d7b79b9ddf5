//! The escrow of a store: its keys sealed to an age recipient whose identity is kept offline, for the day on which
//! unlock key and recovery passphrase are both lost (`docs/formats/keys.md`).

use super::{StoreError, StoreResult};
use postkeep_shared::disk::Disk;
use std::{io::Read as _, path::Path};
use zeroize::Zeroizing;

/// No wrapped set of keys is larger.
const LIMIT: u64 = 64 * 1024;

/// The escrow's secret: what an age identity file holds.
pub struct EscrowIdentity(Vec<age::x25519::Identity>);

impl EscrowIdentity {
    /// Reads an age identity file: lines of `AGE-SECRET-KEY-1…`, comments behind `#`.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`] says what is wrong with it.
    pub fn load(path: &Path, disk: &dyn Disk) -> StoreResult<Self> {
        let text = Zeroizing::new(disk.read(path, LIMIT)?);
        let none = || StoreError::KeyFile {
            path: path.to_owned(),
            detail: "not an age identity file; it has lines that begin with AGE-SECRET-KEY-1".to_owned(),
        };
        let text = std::str::from_utf8(&text).map_err(|_| none())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|line| line.parse().ok()).collect::<Option<Vec<_>>>().ok_or_else(none)?;
        if keys.is_empty() { Err(none()) } else { Ok(Self(keys)) }
    }

    /// Opens an age file that was sealed to one of the keys. `None`: to another one, or damaged.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let decryptor = age::Decryptor::new_buffered(sealed).ok()?;
        let reader = decryptor.decrypt(self.0.iter().map(|key| key as &dyn age::Identity)).ok()?;
        let mut plain = Zeroizing::new(Vec::with_capacity(4096));
        reader.take(LIMIT).read_to_end(&mut plain).ok()?;
        Some(plain)
    }
}

/// Whether keys can be sealed to this text.
///
/// # Errors
/// [`StoreError::Recipient`].
pub fn check_recipient(recipient: &str) -> StoreResult<()> {
    parse(recipient).map(drop)
}

fn parse(recipient: &str) -> StoreResult<age::x25519::Recipient> {
    recipient.trim().parse().map_err(|_| StoreError::Recipient)
}

/// Seals to a recipient: its text as it is kept, and the age file.
pub(crate) fn seal_to(recipient: &str, plain: &[u8]) -> StoreResult<(String, Vec<u8>)> {
    let recipient = parse(recipient)?;
    let sealed = age::encrypt(&recipient, plain)
        .map_err(|e| StoreError::Failed(format!("the store key cannot be sealed for the escrow: {e}")))?;
    Ok((recipient.to_string(), sealed))
}
