//! The archiver's settings: `postkeep-archiver.toml` (every setting: `deploy/archiver.toml`), checked as a whole.
//!
//! Nothing here opens a password file, a store or a connection.

mod reading;
mod rhythm;
mod service;

pub use postkeep_shared::tls::Verify;
pub use reading::Reading;
pub use rhythm::{MaxPerRound, Rhythm, Timeouts, Window};
pub use service::{MetricsConfig, ServeConfig};

use crate::{
    filing::{self, Rules, Template},
    journal::Profile,
    probe::Probe,
    store::CatalogMemory,
    watch::ArchiverAlarms,
};
use postkeep_shared::{
    config::{Config, ConfigError, Section, find_file},
    mail::MailboxId,
    run::{Failure, LogFormat, init_logs},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Name of the configuration file where none is given.
pub const FILE_NAME: &str = "postkeep-archiver.toml";
/// Prefix of the environment variables that override settings.
pub const ENVIRONMENT: &str = "POSTKEEP_ARCHIVER";
/// Messages after which a store is followed by the next, unless the configuration says otherwise.
const NEW_STORE_AT: u64 = 5_000_000;

/// Everything the file says, checked.
#[derive(Debug, Clone)]
pub struct ArchiverConfig {
    /// The file it came from.
    pub file: PathBuf,
    /// Where state and stores are.
    pub data_dir: PathBuf,
    /// Domains whose addresses should all have an owner, lower case.
    pub own_domains: Vec<String>,
    /// The owners and their addresses.
    pub owners_file: PathBuf,
    /// What begins the detail of an address (`ann+tag@`); `None`: every address is one of its own.
    pub sub_addressing: Option<char>,
    /// What to collect, in the order of the file.
    pub sources: Vec<Source>,
    /// Messages after which a store is followed by the next.
    pub new_store_at: u64,
    /// Memory for the catalog of each open store.
    pub catalog_memory: CatalogMemory,
    /// How `serve` works.
    pub serve: ServeConfig,
    /// Where metrics and health are told.
    pub metrics: MetricsConfig,
    /// Who is told of what.
    pub alarms: ArchiverAlarms,
    /// Messages that must come back.
    pub probes: Vec<Probe>,
    /// DNS servers to ask; empty for those of the system.
    pub dns: Vec<SocketAddr>,
    /// How to log.
    pub log: Log,
    /// Time between two reconciles of `serve`; `None`: only by command.
    pub reconcile_interval: Option<Duration>,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// The folder they are written to.
    pub dir: PathBuf,
    /// Time between two of `serve`; `None`: only by command.
    pub interval: Option<Duration>,
    /// Addresses that get each by mail.
    pub mail: Vec<String>,
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A filter such as `info`.
    pub level: String,
    /// Text or JSON lines.
    pub format: LogFormat,
}

impl Log {
    /// Starts logging.
    pub fn start(&self) {
        // What the catalog's and the state's libraries tell about themselves is noise, unless it was asked for.
        let quiet = if self.level.contains('=') { "" } else { ",fjall=warn,lsm_tree=warn,sled=warn" };
        init_logs(&format!("{}{quiet}", self.level), self.format);
    }
}

/// One place that reports are collected from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What the other side is.
    pub kind: SourceKind,
    /// How its messages are read.
    pub profile: Profile,
    /// Every host is asked in every round; empty where `mx` names them.
    pub hosts: Vec<Host>,
    /// Every host behind this name is asked in every round.
    pub mx: Option<Mx>,
    /// DNS servers to ask for `mx`; empty for those of the system.
    pub dns: Vec<SocketAddr>,
    /// Short names of the nodes that may sign on its hosts; empty: the one seen first on a host.
    pub nodes: Vec<String>,
    /// Login name.
    pub mailbox: String,
    /// First line: the password; more lines: others to try, such as the one before. Readable by its owner only.
    pub password_file: PathBuf,
    /// How the server's certificate is checked.
    pub tls: Verify,
    /// When `serve` asks it.
    pub rhythm: Rhythm,
    /// How long its servers may take.
    pub timeouts: Timeouts,
    /// What one round takes from one host at most.
    pub max_per_round: MaxPerRound,
    /// When a stored report is deleted at its source.
    pub delete: DeleteRule,
    /// What happens to a report that concerns no owner.
    pub unknown: Unknown,
    /// The name of the folder in an owner's archive.
    pub folder: Template,
    /// How its messages are read.
    pub reading: Reading,
}

