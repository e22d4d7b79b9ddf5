//! Whether a report comes from whom its source says: what the gateway saw, compared with the source's rules.
//!
//! Anyone can send a journal report (journal-formats §2.11). The secret mailbox address is the first evidence; the rules
//! of a `[[source]]` add to it, as those of the gateway do: `networks` and `tls_names` say *where from*, one of them has
//! to fit; `mail_from` and `tenants` say *for whom*, each has to fit in addition. What does not fit is never dropped:
//! it is kept whole, in quarantine.
//!
//! Tenants are read from fields that Exchange Online writes into the outermost header. A sender who reaches the gateway
//! himself can write them too, so they prove something only together with *where from*.

mod network;

pub use network::Network;

use postkeep_shared::receipt::Evidence;
use std::net::IpAddr;

/// Fields of the outermost header that name the tenant (observed: journal-formats §2.1).
pub const TENANT_FIELDS: [&str; 3] = ["x-originatororg", "x-ms-exchange-crosstenant-id", "x-ld-processed"];

/// The rules of a source; each kind that is empty asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks that the server's mail comes from.
    pub networks: Vec<Network>,
    /// DNS names in its verified client certificate: exact, or `*.` and a domain for every name directly below it.
    pub tls_names: Vec<String>,
    /// Reverse-paths: an address, `@domain`, or `<>`.
    pub mail_from: Vec<String>,
    /// Names (`aurora.onmicrosoft.com`) and identifiers (a GUID) of Microsoft 365 tenants.
    pub tenants: Vec<String>,
}

impl Rules {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What does not fit, as the end of a sentence; `None` when everything fits. `fields` are the
    /// [`TENANT_FIELDS`] of the report, names in lower case.
    #[must_use]
    pub fn fault(&self, evidence: Option<&Evidence>, fields: &[(String, String)]) -> Option<String> {
        self.origin_fault(evidence).or_else(|| self.sender_fault(evidence)).or_else(|| self.tenant_fault(fields))
    }

    fn origin_fault(&self, evidence: Option<&Evidence>) -> Option<String> {
        if self.networks.is_empty() && self.tls_names.is_empty() {
            return None;
        }
        let Some(evidence) = evidence else { return Some("nobody saw where it came from".to_owned()) };
        let address: Option<IpAddr> = evidence.ip.parse().ok();
        let near = address.is_some_and(|address| self.networks.iter().any(|network| network.contains(address)));
        let mut names = evidence.certificate.iter().flat_map(|names| names.split(','));
        if near || names.any(|name| self.tls_names.iter().any(|rule| is_named(rule, name))) {
            return None;
        }
        let certificate = evidence.certificate.as_deref().unwrap_or("none");
        Some(format!(
            "the client {} is in no network of this source, and its certificate ({certificate}) has none of its names",
            evidence.ip
        ))
    }

    fn sender_fault(&self, evidence: Option<&Evidence>) -> Option<String> {
        if self.mail_from.is_empty() {
            return None;
        }
        let Some(evidence) = evidence else { return Some("nobody saw its MAIL FROM".to_owned()) };
        let path = evidence.mail_from.trim_start_matches('<').trim_end_matches('>');
        let fits = |rule: &String| match (rule.as_str(), rule.strip_prefix('@')) {
            ("<>", _) => path.is_empty(),
            (_, Some(domain)) => path.rsplit_once('@').is_some_and(|(_, of)| of.eq_ignore_ascii_case(domain)),
            (address, None) => path.eq_ignore_ascii_case(address),
        };
        let fault = || format!("MAIL FROM <{path}> is none of those this source sends with");
        (!self.mail_from.iter().any(fits)).then(fault)
    }

    /// Names and identifiers are asked for apart: whichever of the two is configured must be there, and every field
    /// that has it must agree, so that a second one added in front or behind changes nothing.
    fn tenant_fault(&self, fields: &[(String, String)]) -> Option<String> {
        let (ids, names): (Vec<_>, Vec<_>) = self.tenants.iter().partition(|tenant| is_guid(tenant));
        let named = fields.iter().filter(|(name, _)| name == "x-originatororg").map(|(_, value)| value.trim());
        let identified = fields.iter().filter(|(name, _)| name != "x-originatororg");
        // `X-LD-Processed: GUID,ExtAddr`.
        let identified = identified.map(|(_, value)| value.split(',').next().unwrap_or_default().trim());
        disagreement("X-OriginatorOrg", &names, &named.collect::<Vec<_>>())
            .or_else(|| disagreement("X-MS-Exchange-CrossTenant-Id", &ids, &identified.collect::<Vec<_>>()))
    }
}

