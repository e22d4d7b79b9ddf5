//! How the messages of one source are read: whose they are, what is believed, and what proves where they come from.

use super::SourceKind;
use crate::{evidence::Rules, journal::Profile};
use postkeep_shared::config::Section;

/// The part of a `[[source]]` that concerns its messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Profile `single`: whose messages they are.
    pub owner: Option<String>,
    /// The mail server whose added headers count; without it the host of the topmost `Received`.
    pub trusted_host: Option<String>,
    /// Addresses that name the archive, not a person.
    pub ignore_addresses: Vec<String>,
    /// Headers that name envelope recipients, lower case, in order; empty for the usual ones.
    pub envelope_headers: Vec<String>,
    /// What has to fit.
    pub evidence: Rules,
}

impl Reading {
    /// Reads the settings; every mistake is noted in `table`.
    pub(super) fn read(table: &Section, kind: SourceKind, profile: Profile) -> Self {
        let owner = table.text("owner");
        match (&owner, profile) {
            (None, Profile::Single) => {
                table.mistake("owner", "missing; a source with profile \"single\" names its owner");
            }
            (Some(_), Profile::Journal | Profile::Multidrop) => {
                table.mistake("owner", "goes with profile = \"single\" only; remove it");
            }
            _ => {}
        }
        let envelope_headers = list(table, "envelope_headers", header_mistake);
        Self {
            owner,
            trusted_host: table.text("trusted_host").filter(|host| !host.trim().is_empty()),
            ignore_addresses: list(table, "ignore_addresses", address_mistake),
            envelope_headers: envelope_headers.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            evidence: evidence(table, kind),
        }
    }
}

fn evidence(table: &Section, kind: SourceKind) -> Rules {
    if kind == SourceKind::Pop3 {
        for key in ["networks", "tls_names", "mail_from"].into_iter().filter(|key| table.has(key)) {
            table.mistake(key, "only a gateway tells what it saw of the sender; remove it, or set kind = \"gateway\"");
        }
    }
    let networks = list(table, "networks", |text| text.parse::<crate::evidence::Network>().err());
    Rules {
        networks: networks.iter().filter_map(|text| text.parse().ok()).collect(),
        tls_names: list(table, "tls_names", |name| name_mistake(name.strip_prefix("*.").unwrap_or(name))),
        mail_from: list(table, "mail_from", path_mistake),
        tenants: list(table, "tenants", name_mistake),
    }
}

/// An empty list would mean "nobody" to some and "anybody" to others.
fn list(table: &Section, key: &str, mistake: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let Some(texts) = table.list(key) else { return Vec::new() };
    if texts.is_empty() {
        table.mistake(key, "an empty list; name at least one, or remove the line");
    }
    texts.iter().filter_map(|text| mistake(text)).for_each(|text| table.mistake(key, text));
    texts
}

fn header_mistake(name: &str) -> Option<String> {
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    (!good).then(|| format!("`{name}` is not the name of a header; write for example \"X-Envelope-To\""))
}

fn address_mistake(address: &str) -> Option<String> {
    let good = address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    (!good).then(|| format!("`{address}` is not an address; write it as name@domain"))
}

fn path_mistake(path: &str) -> Option<String> {
    let good = path == "<>" || path.rsplit_once('@').is_some_and(|(_, domain)| !domain.is_empty());
    (!good).then(|| format!("`{path}` is not a reverse-path; write an address, \"@domain\" or \"<>\""))
}

fn name_mistake(name: &str) -> Option<String> {
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    (!good).then(|| format!("`{name}` is not a name; write it as it stands in the certificate or in the header"))
}
