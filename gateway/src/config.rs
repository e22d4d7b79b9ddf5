//! The gateway's configuration, checked: every mistake with file, key and remedy (interfaces.md; `deploy/gateway.toml`).
//!
//! Relative paths are relative to the file. The environment overrides the file: `POSTKEEP_GATEWAY__SMTP__LISTEN`.
//! A setting that this version does not act on is refused, never ignored.

use crate::{
    alarms::GatewayAlarms,
    sources::{DnsConfig, SourcesConfig},
    sync::SyncConfig,
    tls::acme::AcmeSettings,
};
use postkeep_shared::{
    config::{Config, ConfigError, Section},
    run::LogFormat,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Name of the file where `--config` does not name another.
pub const FILE_NAME: &str = "postkeep-gateway.toml";
/// Prefix of environment variables.
const ENVIRONMENT: &str = "POSTKEEP_GATEWAY";
/// Default of `smtp.max_message_size`: a report with a decrypted second copy is about twice the message.
const MAX_MESSAGE: u64 = 320 * 1024 * 1024;

/// All settings.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The file they came from.
    pub file: PathBuf,
    /// Name of this gateway in greetings, trace headers and certificates; lower case.
    pub hostname: String,
    /// Domains that mail is accepted for, lower case; never empty.
    pub domains: Vec<String>,
    /// Data directory, absolute or relative to the working directory.
    pub data_dir: PathBuf,
    /// `[smtp]`.
    pub smtp: SmtpConfig,
    /// `[pop3]`.
    pub pop3: Pop3Config,
    /// `[tls]`.
    pub tls: TlsConfig,
    /// `[sources]`.
    pub sources: SourcesConfig,
    /// `[dns]`.
    pub dns: DnsConfig,
    /// `[sync]`.
    pub sync: SyncConfig,
    /// `[alarms]` and `[mail]`.
    pub alarms: GatewayAlarms,
    /// `metrics.listen`: where figures and health are told; nowhere unless asked for.
    pub metrics: Vec<SocketAddr>,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[smtp]`.
#[derive(Debug, Clone)]
pub struct SmtpConfig {
    /// Addresses with STARTTLS.
    pub listen: Vec<SocketAddr>,
    /// Addresses with TLS from the first octet.
    pub listen_tls: Vec<SocketAddr>,
    /// Octets, announced in SIZE.
    pub max_message_size: u64,
    /// Connections at once, all clients together.
    pub max_connections: usize,
    /// Connections at once of one IPv4 address or IPv6 /48.
    pub max_connections_per_ip: usize,
    /// Of `max_connections`, those kept for clients in the networks of `[sources]`; none where no network is named.
    pub reserved_connections: usize,
    /// Whether MAIL without TLS is answered `450 4.7.0`.
    pub require_tls: bool,
    /// How long a client may be silent between commands.
    pub command_timeout: Duration,
    /// How long a client may be silent within a message.
    pub data_timeout: Duration,
    /// Longest time from MAIL to the end of its message.
    pub transaction_timeout: Duration,
    /// How long a message may arrive at any rate.
    pub rate_grace: Duration,
    /// Octets per second a message must arrive with after that.
    pub minimum_rate: u64,
}

/// `[pop3]`.
#[derive(Debug, Clone)]
pub struct Pop3Config {
    /// Addresses with STLS.
    pub listen: Vec<SocketAddr>,
    /// Addresses with TLS from the first octet.
    pub listen_tls: Vec<SocketAddr>,
    /// Connections at once, all clients together.
    pub max_connections: usize,
    /// Connections at once of one IPv4 address or IPv6 /48.
    pub max_connections_per_ip: usize,
    /// Of `max_connections`, those kept for addresses that have logged in within a day.
    pub reserved_connections: usize,
    /// How long a client may be silent after login (RFC 1939 §3 asks for ten minutes at least).
    pub idle_timeout: Duration,
    /// How long a client may be silent before login.
    pub login_timeout: Duration,
}

/// `[tls]`.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where the certificate comes from.
    pub source: CertificateSource,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateSource {
    /// Made at the first start, kept in the data directory.
    SelfSigned,
    /// An authority, asked for it again and again (RFC 8555).
    Acme(Box<AcmeSettings>),
    /// PEM files.
    Files {
        /// The certificate, then the ones between it and the root.
        certificate: PathBuf,
        /// Its private key; nobody else may be able to read the file.
        key: PathBuf,
    },
}

impl CertificateSource {
    /// As `tls.mode` names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SelfSigned => "self-signed",
            Self::Acme(_) => "acme",
            Self::Files { .. } => "files",
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Filter, such as `info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl GatewayConfig {
    /// Reads and checks `file` with the environment laid over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::take(Config::read(file, ENVIRONMENT)?)
    }

    /// Checks a text that is to become `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::take(Config::from_text(file, text, ENVIRONMENT)?)
    }

    fn take(config: Config) -> Result<Self, ConfigError> {
        let root = config.root();
        let hostname = root.required("hostname").and_then(|name| host_name(root, "hostname", &name));
        let domains = root.list("domains");
        if domains.as_ref().is_some_and(Vec::is_empty) {
            root.mistake("domains", "is empty; name at least one domain or remove the key to use the host name");
        }
        let domains: Option<Vec<String>> =
            domains.map(|list| list.iter().filter_map(|name| host_name(root, "domains", name)).collect());
        let data_dir = config.resolve(&root.text("data_dir").unwrap_or_else(|| "data".into()));
        let mut taken = BTreeSet::new();
        let smtp = SmtpConfig::take(&root.section("smtp"), &mut taken);
        let pop3 = Pop3Config::take(&root.section("pop3"), &mut taken);
        let tls = TlsConfig::take(&root.section("tls"), &config, hostname.as_deref(), &mut taken);
        let sources = SourcesConfig::take(&root.section("sources"), &config);
        let dns = DnsConfig::take(&root.section("dns"));
        let sync = root.section("sync");
        let sync = SyncConfig::take(&sync, &config, addresses(&sync, "listen", &[], &mut taken));
        let alarms = GatewayAlarms::take(&config, root, hostname.as_deref().unwrap_or_default());
        let metrics = addresses(&root.section("metrics"), "listen", &[], &mut taken);
        let log = LogConfig::take(&root.section("log"));
        let file = config.file().to_owned();
        // A wrong host name is a mistake, so the empty text never leaves here.
        let hostname = hostname.unwrap_or_default();
        let domains = domains.unwrap_or_else(|| vec![hostname.clone()]);
        config.finish()?;
        Ok(Self { file, hostname, domains, data_dir, smtp, pop3, tls, sources, dns, sync, alarms, metrics, log })
    }
}

