//! A mailbox's secret key: an age X25519 identity, wrapped by the password.

use super::{Escrow, Mailbox, MailboxError};
use age::secrecy::ExposeSecret as _;
use postkeep_shared::{
    crypt::{KdfParams, Password, UnwrapError, unwrap_key, wrap_key},
    mail::MailboxId,
};
use zeroize::Zeroizing;

/// The mailbox's secret key, unlocked. Wiped when dropped.
pub struct Identity(age::x25519::Identity);

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
        Self(age::x25519::Identity::generate())
    }

    /// Reads `AGE-SECRET-KEY-1…`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }

    /// `AGE-SECRET-KEY-1…`, as age's tools take it in an identity file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }

    /// `age1…`.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    pub(crate) fn age(&self) -> &dyn age::Identity {
        &self.0
    }

    pub(super) fn wrap(&self, password: &Password, params: KdfParams, context: &[u8]) -> Result<Vec<u8>, MailboxError> {
        wrap_key(password, params, self.to_text().as_bytes(), context)
            .map_err(|e| MailboxError::Key(format!("the key cannot be wrapped: {e}")))
    }

    /// Also wraps the key to a recipient whose identity is kept elsewhere.
    pub(super) fn escrow(&self, recipient: &str) -> Result<Escrow, MailboxError> {
        let parsed: age::x25519::Recipient = recipient.trim().parse().map_err(|_| MailboxError::Escrow)?;
        let sealed_identity = age::encrypt(&parsed, self.to_text().as_bytes())
            .map_err(|e| MailboxError::Key(format!("the key cannot be sealed for the escrow: {e}")))?;
        Ok(Escrow { recipient: parsed.to_string(), sealed_identity })
    }
}

/// What a wrapped key is bound to: it opens for this mailbox and this key only.
pub(super) fn context(id: MailboxId, key_id: &str) -> Vec<u8> {
    format!("postkeep mailbox key v1\0{id}\0{key_id}").into_bytes()
}

impl Mailbox {
    /// Opens the secret key. Takes 20 to 300 ms and 19 to 64 MiB: call it in `spawn_blocking`, few at a time.
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
        let text = std::str::from_utf8(secret.expose()).map_err(|_| damaged("the wrapped key is not text"))?;
        let identity = Identity::from_text(text).ok_or_else(|| damaged("the wrapped key is no age identity"))?;
        if identity.recipient() != self.recipient {
            return Err(damaged("the wrapped key belongs to another recipient"));
        }
        Ok(identity)
    }
}
