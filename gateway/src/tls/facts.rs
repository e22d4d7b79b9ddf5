//! What a certificate says about itself (RFC 5280 §4.1), for `status`, `doctor`, renewal and alarms.
//!
//! What it does not do: judge it. Whoever connects does that.

use postkeep_shared::{mail::Digest, run::printable};
use serde::{Deserialize, Serialize};
use x509_parser::{extensions::GeneralName, prelude::parse_x509_certificate};

const DAY: i64 = 86_400;

/// The readable part of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Alternative names, else the common name; lower case.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970; valid up to and with this second.
    pub not_after: i64,
    /// Hex SHA-256 of the public key (SPKI in DER): the archiver's pin, and the data of a TLSA `3 1 1` record.
    pub public_key_sha256: String,
}

impl Facts {
    /// Reads them; `None` for octets that are no certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let mut names: Vec<String> = match certificate.subject_alternative_name().ok().flatten() {
            Some(extension) => extension.value.general_names.iter().filter_map(dns_name).collect(),
            None => Vec::new(),
        };
        if names.is_empty() {
            names = certificate.subject().iter_common_name().filter_map(|n| n.as_str().ok()).map(shown).collect();
        }
        let issuer = if certificate.issuer().as_raw() == certificate.subject().as_raw() {
            "itself (self-signed)".to_owned()
        } else {
            printable(certificate.issuer().to_string().as_bytes())
        };
        let validity = certificate.validity();
        Some(Self {
            names,
            issuer,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            public_key_sha256: Digest::of(certificate.public_key().raw).to_string(),
        })
    }

    /// Whole days until it ends, rounded down; negative once it has ended.
    #[must_use]
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(DAY)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        now > self.not_after
    }

    /// Whether it carries every one of these names, itself or by `*.` (RFC 6125 §6.4.3).
    #[must_use]
    pub fn covers(&self, wanted: &[String]) -> bool {
        let covered = |name: &String| {
            let above = name.split_once('.').map(|(_, above)| format!("*.{above}"));
            self.names.iter().any(|own| own == name || above.as_ref() == Some(own))
        };
        wanted.iter().all(covered)
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(shown(name)),
        _ => None,
    }
}

fn shown(name: &str) -> String {
    printable(name.to_ascii_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_times_and_key_are_read() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params =
            rcgen::CertificateParams::new(["A.example".to_owned(), "*.b.example".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let certificate = params.self_signed(&key).expect("signed");
        let facts = Facts::of(certificate.der()).expect("reads");
        assert_eq!(facts.names, ["a.example", "*.b.example"]);
        assert_eq!(facts.issuer, "itself (self-signed)");
        assert_eq!((facts.not_after - facts.not_before) / DAY, 90);
        assert_eq!(facts.days_left(facts.not_after - DAY - 1), 1);
        assert_eq!(facts.days_left(facts.not_after + 1), -1);
        let covers = |names: &[&str]| facts.covers(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(covers(&["a.example", "x.b.example"]));
        assert!(!covers(&["b.example"]) && !covers(&["y.x.b.example"]) && !covers(&["a.example", "c.example"]));
        assert_eq!(Facts::of(b"nothing"), None);
    }
}
