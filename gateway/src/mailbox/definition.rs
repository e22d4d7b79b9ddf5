//! A mailbox's definition file: TOML, signed by the node (`docs/formats/keys.md`).
//!
//! The signature covers every field, so that nobody who can only write files can put his own recipient into a mailbox.

use super::{Escrow, Mailbox, State};
use crate::node::Node;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use postkeep_shared::{
    mail::{Digest, MailboxId},
    receipt::NodeKey,
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const VERSION: u32 = 1;
const CONTEXT: &[u8] = b"postkeep mailbox v1\0";

/// The file's fields, in the order in which they are written and signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    id: String,
    description: String,
    created: String,
    state: String,
    key_id: String,
    recipient: String,
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
    let mut file = File {
        version: VERSION,
        id: mailbox.id.to_string(),
        description: mailbox.description.clone(),
        created: mailbox.created.format(&Rfc3339).map_err(|e| e.to_string())?,
        state: mailbox.state.name().into(),
        key_id: mailbox.key_id.clone(),
        recipient: mailbox.recipient.clone(),
        wrapped_key: BASE64.encode(&mailbox.wrapped),
        escrow_recipient: mailbox.escrow.as_ref().map(|e| e.recipient.clone()),
        escrow_identity: mailbox.escrow.as_ref().map(|e| BASE64.encode(&e.sealed_identity)),
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
    if file.version != VERSION {
        return Err(format!("has version {}, this program reads version 1; use a newer release", file.version));
    }
    file.check_signature(node)?;
    if file.id.parse() != Ok(id) {
        return Err(format!("is the definition of {}", file.id));
    }
    let created = OffsetDateTime::parse(&file.created, &Rfc3339).map_err(|_| "`created` is not a time")?;
    let base64 = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| "a field is not base64".to_owned());
    let escrow = match (file.escrow_recipient, file.escrow_identity) {
        (Some(recipient), Some(sealed)) => Some(Escrow { recipient, sealed_identity: base64(&sealed)? }),
        (None, None) => None,
        _ => return Err("has only half of the escrow".into()),
    };
    if key_id(&file.recipient) != file.key_id {
        return Err("`key_id` does not fit `recipient`".into());
    }
    Ok(Mailbox {
        id,
        description: file.description,
        created,
        state: State::from_name(&file.state).ok_or("`state` is neither active nor suspended")?,
        key_id: file.key_id,
        recipient: file.recipient,
        wrapped: base64(&file.wrapped_key)?,
        escrow,
    })
}

impl File {
    /// Context, then every field but the signature, each with its length as four octets.
    fn signed_octets(&self) -> Vec<u8> {
        let version = self.version.to_string();
        let fields = [
            version.as_str(),
            &self.id,
            &self.description,
            &self.created,
            &self.state,
            &self.key_id,
            &self.recipient,
            &self.wrapped_key,
            self.escrow_recipient.as_deref().unwrap_or_default(),
            self.escrow_identity.as_deref().unwrap_or_default(),
            &self.node,
        ];
        let mut out = CONTEXT.to_vec();
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