/// What the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A Postkeep gateway: every message must carry its receipt.
    Gateway,
    /// Any POP3 server.
    Pop3,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name or address, without brackets.
    pub name: String,
    /// TCP port; on 110 TLS begins with STLS, on every other at once.
    pub port: u16,
    /// Addresses as the DNS told; empty: the system is asked when connecting.
    pub addresses: Vec<IpAddr>,
}

/// A name whose mail exchangers are the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// The name, such as `msgw.example`.
    pub name: String,
    /// POP3 port of its hosts.
    pub port: u16,
}

impl Host {
    /// Whether TLS begins with STLS instead of with the connection.
    #[must_use]
    pub fn uses_stls(&self) -> bool {
        self.port == 110
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// When a stored report is deleted at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteRule {
    /// In the session that fetched it, once the store has proved it.
    AtOnce,
    /// This long after it was stored.
    After(Duration),
    /// Not at all.
    Never,
}

/// What happens to a report that concerns no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Archived as `@catchall`.
    CatchAll,
    /// Left in the source and counted.
    Leave,
}

impl ArchiverConfig {
    /// Finds (see [`find_file`]) and loads the configuration.
    ///
    /// # Errors
    /// Exit 2 with every mistake.
    pub fn find(named: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self::load(&find_file(named, FILE_NAME))?)
    }

    /// Loads `file` with the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let config = Config::read(file, ENVIRONMENT)?;
        let root = config.root();
        let data_dir = config.resolve(&root.required("data_dir").unwrap_or_default());
        let owners_file = config.resolve(&root.text("owners_file").unwrap_or_else(|| "owners.toml".into()));
        let own_domains = own_domains(root);
        let sub_addressing = sub_addressing(root);
        let tables = root.tables("source");
        let dns = dns(&root.section("dns"));
        let sources: Vec<Source> = tables.iter().map(|table| source(&config, table, &dns)).collect();
        let mut names = BTreeSet::new();
        for (source, table) in sources.iter().zip(&tables) {
            if !source.name.is_empty() && !names.insert(source.name.clone()) {
                table.mistake("name", format!("`{}` names a source before this one; choose another", source.name));
            }
        }
        let store = root.section("store");
        let (new_store_at, catalog_memory) = (new_store_at(&store), catalog_memory(&store));
        let serve = ServeConfig::read(&root.section("serve"));
        let metrics = MetricsConfig::read(&root.section("metrics"));
        let alarms = ArchiverAlarms::take(&config, root);
        let probes = Probe::take_all(&config, root);
        let log = log(&root.section("log"));
        let reconcile_interval = interval(&root.section("reconcile"), "1h");
        let checkpoint = checkpoint(&config, &root.section("checkpoint"), &data_dir);
        config.finish()?;
        Ok(Self {
            file: file.to_owned(),
            data_dir,
            own_domains,
            owners_file,
            sub_addressing,
            sources,
            new_store_at,
            catalog_memory,
            serve,
            metrics,
            alarms,
            probes,
            dns,
            log,
            reconcile_interval,
            checkpoint,
        })
    }

    /// How messages of a source are filed; those of a source that is not there any more as by default.
    #[must_use]
    pub fn rules(&self, source: &str) -> Rules {
        let source = self.sources.iter().find(|s| s.name == source);
        Rules {
            own_domains: self.own_domains.clone(),
            unknown: match source.map(|s| s.unknown) {
                Some(Unknown::Leave) => filing::Unknown::Leave,
                Some(Unknown::CatchAll) | None => filing::Unknown::CatchAll,
            },
            folder: source.map(|s| s.folder.clone()).unwrap_or_default(),
            sub_addressing: self.sub_addressing,
        }
    }

    /// Held while the owners file is written.
    #[must_use]
    pub fn owners_lock_file(&self) -> PathBuf {
        self.data_dir.join("owners.lock")
    }

    /// The writer's lock.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.data_dir.join("lock")
    }

    /// Sources that were paused by command, a file each.
    #[must_use]
    pub fn paused_dir(&self) -> PathBuf {
        self.data_dir.join("paused")
    }

    /// Where `serve` can be spoken to.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("control.sock")
    }

    /// Encrypted temporary files.
    #[must_use]
    pub fn staging_dir(&self) -> PathBuf {
        self.data_dir.join("staging")
    }

    /// What was last seen of each source; may be deleted.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.data_dir.join("state")
    }

    /// The folder of the stores.
    #[must_use]
    pub fn stores_dir(&self) -> PathBuf {
        self.data_dir.join("stores")
    }

    /// The key that opens the store unattended.
    #[must_use]
    pub fn unlock_key_file(&self) -> PathBuf {
        self.data_dir.join("unlock.key")
    }

    /// The key that signs checkpoints.
    #[must_use]
    pub fn signing_key_file(&self) -> PathBuf {
        self.data_dir.join("archiver.key")
    }
}

