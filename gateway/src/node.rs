//! The node: its Ed25519 key, which signs receipts and mailbox definitions (`docs/formats/keys.md`).
//!
//! Anyone can seal a message to a mailbox's public key; only the node can sign that it took one in.

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use postkeep_shared::{
    crypt::random,
    disk::{self, Disk, DiskError},
    receipt::NodeKey,
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "node.key";
const FIRST_LINE: &str = "postkeep-node-key-v1";

/// A node's secret key. Wiped when dropped.
pub struct Node {
    key: SigningKey,
}

/// Why there is no node key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No key, but mailboxes or ledgers that were signed by one.
    #[error("{} is missing, but there are mailboxes or ledgers signed with it; restore it from a backup", .0.display())]
    Lost(PathBuf),
    /// The directory was never set up.
    #[error("{} is not a data directory of postkeep-gateway; run `postkeep-gateway init` first", .0.display())]
    NoData(PathBuf),
    /// Not a node key.
    #[error("{} is not a node key; restore it from a backup", .0.display())]
    Damaged(PathBuf),
    /// Others could read it.
    #[error("{} can be read by other users; run `chmod 600` on it", .0.display())]
    Exposed(PathBuf),
}

impl Node {
    /// Reads the key of a data directory.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn load(data_dir: &Path, disk: &dyn Disk) -> Result<Self, NodeError> {
        let path = data_dir.join(FILE);
        let entry = match disk.entry(&path) {
            Ok(entry) => entry,
            Err(e) if e.is_missing() && is_used(data_dir, disk) => return Err(NodeError::Lost(path)),
            Err(e) if e.is_missing() => return Err(NodeError::NoData(data_dir.to_owned())),
            Err(e) => return Err(e.into()),
        };
        if entry.mode & 0o077 != 0 {
            return Err(NodeError::Exposed(path));
        }
        let text = Zeroizing::new(disk.read(&path, 1024)?);
        let seed = read_seed(&text).ok_or(NodeError::Damaged(path))?;
        Ok(Self { key: SigningKey::from_bytes(&seed) })
    }

    /// Makes the key of a new data directory.
    ///
    /// # Errors
    /// [`NodeError`]; a directory with a key, mailboxes or ledgers gets no other.
    pub fn create(data_dir: &Path, disk: &dyn Disk) -> Result<Self, NodeError> {
        let path = data_dir.join(FILE);
        if is_used(data_dir, disk) {
            return Err(NodeError::Lost(path));
        }
        disk::create_dirs(disk, data_dir)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(random());
        let encoded = Zeroizing::new(BASE64.encode(seed.as_ref()));
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", encoded.as_str()));
        disk::write_new_file(disk, &path, text.as_bytes())?;
        Ok(Self { key: SigningKey::from_bytes(&seed) })
    }

    /// Reads the key, or makes one where nothing was ever signed.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn load_or_create(data_dir: &Path, disk: &dyn Disk) -> Result<Self, NodeError> {
        match Self::load(data_dir, disk) {
            Err(NodeError::NoData(_)) => Self::create(data_dir, disk),
            other => other,
        }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> NodeKey {
        NodeKey(self.key.verifying_key().to_bytes())
    }

    /// For signing; the borrow must stay short.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

fn is_used(data_dir: &Path, disk: &dyn Disk) -> bool {
    let holds = |name: &str| disk.list(&data_dir.join(name)).is_ok_and(|entries| !entries.is_empty());
    holds("mailboxes") || holds("ledger")
}

fn read_seed(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let octets = Zeroizing::new(BASE64.decode(lines.next()?.as_bytes()).ok()?);
    octets.as_slice().try_into().ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn made_once_and_read_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("data");
        assert!(matches!(Node::load(&data, &LocalDisk), Err(NodeError::NoData(_))));
        let made = Node::load_or_create(&data, &LocalDisk).expect("makes");
        let read = Node::load_or_create(&data, &LocalDisk).expect("reads");
        assert_eq!(made.public(), read.public());
        assert!(Node::create(&data, &LocalDisk).is_err());
    }

    #[test]
    fn lost_exposed_or_damaged_keys_are_told_apart() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (data, path) = (folder.path(), folder.path().join(FILE));
        Node::create(data, &LocalDisk).expect("makes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changes");
        assert!(matches!(Node::load(data, &LocalDisk), Err(NodeError::Exposed(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changes");
        std::fs::write(&path, "postkeep-node-key-v1\nAAAA\n").expect("writes");
        assert!(matches!(Node::load(data, &LocalDisk), Err(NodeError::Damaged(_))));
        std::fs::remove_file(&path).expect("removes");
        std::fs::create_dir_all(data.join("ledger/x")).expect("creates");
        assert!(matches!(Node::load_or_create(data, &LocalDisk), Err(NodeError::Lost(_))));
    }
}
