//! Bundles: mailboxes, or a whole node's settings, in one file (`docs/formats/bundle.md`).
//!
//! Lines of JSON between a first line that names the version and a last one with the node's signature over everything
//! before it; optionally all of it sealed as an age file. Invariants: no secret stands in a bundle that is not sealed;
//! one changed octet and nothing of it is believed. Who may be believed is the caller's question.

use crate::{
    mailbox::{EscrowIdentity, Portable},
    node::Node,
};
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use postkeep_shared::receipt::NodeKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Octets of the largest bundle that is read.
pub const MAX_BUNDLE: u64 = 256 * 1024 * 1024;
const FIRST_LINE: &[u8] = b"postkeep-bundle-v1\n";
const ANY_FIRST_LINE: &[u8] = b"postkeep-bundle-v";
const SEALED: &[u8] = b"age-encryption.org/";
const SIGNATURE: &[u8] = b"signature ";
/// `signature `, 64 octets in base64, line end.
const LAST_LINE: usize = SIGNATURE.len() + 88 + 1;

/// What a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Mailboxes for another node.
    Mailboxes,
    /// A node's settings, for the day it is gone.
    Backup,
}

/// The second line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// What it is for.
    pub purpose: Purpose,
    /// Public key of the node that made it, hex.
    pub node: String,
    /// When, RFC 3339.
    pub created: String,
    /// How many items follow.
    pub items: usize,
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Item {
    /// A mailbox: public parts, wrapped keys, settings.
    Mailbox(Portable),
    /// A mailbox that was deleted.
    Deleted(String),
    /// The configuration file and where the node kept its data.
    Config {
        /// The file's text.
        text: String,
        /// The data directory, absolute.
        data_dir: String,
    },
    /// How far a ledger went.
    Ledger {
        /// The mailbox.
        mailbox: String,
        /// Number of its last entry.
        seq: u64,
        /// That entry's hash, hex.
        hash: String,
    },
    /// A secret file; only in sealed bundles.
    Secret(SecretFile),
}

/// A file with a secret in it. Wiped when dropped, no `Debug`.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Path within the data directory.
    pub name: String,
    /// Content in base64.
    pub octets: String,
}

/// A bundle that was read and whose signature holds.
pub struct Bundle {
    /// The second line.
    pub header: Header,
    /// Who signed it.
    pub node: NodeKey,
    /// The other lines.
    pub items: Vec<Item>,
}

/// Why a file is no bundle that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Something else.
    #[error("is not a bundle of postkeep-gateway")]
    Other,
    /// Of a later release.
    #[error("is a bundle of another version, this program reads version 1; use a newer release")]
    Version,
    /// Changed or cut.
    #[error("was changed or cut: {0}; nothing of it was used")]
    Damaged(String),
    /// An identity is needed.
    #[error("is sealed; name the identity file that opens it with --identity")]
    Sealed,
    /// Another identity is needed.
    #[error("does not open with this identity, or was changed; nothing of it was used")]
    WrongIdentity,
    /// Not a recipient.
    #[error("the recipient is not an age X25519 recipient; give one that starts with age1")]
    Recipient,
    /// A secret in the open.
    #[error("holds a secret without being sealed; nothing of it was used")]
    Exposed,
}