fn own_domains(root: &Section) -> Vec<String> {
    let domains: Vec<String> =
        root.list("own_domains").unwrap_or_default().iter().map(|d| d.to_ascii_lowercase()).collect();
    for domain in domains.iter().filter(|d| d.is_empty() || d.contains(['@', ' ', '/']) || d.starts_with('.')) {
        root.mistake("own_domains", format!("`{domain}` is not a domain; write for example \"aurora.example\""));
    }
    domains
}

fn sub_addressing(root: &Section) -> Option<char> {
    let text = root.text("sub_addressing").unwrap_or_else(|| "+".into());
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => None,
        (Some(c), None) if c.is_ascii_punctuation() && !"@\"<>(),:;\\[]/".contains(c) => Some(c),
        _ => {
            root.mistake("sub_addressing", "must be one character such as \"+\" or \"-\", or \"\" for none");
            None
        }
    }
}

/// `[store]`.
fn new_store_at(section: &Section) -> u64 {
    let number = section.integer("new_store_at", 1..=i64::MAX);
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(NEW_STORE_AT)
}

/// MiB, from 8 on.
fn catalog_memory(section: &Section) -> CatalogMemory {
    let mebibytes = section.integer("catalog_memory", 8..=65_536).and_then(|number| u64::try_from(number).ok());
    mebibytes.map_or_else(CatalogMemory::default, |mebibytes| CatalogMemory(mebibytes * 1024 * 1024))
}

fn log(section: &Section) -> Log {
    let format = section.choice("format", &["text", "json"]);
    let format = if format.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text };
    Log { level: section.text("level").unwrap_or_else(|| "info".into()), format }
}

/// `interval = "1h"`, or `"never"`.
fn interval(section: &Section, usual: &str) -> Option<Duration> {
    let text = section.text("interval").unwrap_or_else(|| usual.to_owned());
    if text == "never" {
        return None;
    }
    match postkeep_shared::config::parse_duration(&text) {
        Ok(span) if span >= Duration::from_secs(60) => Some(span),
        Ok(_) => {
            section.mistake("interval", "shorter than a minute; write for example \"1h\", or \"never\"");
            None
        }
        Err(error) => {
            section.mistake("interval", format!("{error}, or \"never\""));
            None
        }
    }
}

fn checkpoint(config: &Config, section: &Section, data_dir: &Path) -> CheckpointSettings {
    let dir = section.text("dir").map_or_else(|| data_dir.join("checkpoints"), |dir| config.resolve(&dir));
    let mail = section.list("mail").unwrap_or_default();
    for address in
        mail.iter().filter(|a| a.rsplit_once('@').is_none_or(|(local, host)| local.is_empty() || host.is_empty()))
    {
        section.mistake("mail", format!("`{address}` is not an address; write it as name@domain"));
    }
    CheckpointSettings { dir, interval: interval(section, "1d"), mail }
}

/// `[dns]`: servers to ask instead of the system's.
fn dns(section: &Section) -> Vec<SocketAddr> {
    let servers = section.list("servers").unwrap_or_default();
    let server = |text: &String| {
        let whole = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 53).into()));
        if whole.is_err() {
            let shown: String = text.chars().take(60).collect();
            let text = format!("`{}` is not the address of a server; write 127.0.0.1:53", shown.escape_debug());
            section.mistake("servers", text);
        }
        whole.ok()
    };
    servers.iter().filter_map(server).collect()
}

