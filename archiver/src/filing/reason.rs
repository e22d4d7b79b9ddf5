//! Why a message is in an archive: kept with every appearance, for whoever asks later.

use serde::{Deserialize, Serialize};

/// Which part of the envelope concerns the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The envelope's sender.
    Sender,
    /// The one it was sent for.
    OnBehalfOf,
    /// An address it was delivered to.
    Recipient,
}

/// Which rule led from the address to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// One of the owner's `addresses`.
    Address,
    /// One of the owner's `aliases`.
    Alias,
    /// One of the owner's `x500` names, as such or encapsulated (`IMCEAEX-…`).
    X500,
    /// An address of the owner with a detail behind the separator (`ann+tag@`).
    SubAddress,
}

/// One reason for one appearance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// Which part of the envelope.
    pub part: Part,
    /// The address as it stands there.
    pub address: String,
    /// Which rule.
    pub rule: Rule,
    /// The owner's address that the rule led to, where it is spelt otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}
