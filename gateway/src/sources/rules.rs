//! Who may send to a mailbox: pure rules over what was seen of a client.
//!
//! `networks`, `spf_of` and `tls_names` say where mail comes from: one of them must fit. `mail_from` says for whom:
//! it must fit in addition. A kind that is not configured asks nothing. What does not fit is never refused for good:
//! it is marked, or put off where [`Action::Refuse`] is configured.

use super::{network::Network, tls_name::TlsName};
use crate::tls::ClientCertificate;
use std::net::IpAddr;

/// What was seen of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its address.
    pub ip: IpAddr,
    /// Reverse-path without angle brackets, empty for `<>`.
    pub mail_from: String,
    /// What its TLS certificate proves.
    pub certificate: ClientCertificate,
}

/// What happens to mail that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Accepted, and marked as unverified for the archiver.
    #[default]
    Label,
    /// Put off with `450 4.7.1`.
    Refuse,
}

/// An allowed reverse-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// The empty one, `<>`.
    Null,
    /// One address; lower case.
    Address(String),
    /// Any address of exactly this domain; lower case.
    Domain(String),
}

/// The rules of one mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Networks clients may be in.
    pub networks: Vec<Network>,
    /// Domains whose SPF record lists networks clients may be in; lower case.
    pub spf_of: Vec<String>,
    /// Names clients may have in a verified certificate.
    pub tls_names: Vec<TlsName>,
    /// Reverse-paths allowed.
    pub mail_from: Vec<Sender>,
    /// What happens to the rest.
    pub action: Action,
}

/// What the rules make of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There are no rules for this mailbox.
    NoRules,
    /// Everything fits; with the rules that did.
    Verified {
        /// For the log, such as `networks 192.0.2.0/24, mail_from @aurora.example`.
        rule: String,
    },
    /// Something does not.
    Unverified {
        /// For the log; holds texts of the client.
        reason: String,
    },
}

/// What can be said without the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    Decided(Verdict),
    /// It depends on the SPF records; with what fits already.
    AskSpf {
        also: Option<String>,
    },
}

impl Rules {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mail_from.is_empty() && !self.asks_where()
    }

    /// Whether mail has to come from somewhere.
    fn asks_where(&self) -> bool {
        !(self.networks.is_empty() && self.spf_of.is_empty() && self.tls_names.is_empty())
    }

    /// Judges without the DNS; what needs no look-up comes first.
    pub(super) fn judge(&self, facts: &Facts) -> Sight {
        if self.is_empty() {
            return Sight::Decided(Verdict::NoRules);
        }
        let also = match self.mail_from.iter().find(|sender| sender.fits(&facts.mail_from)) {
            Some(sender) => Some(format!("mail_from {sender}")),
            None if self.mail_from.is_empty() => None,
            None => return Sight::Decided(unverified(format!("mail_from does not list <{}>", facts.mail_from))),
        };
        match self.origin(facts) {
            Some(rule) => Sight::Decided(verified(Some(rule), also)),
            None if !self.asks_where() => Sight::Decided(verified(None, also)),
            None if !self.spf_of.is_empty() => Sight::AskSpf { also },
            None => Sight::Decided(self.elsewhere(facts, &[])),
        }
    }

    /// The verdict on a client that no rule fits; `spf` says why the records do not.
    pub(super) fn elsewhere(&self, facts: &Facts, spf: &[String]) -> Verdict {
        let mut reasons = Vec::new();
        if !self.networks.is_empty() {
            reasons.push(format!("networks does not hold {}", facts.ip));
        }
        if !self.tls_names.is_empty() {
            reasons.push(match &facts.certificate {
                ClientCertificate::Verified(_) => format!("tls_names does not list {}", facts.certificate),
                ClientCertificate::Unverified(why) => format!("no client certificate for tls_names: {why}"),
                ClientCertificate::None => "no client certificate for tls_names".to_owned(),
            });
        }
        reasons.extend_from_slice(spf);
        unverified(reasons.join("; "))
    }

    fn origin(&self, facts: &Facts) -> Option<String> {
        if let Some(network) = self.networks.iter().find(|network| network.contains(facts.ip)) {
            return Some(format!("networks {network}"));
        }
        let mut pairs = self.tls_names.iter().flat_map(|rule| facts.certificate.names().iter().map(move |n| (rule, n)));
        let (rule, name) = pairs.find(|(rule, name)| rule.fits(name))?;
        Some(format!("tls_names {rule} ({name})"))
    }
}

pub(super) fn verified(origin: Option<String>, also: Option<String>) -> Verdict {
    let rules: Vec<String> = origin.into_iter().chain(also).collect();
    Verdict::Verified { rule: rules.join(", ") }
}

fn unverified(reason: String) -> Verdict {
    Verdict::Unverified { reason }
}

