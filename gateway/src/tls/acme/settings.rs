//! `[tls.acme]`: which authority, for which names, and how it reaches us.

use postkeep_shared::config::{Config, Section};
use rustls_acme::acme::{LETS_ENCRYPT_PRODUCTION_DIRECTORY, LETS_ENCRYPT_STAGING_DIRECTORY};
use std::{net::SocketAddr, path::PathBuf};

/// Everything an order needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The authority's directory, https.
    pub directory: String,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// Authority that the directory's own certificate is checked with; the system's where there is none.
    pub directory_ca: Option<PathBuf>,
    /// Binding to an account made elsewhere (RFC 8555 §7.3.4).
    pub binding: Option<Binding>,
    /// Names of the certificate, the host name first.
    pub names: Vec<String>,
    /// Addresses for TLS-ALPN-01; empty for none.
    pub tls_listen: Vec<SocketAddr>,
    /// Addresses for HTTP-01; empty for none.
    pub http_listen: Vec<SocketAddr>,
}

/// External account binding: what the authority gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Key identifier.
    pub kid: String,
    /// File with the MAC key in base64url; nobody else may be able to read it.
    pub key_file: PathBuf,
}

impl AcmeSettings {
    /// Takes `[tls.acme]`. `name` checks a host name, `addresses` takes a list of listeners with its default.
    pub fn take(
        section: &Section,
        config: &Config,
        hostname: &str,
        name: impl Fn(&str) -> Option<String>,
        mut addresses: impl FnMut(&str, &[&str]) -> Vec<SocketAddr>,
    ) -> Self {
        let mut names = vec![hostname.to_owned()];
        for extra in section.list("names").unwrap_or_default().iter().filter_map(|text| name(text)) {
            if !names.contains(&extra) {
                names.push(extra);
            }
        }
        if section.flag("accept_terms") != Some(true) {
            section.mistake("accept_terms", "read the terms of the authority, then write accept_terms = true");
        }
        let settings = Self {
            directory: directory(section),
            contact: contact(section),
            directory_ca: section.text("directory_ca_file").map(|file| config.resolve(&file)),
            binding: binding(section, config),
            names,
            tls_listen: addresses("tls_listen", &["0.0.0.0:443", "[::]:443"]),
            http_listen: addresses("http_listen", &["0.0.0.0:80", "[::]:80"]),
        };
        if settings.tls_listen.is_empty() && settings.http_listen.is_empty() {
            section.mistake("tls_listen", "and http_listen are both empty; the authority needs one of them");
        }
        settings
    }
}

fn directory(section: &Section) -> String {
    let text = section.text("directory").unwrap_or_else(|| "production".into());
    match text.as_str() {
        "production" => LETS_ENCRYPT_PRODUCTION_DIRECTORY.into(),
        "staging" => LETS_ENCRYPT_STAGING_DIRECTORY.into(),
        url => {
            let host = url.strip_prefix("https://").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
            let plain = url.bytes().all(|b| b.is_ascii_graphic());
            if host.is_none_or(|host| host.is_empty() || host.contains('@')) || !plain {
                section.mistake("directory", "is not \"production\", \"staging\" or the https:// URL of a directory");
            }
            text
        }
    }
}

fn contact(section: &Section) -> Vec<String> {
    let listed = section.list("contact").unwrap_or_default();
    if listed.is_empty() {
        section.mistake("contact", "missing; add the address of whoever looks after certificates");
    }
    let url = |text: &String| {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let good = address.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
        if !good || !address.bytes().all(|b| b.is_ascii_graphic() && !b"?,<>\"".contains(&b)) {
            section.mistake("contact", "holds something that is not one mail address; write admin@example.org");
        }
        format!("mailto:{address}")
    };
    listed.iter().map(url).collect()
}

fn binding(section: &Section, config: &Config) -> Option<Binding> {
    match (section.text("eab_kid"), section.text("eab_key_file")) {
        (Some(kid), Some(file)) => Some(Binding { kid, key_file: config.resolve(&file) }),
        (None, None) => None,
        (Some(_), None) => {
            section.mistake("eab_key_file", "missing; name the file with the key that belongs to eab_kid");
            None
        }
        (None, Some(_)) => {
            section.mistake("eab_kid", "missing; add the identifier that belongs to eab_key_file");
            None
        }
    }
}