impl SmtpConfig {
    fn take(section: &Section, taken: &mut BTreeSet<SocketAddr>) -> Self {
        let max_connections = count(section, "max_connections", 500);
        Self {
            listen: addresses(section, "listen", &["0.0.0.0:25", "[::]:25"], taken),
            listen_tls: addresses(section, "listen_tls", &[], taken),
            max_message_size: section.size("max_message_size").unwrap_or(MAX_MESSAGE),
            max_connections,
            max_connections_per_ip: count(section, "max_connections_per_ip", 50),
            reserved_connections: reserved(section, max_connections),
            require_tls: section.flag("require_tls").unwrap_or(false),
            command_timeout: span(section, "command_timeout", 300),
            data_timeout: span(section, "data_timeout", 180),
            transaction_timeout: span(section, "transaction_timeout", 3600),
            rate_grace: span(section, "rate_grace", 60),
            minimum_rate: section.integer("minimum_rate", 0..=1_000_000).map_or(500, i64::unsigned_abs),
        }
    }
}

impl Pop3Config {
    fn take(section: &Section, taken: &mut BTreeSet<SocketAddr>) -> Self {
        let max_connections = count(section, "max_connections", 200);
        Self {
            listen: addresses(section, "listen", &["0.0.0.0:110", "[::]:110"], taken),
            listen_tls: addresses(section, "listen_tls", &["0.0.0.0:995", "[::]:995"], taken),
            max_connections,
            max_connections_per_ip: count(section, "max_connections_per_ip", 20),
            reserved_connections: reserved(section, max_connections),
            idle_timeout: span(section, "idle_timeout", 600),
            login_timeout: span(section, "login_timeout", 60),
        }
    }
}

