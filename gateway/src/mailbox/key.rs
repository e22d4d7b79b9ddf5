//! A mailbox's secret keys: age X25519 identities, the current one first, wrapped together by the password.
//!
//! New messages are sealed to the current key; the earlier ones open what was sealed before a rotation. One password
//! opens all of them at once, so that a login costs one key derivation however often keys were rotated.

use super::{Escrow, Mailbox, MailboxError};
use age::secrecy::ExposeSecret as _;
use postkeep_shared::{
    crypt::{KdfParams, Password, UnwrapError, unwrap_key, wrap_key},
    mail::MailboxId,
};
use std::io::Read as _;
use zeroize::Zeroizing;

/// Keys of one mailbox at most, the current one included.
pub const MAX_KEYS: usize = 16;

/// The mailbox's secret keys, unlocked. Wiped when dropped.
pub struct Identity {
    current: age::x25519::Identity,
    earlier: Vec<age::x25519::Identity>,
}

/// Why a mailbox stays locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// Another password.
    #[error("wrong password")]
    WrongPassword,
    /// The definition's wrapped key cannot be read.
    #[error("mailbox {0}: {1}; restore its definition file from a backup")]
    Damaged(MailboxId, String),
    /// Too little memory for the key derivation just now.
    #[error("not enough memory to derive the key; try again later")]
    Memory,
}

impl Identity {
    /// A new key pair.
    pub(super) fn generate() -> Self {
        Self { current: age::x25519::Identity::generate(), earlier: Vec::new() }
    }

    /// A new key pair in front of these. Without `keep_earlier` only the one that was current until now stays: messages
    /// that are just arriving are sealed to it.
    pub(super) fn rotated(self, keep_earlier: bool) -> Self {
        let mut earlier = vec![self.current];
        if keep_earlier {
            earlier.extend(self.earlier);
        }
        Self { current: age::x25519::Identity::generate(), earlier }
    }

    /// Reads lines of `AGE-SECRET-KEY-1…`, the current key first.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut keys = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| line.parse().ok());
        let current = keys.next()??;
        let earlier = keys.collect::<Option<Vec<_>>>()?;
        (earlier.len() < MAX_KEYS).then_some(Self { current, earlier })
    }

    /// `AGE-SECRET-KEY-1…`, one line per key, as age's tools take it in an identity file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(80 * (1 + self.earlier.len())));
        for key in std::iter::once(&self.current).chain(&self.earlier) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(key.to_string().expose_secret());
        }
        text
    }

    /// `age1…`: what new messages are sealed to.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.current.to_public().to_string()
    }

    /// `age1…` of the earlier keys, the latest first.
    #[must_use]
    pub fn earlier_recipients(&self) -> Vec<String> {
        self.earlier.iter().map(|key| key.to_public().to_string()).collect()
    }

    /// Every key, the current one first.
    pub(crate) fn age(&self) -> impl Iterator<Item = &dyn age::Identity> {
        std::iter::once(&self.current).chain(&self.earlier).map(|key| key as &dyn age::Identity)
    }

    pub(super) fn wrap(&self, password: &Password, params: KdfParams, context: &[u8]) -> Result<Vec<u8>, MailboxError> {
        wrap_key(password, params, self.to_text().as_bytes(), context)
            .map_err(|e| MailboxError::Key(format!("the key cannot be wrapped: {e}")))
    }

    /// Also wraps the keys to a recipient whose identity is kept elsewhere.
    pub(super) fn escrow(&self, recipient: &str) -> Result<Escrow, MailboxError> {
        let parsed: age::x25519::Recipient = recipient.trim().parse().map_err(|_| MailboxError::Escrow)?;
        let sealed_identity = age::encrypt(&parsed, self.to_text().as_bytes())
            .map_err(|e| MailboxError::Key(format!("the key cannot be sealed for the escrow: {e}")))?;
        Ok(Escrow { recipient: parsed.to_string(), sealed_identity })
    }
}

/// The escrow's secret: what an age identity file holds.
pub struct EscrowIdentity(Vec<age::x25519::Identity>);

impl EscrowIdentity {
    /// Reads an age identity file: lines of `AGE-SECRET-KEY-1…`, comments behind `#`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|line| line.parse().ok()).collect::<Option<Vec<_>>>()?;
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Opens an age file that was sealed to one of the keys, up to `limit` octets. `None`: to another, or damaged.
    #[must_use]
    pub fn open(&self, sealed: &[u8], limit: u64) -> Option<Zeroizing<Vec<u8>>> {
        let decryptor = age::Decryptor::new_buffered(sealed).ok()?;
        let reader = decryptor.decrypt(self.0.iter().map(|key| key as &dyn age::Identity)).ok()?;
        let mut plain = Zeroizing::new(Vec::new());
        reader.take(limit).read_to_end(&mut plain).ok()?;
        Some(plain)
    }
}

/// What a wrapped key is bound to: it opens for this mailbox and this key only.
pub(super) fn context(id: MailboxId, key_id: &str) -> Vec<u8> {
    format!("postkeep mailbox key v1\0{id}\0{key_id}").into_bytes()
}

impl Mailbox {
    /// Opens the secret keys. Takes 20 to 300 ms and 19 to 64 MiB: call it in `spawn_blocking`, few at a time.
    ///
    /// # Errors
    /// [`UnlockError`].
    pub fn unlock(&self, password: &Password) -> Result<Identity, UnlockError> {
        let damaged = |text: &str| UnlockError::Damaged(self.id, text.to_owned());
        let secret = unwrap_key(password, &self.wrapped, &context(self.id, &self.key_id)).map_err(|e| match e {
            UnwrapError::WrongKey => UnlockError::WrongPassword,
            UnwrapError::Memory => UnlockError::Memory,
            other => damaged(&other.to_string()),
        })?;
        self.own(secret.expose()).map_err(damaged)
    }

    /// The keys in `text`, if they are this mailbox's.
    pub(super) fn own(&self, text: &[u8]) -> Result<Identity, &'static str> {
        let text = std::str::from_utf8(text).map_err(|_| "the wrapped key is not text")?;
        let identity = Identity::from_text(text).ok_or("the wrapped key is no age identity")?;
        if identity.recipient() != self.recipient || identity.earlier_recipients() != self.earlier {
            return Err("the wrapped key belongs to another recipient");
        }
        Ok(identity)
    }
}
