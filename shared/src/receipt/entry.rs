//! One ledger entry: 276 octets, signed, chained to the entry before it (`docs/formats/ledger.md`).

use crate::mail::{Digest, MailboxId, Uidl};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Octets of an encoded entry of [`VERSION`].
pub const ENTRY_LEN: usize = 276;
/// The version this code writes.
pub const VERSION: u8 = 1;

const SIGNED: usize = 208;
const SIGNATURE_END: usize = SIGNED + 64;

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is on stable storage here; the sender gets `250` after this.
    Accepted,
    /// A client removed it at QUIT.
    Removed,
    /// It came with another node's spool.
    MovedIn,
    /// It left with this node's spool.
    MovedOut,
}

/// Facts about a message, as a bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The content ends with CRLF; without it RETR adds one that [`EntryBody::size`] does not count.
    pub const ENDS_WITH_CRLF: Self = Self(1);
    /// The content holds a CR or LF outside a CRLF, which line-based clients may change.
    pub const BARE_LINE_END: Self = Self(2);
    /// Found whole in the spool without an entry at start, and adopted. Nobody was told that it was accepted. It was
    /// entered without the key: [`EntryBody::size`] and [`EntryBody::digest`] are zero and mean "not measured", and
    /// neither [`Self::ENDS_WITH_CRLF`] nor [`Self::BARE_LINE_END`] is ever set. `sealed_content` and
    /// `sealed_sha256` are exact.
    pub const RECOVERED: Self = Self(4);
    /// The source rules did not fit the sender.
    pub const UNVERIFIED: Self = Self(8);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A node's Ed25519 public key: who signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub [u8; 32]);

impl NodeKey {
    /// The node's short name: the first 16 hex digits of the SHA-256 of its key.
    #[must_use]
    pub fn id(&self) -> String {
        Digest::of(&self.0).short(16)
    }
}

/// A node's key in the form that checks signatures: coming to it takes a tenth of the time of a check.
#[derive(Debug, Clone)]
pub struct Verifier {
    node: NodeKey,
    key: VerifyingKey,
}

impl Verifier {
    /// Of this node.
    ///
    /// # Errors
    /// [`EntryError::Signature`]: no key, so that nothing is signed with it.
    pub fn new(node: NodeKey) -> Result<Self, EntryError> {
        let key = VerifyingKey::from_bytes(&node.0).map_err(|_| EntryError::Signature)?;
        Ok(Self { node, key })
    }

    /// Checks that this node signed the entry.
    ///
    /// # Errors
    /// [`EntryError::Signature`].
    pub fn verify(&self, entry: &Entry) -> Result<(), EntryError> {
        let octets = entry.encode();
        let signature = Signature::from_bytes(&entry.signature);
        let checked = self.key.verify_strict(octets.get(..SIGNED).unwrap_or_default(), &signature);
        checked.ok().filter(|()| entry.node == self.node).ok_or(EntryError::Signature)
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id())
    }
}

/// What an entry says, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryBody {
    /// What happened.
    pub event: Event,
    /// Facts about the message.
    pub flags: Flags,
    /// Number within the mailbox on this node, from 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970-01-01 UTC. For people; order is by `seq` alone.
    pub time_ms: u64,
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The message.
    pub uidl: Uidl,
    /// Octets of the message exactly as received.
    pub size: u64,
    /// Octets that were sealed: trace header and message.
    pub sealed_content: u64,
    /// For removals the number of the entry that brought the message in; otherwise 0.
    pub refers_to: u64,
    /// SHA-256 of the sealed file.
    pub sealed_sha256: Digest,
    /// SHA-256 of salt and message; the salt is sealed with the message.
    pub digest: Digest,
    /// [`Entry::hash`] of the entry before, or the hash of the ledger's file header for the first.
    pub prev: Digest,
}

/// A signed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub body: EntryBody,
    /// Who signed it.
    pub node: NodeKey,
    /// Ed25519 over octets 0 to 207 of the encoded entry.
    pub signature: [u8; 64],
}

