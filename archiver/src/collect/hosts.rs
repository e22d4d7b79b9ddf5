//! Which hosts a source is pulled from: those of the configuration, or all behind an MX name, looked up in every round.
//!
//! A host that has left the MX is still asked until it was reached once more and nothing waited there: however the DNS
//! is switched, no mail stays behind on a gateway that nobody names any more. When the DNS cannot be asked, the hosts of
//! the last time are.

use crate::config::{Host, Mx, Source};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Longest wait for one answer, repetition included.
const QUERY: Duration = Duration::from_secs(5);

/// The hosts of one round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Those to ask.
    pub hosts: Vec<Host>,
    /// Of those, hosts that are not behind the MX any more.
    pub left: Vec<Host>,
    /// Why the DNS could not tell.
    pub problem: Option<String>,
}

/// A host as the state remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    name: String,
    port: u16,
    addresses: Vec<IpAddr>,
}

impl From<&Host> for Remembered {
    fn from(host: &Host) -> Self {
        Self { name: host.name.clone(), port: host.port, addresses: host.addresses.clone() }
    }
}

impl From<&Remembered> for Host {
    fn from(host: &Remembered) -> Self {
        Self { name: host.name.clone(), port: host.port, addresses: host.addresses.clone() }
    }
}

/// Finds the hosts to ask now; `before`: those remembered from the rounds before.
pub async fn find(source: &Source, before: &[Remembered]) -> Round {
    let Some(mx) = &source.mx else {
        return Round { hosts: source.hosts.clone(), ..Round::default() };
    };
    let looked_up = async { Lookup::new(&source.dns)?.exchangers(mx).await };
    let (mut hosts, problem) = match looked_up.await {
        Ok(hosts) => (hosts, None),
        Err(text) => (Vec::new(), Some(format!("the hosts behind {} are not known: {text}", mx.name))),
    };
    let mut left = Vec::new();
    for host in before.iter().map(Host::from) {
        if !hosts.iter().any(|now| now.to_string() == host.to_string()) {
            left.push(host.clone());
            hosts.push(host);
        }
    }
    if problem.is_some() {
        left.clear();
    }
    Round { hosts, left, problem }
}

/// A host with the addresses that the source's own DNS servers know for it.
pub async fn resolved(source: &Source, host: Host) -> Host {
    if source.dns.is_empty() || !host.addresses.is_empty() {
        return host;
    }
    let looked_up = async { Lookup::new(&source.dns)?.addresses(&host.name).await };
    // Without an answer the connection fails and says so.
    let addresses = looked_up.await.unwrap_or_default();
    Host { addresses, ..host }
}

/// The DNS, asked anew each time.
struct Lookup(TokioResolver);

impl Lookup {
    fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let failed = |error: NetError| format!("{error}; name DNS servers as `servers` in [dns]");
        let provider = TokioRuntimeProvider::default();
        let mut builder = if servers.is_empty() {
            TokioResolver::builder(provider).map_err(failed)?
        } else {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers.collect()),
                provider,
            )
        };
        let options = builder.options_mut();
        options.timeout = QUERY / 2;
        options.attempts = 2;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map(Self).map_err(|e| e.to_string())
    }

    /// The mail exchangers of a name with their addresses, best first. A name without MX is its own (RFC 5321 §5.1), under
    /// the name its aliases lead to.
    async fn exchangers(&self, mx: &Mx) -> Result<Vec<Host>, String> {
        let name = absolute(&mx.name)?;
        let mut found: Vec<(u16, String)> = self
            .ask(name.clone(), RecordType::MX)
            .await?
            .iter()
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, relative(&mx.exchange))),
                _ => None,
            })
            .collect();
        found.sort();
        let mut names: Vec<String> = found.into_iter().map(|(_, name)| name).collect();
        if names.is_empty() {
            names.push(self.canonical(name).await?);
        }
        // RFC 7505: a single dot means that there is none.
        names.retain(|name| !name.is_empty());
        names.dedup();
        if names.is_empty() {
            return Err("the name takes no mail (its MX is a single dot)".into());
        }
        let mut hosts = Vec::new();
        for name in names {
            let addresses = self.addresses(&name).await?;
            // Without addresses the connection fails and says so; the other hosts go on.
            hosts.push(Host { name, port: mx.port, addresses });
        }
        Ok(hosts)
    }

    /// Where the aliases of a name end.
    async fn canonical(&self, name: Name) -> Result<String, String> {
        let lookup = self.lookup(name.clone(), RecordType::A).await?;
        let mut at = name;
        for _ in 0..8 {
            let next = lookup.iter().find_map(|(owner, data)| match data {
                RData::CNAME(alias) if *owner == at => Some(alias.0.clone()),
                _ => None,
            });
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(relative(&at))
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            addresses.extend(self.ask(absolute(name)?, kind).await?.iter().filter_map(RData::ip_addr));
        }
        Ok(addresses)
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Vec<RData>, String> {
        Ok(self.lookup(name, kind).await?.into_iter().map(|(_, data)| data).collect())
    }

    async fn lookup(&self, name: Name, kind: RecordType) -> Result<Vec<(Name, RData)>, String> {
        let shown = format!("{kind} of {name}");
        match tokio::time::timeout(QUERY, self.0.lookup(name, kind)).await {
            Err(_) => Err(format!("{shown}: no answer in time")),
            Ok(Ok(lookup)) => Ok(lookup.answers().iter().map(|r| (r.name.clone(), r.data.clone())).collect()),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(Vec::new())
            }
            Ok(Err(error)) => Err(format!("{shown}: {error}")),
        }
    }
}

fn absolute(name: &str) -> Result<Name, String> {
    let mut parsed = Name::from_ascii(name).map_err(|error| format!("`{name}` is not a name: {error}"))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn relative(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.trim_end_matches('.').to_owned()
}
