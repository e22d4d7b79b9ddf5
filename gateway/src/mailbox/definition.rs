//! A mailbox's definition file: TOML, signed by the node (`docs/formats/keys.md`).
//!
//! The signature covers every field, so that nobody who can only write files can put his own recipient into a mailbox.
//! What two nodes may share is a [`Portable`]: everything but the node and its signature.

use super::{Escrow, Mailbox, Revisions, State};
use crate::node::Node;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use postkeep_shared::{
    crypt::wrapped_params,
    mail::{Digest, MailboxId},
    receipt::NodeKey,
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What this program writes.
const VERSION: u32 = 2;
const CONTEXT: [&[u8]; 2] = [b"postkeep mailbox v1\0", b"postkeep mailbox v2\0"];

/// A mailbox without the node that keeps it: bundles and peers exchange these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portable {
    id: String,
    description: String,
    created: String,
    state: String,
    state_revision: u64,
    key_id: String,
    key_revision: u64,
    recipient: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<String>,
    wrapped_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow_recipient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow_identity: Option<String>,
}

/// The file's fields, in the order in which they are written and signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    id: String,
    description: String,
    created: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_revision: Option<u64>,
    key_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_revision: Option<u64>,
    recipient: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<String>,
    wrapped_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow_recipient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow_identity: Option<String>,
    node: String,
    signature: String,
}

/// Short name of a key: the first 16 hex digits of the SHA-256 of the recipient's text.
pub(super) fn key_id(recipient: &str) -> String {
    Digest::of(recipient.as_bytes()).short(16)
}

/// The file's text, signed.
pub(super) fn write(mailbox: &Mailbox, node: &Node) -> Result<String, String> {
    let portable = mailbox.to_portable()?;
    let mut file = File {
        version: VERSION,
        id: portable.id,
        description: portable.description,
        created: portable.created,
        state: portable.state,
        state_revision: Some(portable.state_revision),
        key_id: portable.key_id,
        key_revision: Some(portable.key_revision),
        recipient: portable.recipient,
        earlier: portable.earlier,
        wrapped_key: portable.wrapped_key,
        escrow_recipient: portable.escrow_recipient,
        escrow_identity: portable.escrow_identity,
        node: HEXLOWER.encode(&node.public().0),
        signature: String::new(),
    };
    file.signature = BASE64.encode(&node.signing_key().sign(&file.signed_octets()).to_bytes());
    let toml = toml::to_string(&file).map_err(|e| e.to_string())?;
    Ok(format!("# A Postkeep mailbox. Signed: change it with `postkeep-gateway mailbox`, not by hand.\n{toml}"))
}

/// Reads and checks a file's text against the name of the file and the node's key.
pub(super) fn read(text: &str, id: MailboxId, node: NodeKey) -> Result<Mailbox, String> {
    let file: File = toml::from_str(text).map_err(|e| format!("not a mailbox definition ({})", e.message()))?;
    if !(1..=VERSION).contains(&file.version) {
        return Err(format!("has version {}, this program reads versions 1 and 2; use a newer release", file.version));
    }
    let has_revisions = file.state_revision.is_some() && file.key_revision.is_some();
    if (file.version > 1) != has_revisions || file.version == 1 && !file.earlier.is_empty() {
        return Err("has fields of another version".into());
    }
    file.check_signature(node)?;
    let portable = Portable {
        id: file.id,
        description: file.description,
        created: file.created,
        state: file.state,
        state_revision: file.state_revision.unwrap_or(1),
        key_id: file.key_id,
        key_revision: file.key_revision.unwrap_or(1),
        recipient: file.recipient,
        earlier: file.earlier,
        wrapped_key: file.wrapped_key,
        escrow_recipient: file.escrow_recipient,
        escrow_identity: file.escrow_identity,
    };
    let mailbox = Mailbox::from_portable(portable)?;
    if mailbox.id != id {
        return Err(format!("is the definition of {}", mailbox.id));
    }
    Ok(mailbox)
}

