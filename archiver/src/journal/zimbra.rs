//! Copies of Zimbra's legal intercept (journal-formats §6): a text, and the message of the account watched.
//!
//! Subject and text come from templates; only the default subject names the account in a way that can be read.

use super::{
    Content, Handling, Kind, Recipient, RecipientKind, Verdict, address,
    header::Header,
    report::{Message, is_message, open},
    split::split,
};
use crate::octets::Octets;
use std::io;

/// The verdict on an intercepted message; `None` for any other.
pub(super) fn examine(octets: &dyn Octets, header: &Header) -> io::Result<Option<Verdict>> {
    let submitted = header.first("auto-submitted").unwrap_or_default().to_ascii_lowercase();
    if !(submitted.contains("zimbra") && submitted.contains("intercept")) {
        return Ok(None);
    }
    let media = header.media_type();
    let boundary = media.boundary().filter(|_| media.is_a("multipart"));
    let Some(boundary) = boundary else { return Ok(None) };
    let multipart = split(octets, header.body..octets.len(), &boundary)?;
    let mut messages = multipart.parts.iter().filter(|p| is_message(&p.header.media_type()));
    let message = match (messages.next(), messages.next()) {
        (Some(part), None) => Some(open(octets, part)?).filter(|m| m.size > 0),
        _ => None,
    };
    Ok(Some(verdict(octets, header, message, multipart.closed)))
}

fn verdict(octets: &dyn Octets, header: &Header, message: Option<Message>, closed: bool) -> Verdict {
    let account = header.subject().as_deref().and_then(account);
    let (handling, reason) = match (&message, &account, closed) {
        (_, _, false) => (Handling::Quarantine, "the closing delimiter is missing: the message may be cut"),
        (None, ..) => (Handling::ArchiveAsIs, "an intercept without its message"),
        (_, None, _) => (Handling::ArchiveAsIs, "an intercept whose subject does not name the account"),
        _ => (Handling::Archive, "a message intercepted for the account that the subject names"),
    };
    let (mut sender, mut subject, mut message_id, mut size, mut inner) = (None, None, None, None, None);
    if let Some(message) = message {
        sender = message.header.first("from").map(address::single);
        subject = message.header.subject();
        message_id = message.header.message_id();
        size = Some(message.size).filter(|_| handling == Handling::Archive);
        inner = Some(message.content);
    }
    let content = match handling {
        Handling::Archive => inner,
        Handling::ArchiveAsIs => Some(Content::Range(0..octets.len())),
        Handling::Quarantine => None,
    };
    let recipient =
        |address| Recipient { address, kind: RecipientKind::Unspecified, expanded_from: None, forwarded_from: None };
    Verdict {
        kind: Kind::ZimbraIntercept,
        handling,
        reason: reason.to_owned(),
        warnings: Vec::new(),
        sender,
        on_behalf_of: None,
        recipients: account.map(recipient).into_iter().collect(),
        subject,
        message_id,
        content,
        alternates: Vec::new(),
        embedded_size: size,
        date: None,
    }
}

/// `Intercepted message for ACCOUNT: SUBJECT`.
fn account(subject: &str) -> Option<String> {
    let rest = subject.strip_prefix("Intercepted message for ")?;
    let account = rest.split([':', ' ']).next()?;
    account.contains('@').then(|| account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_subject_names_the_account() {
        assert_eq!(account("Intercepted message for a@x: Copy: 2").as_deref(), Some("a@x"));
        assert_eq!(account("Intercepted message for a@x:").as_deref(), Some("a@x"));
        assert_eq!(account("Intercepted message for somebody"), None);
        assert_eq!(account("Copy for a@x: Copy"), None);
    }
}