impl TlsConfig {
    fn take(section: &Section, config: &Config, hostname: Option<&str>, taken: &mut BTreeSet<SocketAddr>) -> Self {
        let mode = section.text("mode").unwrap_or_else(|| "self-signed".into());
        let path = |key| section.text(key).map(|text| config.resolve(&text));
        let (certificate, key) = (path("certificate_file"), path("key_file"));
        if section.has("acme") && mode != "acme" {
            section.mistake("acme", format!("is there although mode is `{mode}`; write mode = \"acme\" or remove it"));
            section.skip("acme");
        }
        let source = match (mode.as_str(), certificate, key) {
            ("self-signed", None, None) => CertificateSource::SelfSigned,
            ("self-signed", ..) => {
                section.mistake("mode", "is `self-signed` although files are named; write mode = \"files\"");
                CertificateSource::SelfSigned
            }
            ("files", Some(certificate), Some(key)) => CertificateSource::Files { certificate, key },
            ("files", ..) => {
                section.mistake("mode", "is `files`, which needs certificate_file and key_file; add what is missing");
                CertificateSource::SelfSigned
            }
            ("acme", None, None) => {
                let acme = section.section("acme");
                let name = |text: &str| host_name(&acme, "names", text);
                let listen = |key: &str, default: &[&str]| addresses(&acme, key, default, taken);
                let hostname = hostname.unwrap_or_default();
                CertificateSource::Acme(Box::new(AcmeSettings::take(&acme, config, hostname, name, listen)))
            }
            ("acme", ..) => {
                section.mistake("mode", "is `acme` although files are named; write mode = \"files\" or remove them");
                section.skip("acme");
                CertificateSource::SelfSigned
            }
            (other, ..) => {
                section.mistake("mode", format!("`{other}` is not one of: acme, files, self-signed"));
                CertificateSource::SelfSigned
            }
        };
        Self { source }
    }
}

impl LogConfig {
    fn take(section: &Section) -> Self {
        let words = ["error", "warn", "info", "debug", "trace"];
        let level = section.choice("level", &words).unwrap_or_else(|| "info".into());
        let json = section.choice("format", &["text", "json"]).is_some_and(|format| format == "json");
        Self { level, format: if json { LogFormat::Json } else { LogFormat::Text } }
    }
}

/// RFC 1123 §2.1 names, which is all that certificates and MX records can carry.
fn host_name(section: &Section, key: &str, name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.parse::<IpAddr>().is_ok() {
        section.mistake(key, format!("`{name}` is an address; write a host name such as msgw.archive.example"));
        return None;
    }
    if lower.len() > 253 || !lower.split('.').all(label) {
        let shown: String = name.chars().take(60).collect();
        section.mistake(
            key,
            format!("`{}` is not a host name; write one such as msgw.archive.example", shown.escape_debug()),
        );
        return None;
    }
    Some(lower)
}

fn addresses(section: &Section, key: &str, default: &[&str], taken: &mut BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    let texts = section.list(key).unwrap_or_else(|| default.iter().map(|&t| t.to_owned()).collect());
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse::<SocketAddr>() {
            // Port 0 means any free one, each time another.
            Ok(address) if address.port() == 0 || taken.insert(address) => addresses.push(address),
            Ok(_) => section.mistake(key, format!("`{text}` is named twice; remove one of them")),
            Err(_) => section.mistake(
                key,
                format!("`{text}` is not an address with a port; write for example 0.0.0.0:25 or [::]:25"),
            ),
        }
    }
    addresses
}