/// Why octets are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Fewer octets than the entry needs: a torn tail when at the end of a file.
    #[error("entry cut short")]
    Short,
    /// The checksum or a field is wrong.
    #[error("entry damaged")]
    Damaged,
    /// Written by a newer release.
    #[error("entry has version {0}, this program reads version 1; use a newer release")]
    Version(u8),
    /// The signature does not fit the octets and the key.
    #[error("entry signature is wrong")]
    Signature,
}

impl EntryBody {
    /// Signs the body.
    #[must_use]
    pub fn sign(self, key: &SigningKey) -> Entry {
        let node = NodeKey(key.verifying_key().to_bytes());
        let mut entry = Entry { body: self, node, signature: [0; 64] };
        let octets = entry.encode();
        entry.signature = key.sign(octets.get(..SIGNED).unwrap_or_default()).to_bytes();
        entry
    }
}

impl Entry {
    /// Whether `size` and `digest` were measured. Where not ([`Flags::RECOVERED`]) a message cannot be compared with its
    /// entry by them: the trace header's evidence and age's authentication are what there is.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        !self.body.flags.has(Flags::RECOVERED)
    }

    /// Whether a message of `size` octets with this SHA-256 of salt and message is the entry's. `None` where the entry has none to compare with
    /// ([`Self::is_measured`]).
    #[must_use]
    pub fn fits(&self, size: u64, salted_digest: Digest) -> Option<bool> {
        self.is_measured().then(|| self.body.size == size && self.body.digest == salted_digest)
    }

    /// The octets of the entry, all integers big-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let body = &self.body;
        let event = match body.event {
            Event::Accepted => 1,
            Event::Removed => 2,
            Event::MovedIn => 3,
            Event::MovedOut => 4,
        };
        let mut out = Vec::with_capacity(ENTRY_LEN);
        out.extend_from_slice(&(ENTRY_LEN as u32).to_be_bytes());
        out.extend_from_slice(&[VERSION, event]);
        out.extend_from_slice(&body.flags.0.to_be_bytes());
        out.extend_from_slice(&body.seq.to_be_bytes());
        out.extend_from_slice(&body.time_ms.to_be_bytes());
        out.extend_from_slice(&body.mailbox.0);
        out.extend_from_slice(&body.uidl.0);
        out.extend_from_slice(&body.size.to_be_bytes());
        out.extend_from_slice(&body.sealed_content.to_be_bytes());
        out.extend_from_slice(&body.refers_to.to_be_bytes());
        out.extend_from_slice(&body.sealed_sha256.0);
        out.extend_from_slice(&body.digest.0);
        out.extend_from_slice(&body.prev.0);
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.signature);
        let sum = Digest::of(&out).0;
        out.extend_from_slice(sum.get(..4).unwrap_or_default());
        let mut octets = [0; ENTRY_LEN];
        octets.copy_from_slice(&out);
        octets
    }

    /// Reads the entry at the start of `octets`; what follows it is ignored. The signature is not checked here.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(octets: &[u8]) -> Result<Self, EntryError> {
        let mut reader = Reader(octets);
        let length = u32::from_be_bytes(reader.take()?);
        let [version, event] = reader.take()?;
        if version == 0 || length < 8 {
            return Err(EntryError::Damaged);
        }
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        if length as usize != ENTRY_LEN {
            return Err(EntryError::Damaged);
        }
        let whole = octets.get(..ENTRY_LEN).ok_or(EntryError::Short)?;
        let (signed, sum) = whole.split_at(SIGNATURE_END);
        if Digest::of(signed).0.get(..4) != Some(sum) {
            return Err(EntryError::Damaged);
        }
        let event = match event {
            1 => Event::Accepted,
            2 => Event::Removed,
            3 => Event::MovedIn,
            4 => Event::MovedOut,
            _ => return Err(EntryError::Damaged),
        };
        let body = EntryBody {
            event,
            flags: Flags(u16::from_be_bytes(reader.take()?)),
            seq: u64::from_be_bytes(reader.take()?),
            time_ms: u64::from_be_bytes(reader.take()?),
            mailbox: MailboxId(reader.take()?),
            uidl: Uidl(reader.take()?),
            size: u64::from_be_bytes(reader.take()?),
            sealed_content: u64::from_be_bytes(reader.take()?),
            refers_to: u64::from_be_bytes(reader.take()?),
            sealed_sha256: Digest(reader.take()?),
            digest: Digest(reader.take()?),
            prev: Digest(reader.take()?),
        };
        Ok(Self { body, node: NodeKey(reader.take()?), signature: reader.take()? })
    }

    /// SHA-256 of octets 0 to 271 (all but the checksum): what the next entry names as `prev`.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.encode().get(..SIGNATURE_END).unwrap_or_default())
    }

    /// Checks the signature against the key in the entry; whether that key is the expected node is the caller's
    /// question.
    ///
    /// # Errors
    /// [`EntryError::Signature`].
    pub fn verify(&self) -> Result<(), EntryError> {
        Verifier::new(self.node)?.verify(self)
    }

    /// Octets that RETR sends for this message, dot-stuffing not counted: trace header with receipt, message, and
    /// a CRLF where the entry does not say that the message ends with one. A recovered message gets that CRLF in any
    /// case, since nobody knows how it ends.
    #[must_use]
    pub fn retr_size(&self) -> u64 {
        let crlf = if self.body.flags.has(Flags::ENDS_WITH_CRLF) { 0 } else { 2 };
        self.xretr_size() + crlf
    }

    /// Octets that XRETR sends: as [`Self::retr_size`], without the added CRLF.
    #[must_use]
    pub fn xretr_size(&self) -> u64 {
        self.body.sealed_content + super::write_receipt_field(self).len() as u64
    }
}

