//! The DNS records to publish for this gateway, as lines of a zone file.

use super::Doctor;
use crate::{
    config::CertificateSource,
    tls::acme::{Store, public_key_sha256},
};
use serde::Serialize;
use std::sync::Arc;

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Its owner, absolute.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its data as a zone file has it.
    pub value: String,
    /// Whether mail does not arrive without it.
    pub required: bool,
    /// What it is good for.
    pub note: &'static str,
}

impl Record {
    /// As a line of a zone file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} IN {} {}", self.name, self.kind, self.value)
    }
}

/// The CAA name of an authority, where it is known (RFC 8659 §4.2).
pub(super) fn caa_name(directory: &str) -> Option<&'static str> {
    let host = directory.strip_prefix("https://")?.split('/').next()?;
    (host == "letsencrypt.org" || host.ends_with(".letsencrypt.org")).then_some("letsencrypt.org")
}

/// All of them.
#[must_use]
pub fn records(doctor: &Doctor<'_>) -> Vec<Record> {
    let config = doctor.config;
    let host = format!("{}.", config.hostname);
    let record = |name: String, kind, value: String, required, note| Record { name, kind, value, required, note };
    let mut records = vec![
        record(host.clone(), "A", "<IPv4 address>".into(), true, "where senders connect; leave it out without IPv4"),
        record(host.clone(), "AAAA", "<IPv6 address>".into(), false, "the same with IPv6"),
    ];
    for domain in &config.domains {
        let same = *domain == config.hostname;
        let note = if same { "may be left out: the address is used then" } else { "names the gateway" };
        records.push(record(format!("{domain}."), "MX", format!("10 {host}"), !same, note));
    }
    if let CertificateSource::Acme(settings) = &config.tls.source {
        let authority = caa_name(&settings.directory).unwrap_or("<name of the authority>");
        let account = doctor.account.as_ref().map(|url| format!("; accounturi={url}")).unwrap_or_default();
        for name in &settings.names {
            let value = format!("0 issue \"{authority}{account}\"");
            records.push(record(format!("{name}."), "CAA", value, false, "nobody else gets a certificate (RFC 8657)"));
        }
    }
    for digest in digests(doctor) {
        let note = "DANE: senders insist on this key (RFC 7672); only in a zone with DNSSEC";
        records.push(record(format!("_25._tcp.{host}"), "TLSA", format!("3 1 1 {digest}"), false, note));
    }
    for domain in &config.domains {
        if !matches!(config.tls.source, CertificateSource::SelfSigned) {
            let id = "v=STSv1; id=1";
            let note =
                "MTA-STS: senders insist on a certificate of a public authority (RFC 8461); raise id with each change";
            records.push(record(format!("_mta-sts.{domain}."), "TXT", format!("\"{id}\""), false, note));
        }
        let contact = match &config.tls.source {
            CertificateSource::Acme(settings) => settings.contact.first().cloned(),
            _ => None,
        };
        let contact = contact.unwrap_or_else(|| format!("mailto:postmaster@{domain}"));
        let note = "TLSRPT: where senders report that TLS failed (RFC 8460); a mailbox elsewhere";
        let value = format!("\"v=TLSRPTv1; rua={contact}\"");
        records.push(record(format!("_smtp._tls.{domain}."), "TXT", value, false, note));
    }
    records
}

/// The key in use and, where one is announced, the next one.
fn digests(doctor: &Doctor<'_>) -> Vec<String> {
    let mut digests: Vec<String> =
        doctor.certificate.iter().map(|(facts, _)| facts.public_key_sha256.clone()).collect();
    if let CertificateSource::Acme(settings) = &doctor.config.tls.source {
        let store = Store::new(&doctor.config.data_dir, &settings.directory, Arc::clone(&doctor.disk));
        let announced = store.announced_key().ok().flatten().and_then(|key| public_key_sha256(&key).ok());
        digests.extend(announced.filter(|next| !digests.contains(next)));
    }
    digests
}

/// What `https://mta-sts.<domain>/.well-known/mta-sts.txt` holds at first: a month of trial, then `enforce`.
#[must_use]
pub fn policy(hostname: &str) -> String {
    format!("version: STSv1\nmode: testing\nmx: {hostname}\nmax_age: 86400\n")
}