fn count(section: &Section, key: &str, default: usize) -> usize {
    section.integer(key, 1..=100_000).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

/// The connections kept for known clients: a tenth, where nothing else is asked for.
fn reserved(section: &Section, total: usize) -> usize {
    let key = "reserved_connections";
    let reserved = section.integer(key, 0..=100_000).and_then(|n| usize::try_from(n).ok()).unwrap_or(total / 10);
    if reserved >= total {
        section.mistake(key, "leaves no connection for anybody else; make it smaller than max_connections");
    }
    reserved
}

fn span(section: &Section, key: &str, default_seconds: u64) -> Duration {
    let span = section.duration(key);
    if span.is_some_and(|s| s < Duration::from_secs(1)) {
        section.mistake(key, "is shorter than a second; write for example 60s");
    }
    span.unwrap_or(Duration::from_secs(default_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<GatewayConfig, String> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join(FILE_NAME);
        std::fs::write(&file, text).expect("writes");
        GatewayConfig::load(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn one_line_is_enough() {
        let config = load("hostname = 'MsGw.archive.example'").expect("valid");
        assert_eq!(config.hostname, "msgw.archive.example");
        assert_eq!(config.domains, ["msgw.archive.example"]);
        assert!(config.data_dir.ends_with("data"));
        assert_eq!(config.smtp.listen.len(), 2);
        assert_eq!(config.tls.source, CertificateSource::SelfSigned);
    }

    #[test]
    fn acme_needs_a_contact_and_a_yes() {
        let text = "hostname = 'A.example'\n[tls]\nmode = 'acme'\n[tls.acme]\naccept_terms = true\n\
                    contact = ['admin@aurora.example']\nnames = ['B.example', 'a.example']\n";
        let CertificateSource::Acme(settings) = load(text).expect("valid").tls.source else { panic!("not acme") };
        assert_eq!(settings.names, ["a.example", "b.example"]);
        assert_eq!(settings.contact, ["mailto:admin@aurora.example"]);
        assert_eq!(settings.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!((settings.tls_listen.len(), settings.http_listen.len()), (2, 2));
    }

    #[test]
    fn mistakes_name_key_and_remedy() {
        for (text, wanted) in [
            ("", "hostname: missing; add it"),
            ("hostname = 'a_b'", "hostname: `a_b` is not a host name"),
            ("hostname = '127.0.0.1'", "hostname: `127.0.0.1` is an address"),
            ("hostname = 'a'\ndomains = []", "domains: is empty"),
            ("hostname = 'a'\ndomain = ['b']", "domain: unknown key; did you mean `domains`?"),
            ("hostname = 'a'\n[smtp]\nlisten = ['25']", "smtp.listen: `25` is not an address"),
            ("hostname = 'a'\n[smtp]\nlisten = ['1.2.3.4:65536']", "smtp.listen: `1.2.3.4:65536` is not an address"),
            (
                "hostname = 'a'\n[smtp]\nlisten = ['0.0.0.0:25', '0.0.0.0:25']",
                "smtp.listen: `0.0.0.0:25` is named twice",
            ),
            ("hostname = 'a'\n[smtp]\nmax_message_size = '1 GB'", "smtp.max_message_size: `1 GB` is not a size"),
            ("hostname = 'a'\n[pop3]\nidle_timeout = '0s'", "pop3.idle_timeout: is shorter than a second"),
            ("hostname = 'a'\n[tls]\nmode = 'files'", "tls.mode: is `files`, which needs"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'", "tls.acme.accept_terms: read the terms"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'", "tls.acme.contact: missing"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'\nkey_file = 'k'", "tls.mode: is `acme` although files are named"),
            (
                "hostname = 'a'\n[tls.acme]\ncontact = 'a@b.example'",
                "tls.acme: is there although mode is `self-signed`",
            ),
            ("hostname = 'a'\n[tls]\nmode = 'acme'\n[tls.acme]\ndirectory = 'http://a/'", "tls.acme.directory: is not"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'\n[tls.acme]\ncontact = 'me'", "tls.acme.contact: holds something"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'\n[tls.acme]\nnames = ['a_b']", "tls.acme.names: `a_b` is not a"),
            ("hostname = 'a'\n[tls]\nmode = 'acme'\n[tls.acme]\neab_kid = 'k'", "tls.acme.eab_key_file: missing"),
            (
                "hostname = 'a'\n[tls]\nmode = 'acme'\n[tls.acme]\ntls_listen = []\nhttp_listen = []",
                "tls.acme.tls_listen: and http_listen are both empty",
            ),
            (
                "hostname = 'a'\n[smtp]\nlisten = ['1.2.3.4:443']\n[tls]\nmode = 'acme'\n[tls.acme]\n\
                 tls_listen = ['1.2.3.4:443']",
                "tls.acme.tls_listen: `1.2.3.4:443` is named twice",
            ),
            ("hostname = 'a'\n[metrics]\nlisten = ['1']", "metrics.listen: `1` is not an address"),
            ("hostname = 5", "hostname: must be a text in quotes, not a number"),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