/// Takes fixed-size fields off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        EntryBody {
            event: Event::Accepted,
            flags: Flags::ENDS_WITH_CRLF,
            seq: 7,
            time_ms: 1_787_044_443_123,
            mailbox: MailboxId([0x11; 16]),
            uidl: Uidl([0x22; 16]),
            size: 2858,
            sealed_content: 3300,
            refers_to: 0,
            sealed_sha256: Digest([0x33; 32]),
            digest: Digest([0x44; 32]),
            prev: Digest([0x55; 32]),
        }
        .sign(&SigningKey::from_bytes(&[9; 32]))
    }

    #[test]
    fn reads_back_and_verifies() {
        let entry = sample();
        let octets = entry.encode();
        let read = Entry::decode(&octets).expect("whole");
        assert_eq!(read, entry);
        assert_eq!(read.verify(), Ok(()));
        assert_eq!(entry.retr_size(), entry.xretr_size());
    }

    #[test]
    fn every_changed_octet_and_every_cut_is_noticed() {
        let octets = sample().encode();
        for at in 0..octets.len() {
            let mut changed = octets;
            changed[at] ^= 0x40;
            assert!(Entry::decode(&changed).is_err(), "octet {at}");
            assert!(Entry::decode(&octets[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Entry::decode(&[0; ENTRY_LEN]), Err(EntryError::Damaged));
    }

    #[test]
    fn a_body_signed_by_another_key_is_noticed() {
        let mut entry = sample();
        entry.node = NodeKey(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        assert_eq!(entry.verify(), Err(EntryError::Signature));
        let mut entry = sample();
        entry.body.seq = 8;
        assert_eq!(entry.verify(), Err(EntryError::Signature));
        let other = SigningKey::from_bytes(&[8; 32]);
        let verifier = Verifier::new(NodeKey(other.verifying_key().to_bytes())).expect("a key");
        assert_eq!(verifier.verify(&sample()), Err(EntryError::Signature));
        assert_eq!(verifier.verify(&sample().body.sign(&other)), Ok(()));
    }
}