impl Sender {
    /// Reads `<>`, `user@domain` or `@domain`.
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let forms = || {
            let shown = super::network::shown(text);
            format!("`{shown}` is not a sender; write journal@aurora.example, @aurora.example or <>")
        };
        if text == "<>" {
            return Ok(Self::Null);
        }
        let lower = text.to_lowercase();
        let (local, domain) = lower.rsplit_once('@').ok_or_else(forms)?;
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',' | '*');
        if domain.is_empty() || text.contains(odd) || domain.contains('@') {
            return Err(forms());
        }
        Ok(if local.is_empty() { Self::Domain(domain.to_owned()) } else { Self::Address(lower) })
    }

    /// Whether a reverse-path (without angle brackets) is it. Case makes no difference, also not in the local part:
    /// who may choose that may choose the address as well.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        match self {
            Self::Null => path.is_empty(),
            Self::Address(address) => path.to_lowercase() == *address,
            Self::Domain(domain) => {
                path.rsplit_once('@').is_some_and(|(local, of)| !local.is_empty() && of.to_lowercase() == *domain)
            }
        }
    }
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => f.write_str(address),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            networks: vec![Network::parse("192.0.2.0/24").expect("network")],
            tls_names: vec![TlsName::parse("mail.protection.outlook.com").expect("name")],
            mail_from: vec![Sender::parse("@Aurora.example").expect("sender"), Sender::Null],
            ..Rules::default()
        }
    }

    fn facts(ip: &str, mail_from: &str, certificate: Option<&str>) -> Facts {
        Facts {
            ip: ip.parse().expect("address"),
            mail_from: mail_from.into(),
            certificate: match certificate {
                Some(names) => ClientCertificate::Verified(names.split(',').map(str::to_owned).collect()),
                None => ClientCertificate::None,
            },
        }
    }

    #[test]
    fn where_from_is_any_and_for_whom_in_addition() {
        for (ip, mail_from, certificate, rule) in [
            ("192.0.2.1", "ndr@aurora.example", None, Some("networks 192.0.2.0/24, mail_from @aurora.example")),
            ("192.0.2.1", "", None, Some("networks 192.0.2.0/24, mail_from <>")),
            (
                "198.51.100.1",
                "NDR@AURORA.example",
                Some("outlook.com,mail.protection.outlook.com"),
                Some("tls_names mail.protection.outlook.com (mail.protection.outlook.com), mail_from @aurora.example"),
            ),
            ("198.51.100.1", "ndr@aurora.example", Some("evil.example"), None),
            ("198.51.100.1", "ndr@aurora.example", None, None),
            ("192.0.2.1", "ndr@sub.aurora.example", None, None),
            ("192.0.2.1", "@aurora.example", None, None),
            ("192.0.2.1", "aurora.example", None, None),
            ("192.0.2.1", "ndr@aurora.example@evil.example", None, None),
        ] {
            let facts = facts(ip, mail_from, certificate);
            match (rules().judge(&facts), rule) {
                (Sight::Decided(Verdict::Verified { rule }), Some(wanted)) => assert_eq!(rule, wanted),
                (Sight::Decided(Verdict::Unverified { .. }), None) => {}
                (other, _) => panic!("{facts:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_configured_asks_nothing() {
        let anyone = facts("192.0.2.1", "x@y.example", None);
        assert_eq!(Rules::default().judge(&anyone), Sight::Decided(Verdict::NoRules));
        let refusing = Rules { action: Action::Refuse, ..Rules::default() };
        assert_eq!(refusing.judge(&anyone), Sight::Decided(Verdict::NoRules));
        let sender = Rules { mail_from: vec![Sender::parse("x@y.example").expect("sender")], ..Rules::default() };
        let rule = "mail_from x@y.example".to_owned();
        assert_eq!(sender.judge(&anyone), Sight::Decided(Verdict::Verified { rule }));
    }

    #[test]
    fn the_dns_is_asked_only_where_it_decides() {
        let rules = Rules { spf_of: vec!["spf.example".into()], ..rules() };
        assert!(matches!(rules.judge(&facts("192.0.2.1", "", None)), Sight::Decided(Verdict::Verified { .. })));
        assert!(matches!(rules.judge(&facts("10.0.0.1", "x@y", None)), Sight::Decided(Verdict::Unverified { .. })));
        assert_eq!(rules.judge(&facts("10.0.0.1", "", None)), Sight::AskSpf { also: Some("mail_from <>".into()) });
    }

    #[test]
    fn senders_that_are_none() {
        for text in ["", "aurora.example", "@", "x@", "a b@c", "*@c.example", "<a@b>", "a@b,c@d", "\u{7}@c"] {
            assert!(Sender::parse(text).is_err(), "{text:?}");
        }
    }
}
