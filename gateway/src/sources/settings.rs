//! `[sources]`, `[sources.mailbox."mbx-…"]` and `[dns]` of the configuration, checked.

use super::{
    network::{Network, shown},
    record,
    rules::{Action, Rules, Sender},
    tls_name::TlsName,
};
use postkeep_shared::{
    config::{Config, Section},
    mail::MailboxId,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where all tenants of a service share what is checked (so it proves the service and not the customer).
const SHARED: [&str; 3] = ["outlook.com", "google.com", "googlemail.com"];

/// The source rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcesConfig {
    /// `[sources]`: for mailboxes without rules of their own.
    pub global: Rules,
    /// The rules of the mailboxes with a section, complete.
    pub mailboxes: BTreeMap<MailboxId, Rules>,
    /// The authorities whose clients `tls_names` believes; `None` for those of the system.
    pub client_ca_file: Option<PathBuf>,
    /// What is allowed and probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// `[dns]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Servers to ask; empty for those of the system.
    pub servers: Vec<SocketAddr>,
    /// Whether clients' reverse names are looked up.
    pub reverse: bool,
}

impl SourcesConfig {
    /// Takes `[sources]`, reporting mistakes there.
    pub fn take(section: &Section, config: &Config) -> Self {
        let mut warnings = Vec::new();
        let global = rules(section, &Rules::default(), "sources", false, &mut warnings);
        let client_ca_file = section.text("client_ca_file").map(|text| config.resolve(&text));
        let mailbox = section.section("mailbox");
        let mut mailboxes = BTreeMap::new();
        for key in mailbox.keys() {
            let own = mailbox.section(&key);
            let rules = rules(&own, &global, &format!("sources.mailbox.{}", shown(&key)), true, &mut warnings);
            match key.parse::<MailboxId>() {
                Ok(id) if mailboxes.insert(id, rules).is_none() => {}
                Ok(_) => mailbox.mistake(&key, "is named twice; remove one of them"),
                Err(_) => mailbox.mistake(&key, "is not a mailbox; write its whole name, `mbx-` and 32 hex digits"),
            }
        }
        if global.action == Action::Refuse && global.is_empty() && mailboxes.is_empty() {
            section
                .mistake("action", "there is no rule it could apply to; add networks, spf_of, tls_names or mail_from");
        }
        Self { global, mailboxes, client_ca_file, warnings }
    }

    /// The rules of this mailbox.
    #[must_use]
    pub fn of(&self, mailbox: &MailboxId) -> &Rules {
        self.mailboxes.get(mailbox).unwrap_or(&self.global)
    }

    /// Every rule there is.
    pub fn all(&self) -> impl Iterator<Item = &Rules> {
        std::iter::once(&self.global).chain(self.mailboxes.values())
    }

    /// Whether an address is in one of the `networks` of any rule.
    #[must_use]
    pub fn names_network_of(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.all().flat_map(|rules| &rules.networks).any(|network| network.contains(ip))
    }

    /// Domains whose SPF records are used, each once.
    #[must_use]
    pub fn spf_domains(&self) -> Vec<&str> {
        let mut domains: Vec<&str> = self.all().flat_map(|rules| &rules.spf_of).map(String::as_str).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }
}

impl DnsConfig {
    /// Takes `[dns]`, reporting mistakes there.
    pub fn take(section: &Section) -> Self {
        let servers = section.list("servers");
        if servers.as_ref().is_some_and(Vec::is_empty) {
            section.mistake("servers", "is empty; name a server or remove the key to use the system's");
        }
        let server = |text: &String| {
            let whole = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 53).into()));
            match whole {
                Ok(server) if server.port() != 0 => Some(server),
                _ => {
                    let text = shown(text);
                    section.mistake("servers", format!("`{text}` is not the address of a server; write 127.0.0.1:53"));
                    None
                }
            }
        };
        let servers = servers.iter().flatten().filter_map(server).collect();
        Self { servers, reverse: section.flag("reverse").unwrap_or(false) }
    }
}

/// One table of rules over those it inherits: a key that is there replaces the inherited one.
fn rules(section: &Section, above: &Rules, place: &str, inherits: bool, warnings: &mut Vec<String>) -> Rules {
    let spf_domain = |text: &str| record::domain(text).map_err(|_| name_forms(text, "spf.protection.outlook.com"));
    let tls_name = |text: &str| {
        TlsName::parse(text).ok_or_else(|| name_forms(text, "mail.protection.outlook.com or *.aurora.example"))
    };
    let rules = Rules {
        networks: list(section, "networks", inherits, Network::parse).unwrap_or_else(|| above.networks.clone()),
        spf_of: list(section, "spf_of", inherits, spf_domain).unwrap_or_else(|| above.spf_of.clone()),
        tls_names: list(section, "tls_names", inherits, tls_name).unwrap_or_else(|| above.tls_names.clone()),
        mail_from: list(section, "mail_from", inherits, Sender::parse).unwrap_or_else(|| above.mail_from.clone()),
        action: match section.choice("action", &["label", "refuse"]).as_deref() {
            Some("refuse") => Action::Refuse,
            Some(_) => Action::Label,
            None => above.action,
        },
    };
    for network in rules.networks.iter().filter(|network| network.is_everything() && section.has("networks")) {
        warnings.push(format!("{place}.networks: {network} is every address, so every client counts as verified"));
    }
    let named = |key: &str, names: &[String]| -> Vec<String> {
        let shared = |name: &&String| SHARED.iter().any(|of| name.ends_with(&format!(".{of}")) || name == of);
        names.iter().filter(shared).map(|name| format!("{key} {name}")).collect()
    };
    let tls_names: Vec<String> = rules.tls_names.iter().map(ToString::to_string).collect();
    let shared = [named("spf_of", &rules.spf_of), named("tls_names", &tls_names)].concat();
    let touched = ["spf_of", "tls_names", "mail_from"].into_iter().any(|key| section.has(key));
    if let (Some(rule), true, true) = (shared.first(), rules.mail_from.is_empty(), touched) {
        warnings
            .push(format!("{place}: {rule} fits every customer of that service; add mail_from to bind it to yours"));
    }
    rules
}

/// A list of texts, each read by `parse`. An empty one would say "nobody" to some and "anybody" to others, so it is
/// allowed only where it has one meaning: to take away what is inherited.
fn list<T>(
    section: &Section,
    key: &str,
    may_be_empty: bool,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let texts = section.list(key)?;
    if texts.is_empty() && !may_be_empty {
        section.mistake(key, "is empty; name what is allowed, or remove the key to allow anything");
    }
    let parsed = texts.iter().filter_map(|text| parse(text).map_err(|remedy| section.mistake(key, remedy)).ok());
    Some(parsed.collect())
}

fn name_forms(text: &str, example: &str) -> String {
    format!("`{}` is not a domain name; write for example {example}", shown(text))
}
