//! A ledger file's first 64 octets.

use postkeep_shared::{
    mail::{Digest, MailboxId},
    receipt::NodeKey,
};

/// Octets of the header; the first entry follows.
pub const HEADER_LEN: usize = 64;
const MAGIC: &[u8; 8] = b"PKLEDGR1";

/// Whose ledger a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The node that signs the entries.
    pub node: NodeKey,
    /// When the file was made, milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
}

impl Header {
    /// The octets; integers big-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let fields = [MAGIC.as_slice(), &self.mailbox.0, &self.node.0, &self.created_ms.to_be_bytes()].concat();
        out.copy_from_slice(&fields);
        out
    }

    /// Reads a header; `None` when the octets are none of this version.
    #[must_use]
    pub fn decode(octets: &[u8; HEADER_LEN]) -> Option<Self> {
        let rest = octets.strip_prefix(MAGIC)?;
        let (mailbox, rest) = rest.split_first_chunk::<16>()?;
        let (node, rest) = rest.split_first_chunk::<32>()?;
        let created_ms = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { mailbox: MailboxId(*mailbox), node: NodeKey(*node), created_ms })
    }

    /// What the first entry names as the hash before it: SHA-256 of the 64 octets.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back() {
        let header = Header { mailbox: MailboxId([1; 16]), node: NodeKey([2; 32]), created_ms: 3 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let mut changed = header.encode();
        changed[7] = b'2';
        assert_eq!(Header::decode(&changed), None);
    }
}
