//! Who may be written to: pure decisions about RCPT.
//!
//! The address of a mailbox is its secret (128 random bits) on any of our domains; nothing else is here, and nothing
//! is ever relayed.

use super::replies::{self, Reply};
use postkeep_shared::mail::MailboxId;

/// What a look at the mailbox definitions gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It takes mail.
    Active,
    /// It exists and takes no mail now.
    Suspended,
    /// There is none.
    Unknown,
    /// It exists, and its source rules put this client off.
    NotFromHere,
    /// Its definition cannot be read: never a reason to say it does not exist.
    Unreadable,
}

/// What RCPT is answered before anything was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// Look this mailbox up.
    Mailbox(MailboxId),
    /// No need to look.
    Refused(Reply),
}

/// Judges a forward-path (RFC 5321 §4.1.1.3), given without its angle brackets.
///
/// Routes (`@r:a@b`, `a%b@c`, `a!b@c`) are not followed and domain literals are not ours; both are no mailbox here.
pub(super) fn judge(path: &str, domains: &[String]) -> Judged {
    let Some((local, domain)) = path.rsplit_once('@') else {
        return Judged::Refused(if is_postmaster(path) { replies::POSTMASTER } else { replies::NO_SUCH_MAILBOX });
    };
    if local.is_empty() || domain.starts_with('[') || local.contains(['@', '%', '!', ':']) {
        return Judged::Refused(replies::NO_SUCH_MAILBOX);
    }
    if !domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain)) {
        return Judged::Refused(replies::NO_RELAY);
    }
    match local.parse() {
        Ok(id) => Judged::Mailbox(id),
        // RFC 5321 §4.5.1 wants postmaster to be read by somebody. Nobody reads mail here, and a mailbox that only
        // an archive empties would swallow it; a refusal with the reason is the honest answer.
        Err(_) if is_postmaster(local) => Judged::Refused(replies::POSTMASTER),
        Err(_) => Judged::Refused(replies::NO_SUCH_MAILBOX),
    }
}

fn is_postmaster(local: &str) -> bool {
    local.eq_ignore_ascii_case("postmaster")
}

/// The reply for what was found; `None` where the mailbox takes the message.
pub(super) fn refusal(found: Found) -> Option<Reply> {
    match found {
        Found::Active => None,
        Found::Suspended => Some(replies::SUSPENDED),
        Found::Unknown => Some(replies::NO_SUCH_MAILBOX),
        Found::NotFromHere => Some(replies::NOT_FROM_HERE),
        Found::Unreadable => Some(replies::UNREADABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mailboxes_of_our_domains_are_looked_up() {
        let domains = ["msgw.archive.example".to_owned(), "b.example".to_owned()];
        let id = MailboxId([0xab; 16]);
        for path in [format!("{id}@msgw.archive.example"), format!("{id}@B.Example").to_uppercase()] {
            assert_eq!(judge(&path, &domains), Judged::Mailbox(id), "{path}");
        }
        let long = format!("{}@b.example", "a".repeat(65));
        for (path, reply) in [
            ("x@other.example", replies::NO_RELAY),
            ("mbx-abababababababababababababababab@other.example", replies::NO_RELAY),
            ("mbx-abababababababababababababababab@b.example.", replies::NO_RELAY),
            ("a@[127.0.0.1]", replies::NO_SUCH_MAILBOX),
            ("@r:a@b", replies::NO_SUCH_MAILBOX),
            ("a%b@c", replies::NO_SUCH_MAILBOX),
            ("a!b@c", replies::NO_SUCH_MAILBOX),
            ("", replies::NO_SUCH_MAILBOX),
            ("@b.example", replies::NO_SUCH_MAILBOX),
            ("mbx-abababababababababababababababab", replies::NO_SUCH_MAILBOX),
            ("mbx-ababababababababababababababab@b.example", replies::NO_SUCH_MAILBOX),
            ("../../x@b.example", replies::NO_SUCH_MAILBOX),
            ("MBX-../../../../../../../../../etc/x@b.example", replies::NO_SUCH_MAILBOX),
            (long.as_str(), replies::NO_SUCH_MAILBOX),
            ("Postmaster", replies::POSTMASTER),
            ("POSTMASTER@b.example", replies::POSTMASTER),
        ] {
            assert_eq!(judge(path, &domains), Judged::Refused(reply), "{path}");
        }
    }
}