fn source(config: &Config, table: &Section, dns: &[SocketAddr]) -> Source {
    let name = table.required("name").unwrap_or_default();
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) || name.len() > 64 {
        table.mistake("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    let kind = match table.choice("kind", &["gateway", "pop3"]).as_deref() {
        Some("pop3") => SourceKind::Pop3,
        _ => SourceKind::Gateway,
    };
    let profile = match table.choice("profile", &["journal", "multidrop", "single"]).as_deref() {
        Some("multidrop") => Profile::Multidrop,
        Some("single") => Profile::Single,
        _ => Profile::Journal,
    };
    let unknown = match table.choice("unknown", &["catchall", "leave"]).as_deref() {
        Some("leave") => Unknown::Leave,
        _ => Unknown::CatchAll,
    };
    let folder = table.text("folder").map(|text| Template::parse(&text)).transpose().unwrap_or_else(|text| {
        table.mistake("folder", text);
        None
    });
    let mailbox = table.required("mailbox").unwrap_or_default();
    if mailbox.is_empty() && table.has("mailbox") || mailbox.chars().any(char::is_control) {
        table.mistake("mailbox", "must be the login name, for a gateway \"mbx-…\"");
    }
    let local = mailbox.split('@').next().unwrap_or_default();
    if kind == SourceKind::Gateway && !mailbox.is_empty() && local.parse::<MailboxId>().is_err() {
        table.mistake(
            "mailbox",
            "a gateway mailbox is `mbx-` and 32 hex digits; for another server set kind = \"pop3\"",
        );
    }
    if table.has("password") {
        table.text("password");
        table.mistake(
            "password",
            "passwords do not stand in the configuration; put it into a file and name that as `password_file`",
        );
    }
    Source {
        name,
        kind,
        profile,
        hosts: hosts(table),
        mx: mx(table),
        dns: dns.to_vec(),
        nodes: nodes(table),
        mailbox,
        password_file: config.resolve(&table.required("password_file").unwrap_or_default()),
        tls: Verify::take(config, &table.section("tls")),
        rhythm: Rhythm::read(table),
        timeouts: Timeouts::read(table),
        max_per_round: MaxPerRound::read(table),
        delete: delete(table),
        unknown,
        folder: folder.unwrap_or_default(),
        reading: Reading::read(table, kind, profile),
    }
}

fn hosts(table: &Section) -> Vec<Host> {
    let listed = table.list("hosts").unwrap_or_default();
    match (table.text("mx"), listed.is_empty()) {
        (Some(_), false) => {
            table.mistake("mx", "does not go with `hosts`: name the hosts, or the MX name that leads to them")
        }
        (None, true) => {
            let text = "missing; add for example hosts = [\"msgw.example:995\"], or mx = \"msgw.example\"";
            table.mistake("hosts", text);
        }
        _ => {}
    }
    let parsed = listed.iter().filter_map(|text| {
        let host = host(text);
        if host.is_none() {
            table
                .mistake("hosts", format!("`{text}` is not a host; write name:port, for example \"msgw.example:995\""));
        }
        host
    });
    parsed.collect()
}

/// `name` (port 995) or `name:port`.
fn mx(table: &Section) -> Option<Mx> {
    let text = table.text("mx")?;
    match host(&text) {
        Some(Host { name, port, .. }) if name.parse::<IpAddr>().is_err() => Some(Mx { name, port }),
        _ => {
            table.mistake("mx", format!("`{text}` is not a name; write for example \"msgw.example\""));
            None
        }
    }
}

