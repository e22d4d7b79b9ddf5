//! One mail transaction (RFC 5321 §3.3): from MAIL to the end of its content.

use super::{command::Mail, content::Content};
use postkeep_shared::mail::MailboxId;

/// Mailboxes one transaction may name; each one is a sealed file of its own.
pub(super) const MAX_MAILBOXES: usize = 16;
/// RCPT commands in one transaction, refused ones included.
pub(super) const MAX_RCPT: usize = 1000;

/// A recipient that was answered `250`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The forward-path as written, without angle brackets.
    pub path: String,
}

/// What the session needs to know of a transaction.
#[derive(Debug)]
pub struct Transaction {
    pub(super) mail: Mail,
    pub(super) protocol: &'static str,
    pub(super) helo: String,
    pub(super) recipients: Vec<Recipient>,
    pub(super) rcpt_commands: usize,
    /// A recipient was put off with a 4xx.
    pub(super) deferred: bool,
    /// The message, from DATA or the first BDAT on.
    pub(super) content: Option<Content>,
}

impl Transaction {
    /// Reverse-path as written, without angle brackets; empty for `<>`.
    #[must_use]
    pub fn mail_from(&self) -> &str {
        &self.mail.from
    }

    /// HELO or EHLO argument.
    #[must_use]
    pub fn helo(&self) -> &str {
        &self.helo
    }

    /// `SMTP`, `ESMTP`, `ESMTPS`, `UTF8SMTP` or `UTF8SMTPS` (RFC 3848, RFC 6531 §4.3).
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// The mailboxes, each once.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Octets of the message that have arrived.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.as_ref().map_or(0, Content::size)
    }
}