/// Writes and signs a bundle.
///
/// # Errors
/// [`BundleError`].
pub fn write(
    purpose: Purpose,
    created: String,
    items: &[Item],
    node: &Node,
) -> Result<Zeroizing<Vec<u8>>, BundleError> {
    let unwritable = |e: serde_json::Error| BundleError::Damaged(e.to_string());
    let header = Header { purpose, node: HEXLOWER.encode(&node.public().0), created, items: items.len() };
    let mut out = Zeroizing::new(FIRST_LINE.to_vec());
    out.extend_from_slice(&serde_json::to_vec(&header).map_err(unwritable)?);
    out.push(b'\n');
    for item in items {
        let line = Zeroizing::new(serde_json::to_vec(item).map_err(unwritable)?);
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
    let signature = BASE64.encode(&node.signing_key().sign(&out).to_bytes());
    out.extend_from_slice(&[SIGNATURE, signature.as_bytes(), b"\n"].concat());
    Ok(out)
}

/// Seals a bundle to an age recipient.
///
/// # Errors
/// [`BundleError::Recipient`].
pub fn seal(bundle: &[u8], recipient: &str) -> Result<Vec<u8>, BundleError> {
    let recipient: age::x25519::Recipient = recipient.trim().parse().map_err(|_| BundleError::Recipient)?;
    age::encrypt(&recipient, bundle).map_err(|e| BundleError::Damaged(e.to_string()))
}

/// Reads a bundle, sealed or not.
///
/// # Errors
/// [`BundleError`].
pub fn read(octets: &[u8], identity: Option<&EscrowIdentity>) -> Result<Bundle, BundleError> {
    if !octets.starts_with(SEALED) {
        let bundle = read_open(octets)?;
        let exposed = bundle.items.iter().any(|item| matches!(item, Item::Secret(_)));
        return if exposed { Err(BundleError::Exposed) } else { Ok(bundle) };
    }
    let identity = identity.ok_or(BundleError::Sealed)?;
    read_open(&identity.open(octets, MAX_BUNDLE).ok_or(BundleError::WrongIdentity)?)
}

fn read_open(octets: &[u8]) -> Result<Bundle, BundleError> {
    let damaged = |what: &str| BundleError::Damaged(what.to_owned());
    let Some(rest) = octets.strip_prefix(FIRST_LINE) else {
        return Err(if octets.starts_with(ANY_FIRST_LINE) { BundleError::Version } else { BundleError::Other });
    };
    let split = octets.len().checked_sub(LAST_LINE).ok_or_else(|| damaged("its end is missing"))?;
    let (signed, last) = octets.split_at(split);
    let signature = last.strip_prefix(SIGNATURE).and_then(|l| l.strip_suffix(b"\n"));
    let signature = signature.and_then(|text| BASE64.decode(text).ok());
    let signature = signature.and_then(|octets| Signature::from_slice(&octets).ok());
    let signature = signature.ok_or_else(|| damaged("it does not end with a signature"))?;
    let body = rest.get(..rest.len().saturating_sub(LAST_LINE)).unwrap_or_default();
    let mut lines = body.split_inclusive(|octet| *octet == b'\n');
    let unreadable = |e: serde_json::Error| BundleError::Damaged(e.to_string());
    let header: Header = serde_json::from_slice(lines.next().unwrap_or_default()).map_err(unreadable)?;
    let node = HEXLOWER.decode(header.node.as_bytes()).ok().and_then(|octets| octets.try_into().ok());
    let node = NodeKey(node.ok_or_else(|| damaged("it names no node"))?);
    let key = VerifyingKey::from_bytes(&node.0).map_err(|_| damaged("it names no node"))?;
    key.verify_strict(signed, &signature).map_err(|_| damaged("its signature is wrong"))?;
    let items = lines.map(serde_json::from_slice).collect::<Result<Vec<Item>, _>>().map_err(unreadable)?;
    if items.len() != header.items {
        return Err(damaged("items are missing"));
    }
    Ok(Bundle { header, node, items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailboxes;
    use postkeep_shared::disk::LocalDisk;
    use std::sync::Arc;

    fn bundle(secret: bool) -> (Vec<u8>, EscrowIdentity, String) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
        let (mailbox, password) = all.create("example", None).expect("makes");
        let identity = mailbox.unlock(&password.expect("made one")).expect("opens");
        let mut items = vec![Item::Mailbox(mailbox.to_portable().expect("writes"))];
        if secret {
            items.push(Item::Secret(SecretFile { name: "node.key".into(), octets: "AAAA".into() }));
        }
        let text = write(Purpose::Mailboxes, "2026-11-21T21:23:28Z".into(), &items, all.node()).expect("writes");
        let opened = EscrowIdentity::from_text(&identity.to_text()).expect("an identity");
        (text.to_vec(), opened, identity.recipient())
    }

    #[test]
    fn every_changed_octet_and_every_cut_is_refused() {
        let (octets, identity, recipient) = bundle(false);
        assert_eq!(read(&octets, None).expect("reads").items.len(), 1);
        let sealed = seal(&octets, &recipient).expect("seals");
        assert!(matches!(read(&sealed, None), Err(BundleError::Sealed)));
        assert_eq!(read(&sealed, Some(&identity)).expect("reads").items.len(), 1);
        for whole in [&octets, &sealed] {
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                assert!(read(&changed, Some(&identity)).is_err(), "octet {at}");
            }
            for cut in (0..whole.len()).step_by(7) {
                assert!(read(&whole[..cut], Some(&identity)).is_err(), "cut at {cut}");
            }
            assert!(read(&[whole.as_slice(), b"\n"].concat(), Some(&identity)).is_err());
        }
    }

    #[test]
    fn a_secret_must_be_sealed() {
        let (octets, identity, recipient) = bundle(true);
        assert!(matches!(read(&octets, None), Err(BundleError::Exposed)));
        assert_eq!(read(&seal(&octets, &recipient).expect("seals"), Some(&identity)).expect("reads").items.len(), 2);
    }
}