/// Short names of nodes, or the beginning of one.
fn nodes(table: &Section) -> Vec<String> {
    let nodes = table.list("nodes").unwrap_or_default();
    for node in
        nodes.iter().filter(|node| node.len() != 16 || !node.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')))
    {
        table.mistake("nodes", format!("`{node}` is not a node; write the 16 hex digits that `reconcile` prints"));
    }
    nodes
}

/// `name:port`, `name` (port 995), `[v6]:port`.
#[must_use]
pub fn host(text: &str) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            name.parse::<std::net::Ipv6Addr>().ok()?;
            (name, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > 253 || !(text.starts_with('[') || name.chars().all(plain)) {
        return None;
    }
    let port = port.map_or(Some(995), |port| port.parse().ok()).filter(|port| *port > 0)?;
    Some(Host { name: name.to_owned(), port, addresses: Vec::new() })
}

fn delete(table: &Section) -> DeleteRule {
    let Some(text) = table.text("delete") else { return DeleteRule::AtOnce };
    match (text.as_str(), text.strip_prefix("after ").map(postkeep_shared::config::parse_duration)) {
        ("at-once", _) => DeleteRule::AtOnce,
        ("never", _) => DeleteRule::Never,
        (_, Some(Ok(after))) => DeleteRule::After(after),
        (text, _) => {
            table.mistake("delete", format!("`{text}` is not one of: at-once, after 7d, never"));
            DeleteRule::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ArchiverConfig, ConfigError> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).expect("writes");
        ArchiverConfig::load(&file)
    }

    const SOURCE: &str = "data_dir = 'data'\n[[source]]\nname = 'm365'\nhosts = ['msgw1.example:995', '[::1]:110']\n\
                          mailbox = 'mbx-000102030405060708090a0b0c0d0e0f'\npassword_file = 'm365.password'\n";

    #[test]
    fn defaults_are_the_careful_ones() {
        let config = load(SOURCE).expect("valid");
        let source = &config.sources[0];
        assert_eq!(source.kind, SourceKind::Gateway);
        assert_eq!(source.tls, Verify::System);
        assert_eq!(source.delete, DeleteRule::AtOnce);
        assert_eq!(source.unknown, Unknown::CatchAll);
        assert_eq!((source.rhythm.interval.as_secs(), source.rhythm.jitter.as_secs()), (60, 6));
        assert!(!source.rhythm.pause && source.rhythm.maintenance.is_empty());
        assert_eq!((source.timeouts, source.max_per_round), (Timeouts::USUAL, MaxPerRound::default()));
        assert!(config.metrics.listen.is_empty());
        assert_eq!((&source.folder, config.sub_addressing), (&Template::default(), Some('+')));
        assert_eq!(source.hosts[1].to_string(), "[::1]:110");
        assert!(source.hosts[1].uses_stls() && !source.hosts[0].uses_stls());
        assert!(config.data_dir.ends_with("data") && config.data_dir.is_absolute());
    }

    #[test]
    fn every_mistake_has_its_sentence() {
        for (line, expected) in [
            ("delet = 'never'", "did you mean `delete`?"),
            ("delete = 'after lunch'", "is not one of: at-once, after 7d, never"),
            ("tls = { verify = 'none' }", "is not one of: pin, system, ca"),
            ("tls = { verify = 'pin' }", "source[1].tls.pin_sha256: missing"),
            ("tls = { verify = 'pin', pin_sha256 = ['00'] }", "64 hex digits"),
            ("tls = { verify = 'ca' }", "ca_file: missing"),
            ("tls = { pin_sha256 = ['00'] }", "does not go with"),
            ("interval = '5 years'", "is not a time span"),
            ("interval = '10ms'", "shorter than a second"),
            ("maintenance = '2-4'", "source[1].maintenance: `2-4` is not a time of day (UTC)"),
            ("answer_timeout = '10ms'", "shorter than a second"),
            ("max_per_round = 5", "source[1].max_per_round: must be a table"),
            ("max_per_round = { messages = 0 }", "source[1].max_per_round.messages: must be a whole number from 1"),
            ("[serve]\nparallel_sources = 0", "serve.parallel_sources: must be a whole number from 1 to 64"),
            ("[metrics]\nlisten = ['localhost']", "metrics.listen: `localhost` is not an address with a port"),
            ("password = 'secret-word'", "put it into a file"),
            ("mx = 'msgw.example'", "does not go with `hosts`"),
            ("nodes = ['x']", "is not a node"),
            ("kind = 5", "must be a text in quotes, not a number"),
            ("owner = 'ann'", "goes with profile = \"single\" only"),
            ("profile = 'single'", "source[1].owner: missing"),
            ("networks = []", "an empty list"),
            ("networks = ['192.0.2.1/24']", "write the network's own address"),
            ("mail_from = ['aurora.example']", "is not a reverse-path"),
            ("tenants = ['a b']", "is not a name"),
            ("envelope_headers = ['X-Envelope-To:']", "is not the name of a header"),
            ("ignore_addresses = ['journal']", "is not an address"),
            ("tenant = ['x']", "did you mean `tenants`?"),
            ("unknown = 'drop'", "is not one of: catchall, leave"),
            ("folder = 'Mail {yaer}'", "source[1].folder: `{yaer}` is not known; the places are {u-email}"),
            ("[[source]]\nname = 'm365'\nhosts = ['x']\nmailbox = 'y'\npassword_file = 'z'", "names a source before"),
            ("[[source]]\nname = 'a b'\nhosts = ['x:0']\npassword_file = 'z'", "source[2].mailbox: missing"),
        ] {
            let text = load(&format!("{SOURCE}{line}\n")).expect_err(line).to_string();
            assert!(text.contains(expected), "{line}: {text}");
            assert!(!text.contains("secret-word"));
        }
    }

    #[test]
    fn separators_of_details() {
        let read = |text: &str| load(&format!("sub_addressing = '{text}'\n{SOURCE}")).map(|c| c.sub_addressing);
        assert_eq!(read("-").expect("valid"), Some('-'));
        assert_eq!(read("").expect("valid"), None);
        assert!(read("++").is_err() && read("@").is_err() && read("a").is_err());
    }

    #[test]
    fn evidence_of_the_gateway_needs_a_gateway() {
        let pop3 = SOURCE.replace("mailbox = 'mbx-000102030405060708090a0b0c0d0e0f'", "kind = 'pop3'\nmailbox = 'all'");
        for line in ["networks = ['192.0.2.0/24']", "tls_names = ['x']", "mail_from = ['<>']"] {
            let text = load(&format!("{pop3}{line}\n")).expect_err(line).to_string();
            assert!(text.contains("only a gateway tells"), "{text}");
        }
        let reading = load(&format!(
            "{SOURCE}networks = ['192.0.2.0/24']\ntls_names = ['x']\nmail_from = ['<>', '@a.example']\n\
             tenants = ['a.example']\ntrusted_host = 'mx.example'\nignore_addresses = ['all@a.example']\n\
             envelope_headers = ['X-Envelope-To']\n"
        ))
        .expect("valid")
        .sources
        .remove(0)
        .reading;
        assert_eq!((reading.evidence.networks.len(), reading.evidence.mail_from.len()), (1, 2));
        assert_eq!(reading.envelope_headers, ["x-envelope-to"]);
        assert!(load(&format!("{pop3}profile = 'single'\nowner = 'ann'\n")).is_ok());
    }

    #[test]
    fn an_mx_name_in_place_of_hosts() {
        let text = SOURCE.replace("hosts = ['msgw1.example:995', '[::1]:110']", "mx = 'msgw.example'");
        let config = load(&format!("[dns]\nservers = ['127.0.0.1:5353']\n{}", text.replace("data_dir = 'data'\n", "")));
        assert!(config.is_err(), "data_dir is missing");
        let config = load(&text.replace("[[source]]", "[dns]\nservers = ['192.0.2.1']\n[[source]]")).expect("valid");
        let source = &config.sources[0];
        assert_eq!(source.mx, Some(Mx { name: "msgw.example".into(), port: 995 }));
        assert!(source.hosts.is_empty() && source.dns == ["192.0.2.1:53".parse().expect("an address")]);
        assert!(load(&text.replace("msgw.example", "192.0.2.1")).is_err());
    }

    #[test]
    fn delete_rules() {
        let rule = |text: &str| load(&format!("{SOURCE}delete = '{text}'\n")).expect("valid").sources[0].delete;
        assert_eq!(rule("after 7d"), DeleteRule::After(Duration::from_secs(7 * 86_400)));
        assert_eq!(rule("never"), DeleteRule::Never);
    }
}