fn disagreement(field: &str, wanted: &[&String], found: &[&str]) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    if found.is_empty() {
        return Some(format!("it has no {field}, so its tenant is not known"));
    }
    let other = found.iter().find(|value| !wanted.iter().any(|tenant| tenant.eq_ignore_ascii_case(value)));
    other.map(|value| {
        let shown: String = value.chars().filter(|c| !c.is_control()).take(100).collect();
        format!("{field} says {shown}, which is no tenant of this source")
    })
}

/// Whether a name of a certificate is the one of a rule; a wildcard in either stands for one label.
fn is_named(rule: &str, name: &str) -> bool {
    let below = |wildcard: &str, name: &str| {
        let domain = wildcard.strip_prefix("*.");
        let parent = name.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        domain.zip(parent).is_some_and(|(domain, parent)| domain.eq_ignore_ascii_case(parent))
    };
    rule.eq_ignore_ascii_case(name) || below(rule, name) || below(name, rule)
}

/// `8-4-4-4-12` hex digits.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::mail::{MailboxId, Uidl};

    fn seen(ip: &str, certificate: Option<&str>, mail_from: &str) -> Evidence {
        Evidence {
            mailbox: MailboxId([1; 16]),
            uidl: Uidl([2; 16]),
            salt: [3; 32],
            ip: ip.to_owned(),
            reverse_name: None,
            helo: "x".to_owned(),
            mail_from: mail_from.to_owned(),
            rcpt_to: String::new(),
            tls: None,
            certificate: certificate.map(str::to_owned),
            verified: Some(true),
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn where_from_is_one_of_two_and_for_whom_in_addition() {
        let rules = Rules {
            networks: vec!["40.92.0.0/15".parse().expect("a network")],
            tls_names: texts(&["mail.protection.outlook.com"]),
            mail_from: texts(&["journal.ndr@aurora.example", "@borealis.example", "<>"]),
            tenants: Vec::new(),
        };
        for (ip, certificate, from, fits) in [
            ("40.93.255.1", None, "Journal.NDR@aurora.example", true),
            ("192.0.2.1", Some("Mail.Protection.Outlook.com"), "x@borealis.example", true),
            ("192.0.2.1", Some("a.example,MAIL.protection.outlook.com"), "", true),
            ("192.0.2.1", Some("mail.example"), "", false),
            ("192.0.2.1", None, "", false),
            ("nonsense", None, "", false),
            ("40.92.0.1", None, "", true),
            ("40.92.0.1", None, "x@aurora.example", false),
            ("40.92.0.1", None, "x@sub.borealis.example", false),
        ] {
            let fault = rules.fault(Some(&seen(ip, certificate, from)), &[]);
            assert_eq!(fault.is_none(), fits, "{ip} {certificate:?} {from}: {fault:?}");
        }
        assert!(rules.fault(None, &[]).is_some());
        assert!(Rules::default().fault(None, &[]).is_none());
    }

    #[test]
    fn wildcards_stand_for_one_label() {
        for (rule, name, fits) in [
            ("*.a.example", "x.A.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "y.x.a.example", false),
            ("x.a.example", "*.a.example", true),
            ("a.example", "*.a.example", false),
            ("*.a.example", "*.a.example", true),
            ("*.a.example", "*.b.a.example", false),
        ] {
            assert_eq!(is_named(rule, name), fits, "{rule} {name}");
        }
    }

    #[test]
    fn every_tenant_field_must_agree() {
        const ID: &str = "0d8a1c3e-1111-2222-3333-444455556666";
        let fields = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let org = "x-originatororg";
        let by_name = Rules { tenants: texts(&["aurora.onmicrosoft.com"]), ..Rules::default() };
        assert_eq!(by_name.fault(None, &fields(&[(org, " Aurora.onmicrosoft.com ")])), None);
        for wrong in [&[][..], &[(org, "evil.example")], &[(org, "aurora.onmicrosoft.com"), (org, "evil.example")]] {
            assert!(by_name.fault(None, &fields(wrong)).is_some(), "{wrong:?}");
        }
        let by_id = Rules { tenants: texts(&[ID]), ..Rules::default() };
        assert_eq!(by_id.fault(None, &fields(&[("x-ld-processed", &format!("{ID},ExtAddr"))])), None);
        assert_eq!(by_id.fault(None, &fields(&[("x-ms-exchange-crosstenant-id", &ID.to_uppercase())])), None);
        assert!(by_id.fault(None, &fields(&[(org, "aurora.onmicrosoft.com")])).is_some());
        let both = Rules { tenants: texts(&[ID, "aurora.onmicrosoft.com"]), ..Rules::default() };
        assert!(both.fault(None, &fields(&[("x-ld-processed", ID)])).is_some(), "the name is missing");
    }
}