impl Mailbox {
    /// What may leave this node: public parts, wrapped keys, settings. No secret in clear.
    ///
    /// # Errors
    /// A sentence; only a time that cannot be written.
    pub fn to_portable(&self) -> Result<Portable, String> {
        Ok(Portable {
            id: self.id.to_string(),
            description: self.description.clone(),
            created: self.created.format(&Rfc3339).map_err(|e| e.to_string())?,
            state: self.state.name().into(),
            state_revision: self.revisions.state,
            key_id: self.key_id.clone(),
            key_revision: self.revisions.key,
            recipient: self.recipient.clone(),
            earlier: self.earlier.clone(),
            wrapped_key: BASE64.encode(&self.wrapped),
            escrow_recipient: self.escrow.as_ref().map(|e| e.recipient.clone()),
            escrow_identity: self.escrow.as_ref().map(|e| BASE64.encode(&e.sealed_identity)),
        })
    }

    /// Reads and checks what another node gave. Whether that node may be believed is the caller's question.
    ///
    /// # Errors
    /// A sentence: what makes no sense.
    pub fn from_portable(portable: Portable) -> Result<Self, String> {
        let id: MailboxId = portable.id.parse().map_err(|_| "`id` is not a mailbox")?;
        if id.to_string() != portable.id {
            return Err("`id` is not written in lower case".into());
        }
        super::check_description(&portable.description).map_err(|_| "`description` is too long or holds controls")?;
        let created = OffsetDateTime::parse(&portable.created, &Rfc3339).map_err(|_| "`created` is not a time")?;
        let base64 = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| "a field is not base64".to_owned());
        let escrow = match (portable.escrow_recipient, portable.escrow_identity) {
            (Some(recipient), Some(sealed)) => Some(Escrow { recipient, sealed_identity: base64(&sealed)? }),
            (None, None) => None,
            _ => return Err("has only half of the escrow".into()),
        };
        if key_id(&portable.recipient) != portable.key_id {
            return Err("`key_id` does not fit `recipient`".into());
        }
        let is_recipient = |text: &String| text.parse::<age::x25519::Recipient>().is_ok();
        if !std::iter::once(&portable.recipient).chain(&portable.earlier).all(is_recipient)
            || portable.earlier.len() >= super::MAX_KEYS
        {
            return Err("`recipient` or `earlier` is not a list of age recipients".into());
        }
        let wrapped = base64(&portable.wrapped_key)?;
        wrapped_params(&wrapped).map_err(|e| e.to_string())?;
        Ok(Self {
            id,
            description: portable.description,
            created,
            state: State::from_name(&portable.state).ok_or("`state` is neither active nor suspended")?,
            key_id: portable.key_id,
            recipient: portable.recipient,
            earlier: portable.earlier,
            revisions: Revisions { key: portable.key_revision, state: portable.state_revision },
            wrapped,
            escrow,
        })
    }
}

impl File {
    /// Context, then every field but the signature, each with its length as four octets.
    fn signed_octets(&self) -> Vec<u8> {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let (version, earlier) = (self.version.to_string(), self.earlier.join(","));
        let (state_revision, key_revision) = (number(self.state_revision), number(self.key_revision));
        let mut fields = vec![version.as_str(), &self.id, &self.description, &self.created, &self.state];
        let newer = self.version > 1;
        fields.extend(newer.then_some(state_revision.as_str()));
        fields.push(&self.key_id);
        fields.extend(newer.then_some(key_revision.as_str()));
        fields.push(&self.recipient);
        fields.extend(newer.then_some(earlier.as_str()));
        fields.extend([
            self.wrapped_key.as_str(),
            self.escrow_recipient.as_deref().unwrap_or_default(),
            self.escrow_identity.as_deref().unwrap_or_default(),
            &self.node,
        ]);
        let mut out = CONTEXT[usize::from(newer)].to_vec();
        for field in fields {
            out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        out
    }

    fn check_signature(&self, node: NodeKey) -> Result<(), String> {
        if self.node != HEXLOWER.encode(&node.0) {
            return Err("was signed by another node".into());
        }
        let wrong = || "was changed by hand: its signature is wrong".to_owned();
        let signature = BASE64.decode(self.signature.as_bytes()).map_err(|_| wrong())?;
        let signature = Signature::from_slice(&signature).map_err(|_| wrong())?;
        let key = VerifyingKey::from_bytes(&node.0).map_err(|_| wrong())?;
        key.verify_strict(&self.signed_octets(), &signature).map_err(|_| wrong())
    }
}
