//! Who takes mail for a domain (RFC 5321 §5.1): its MX records, best first, else the domain itself.
//!
//! A name without such records is an empty answer; a domain whose only MX is `.` takes no mail (RFC 7505). No search list
//! and no hosts file applies. What it does not do: DNSSEC, DANE.

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Longest wait for one answer, repetition included.
const QUERY: Duration = Duration::from_secs(5);
/// Exchangers tried for one mail.
const MAX_HOSTS: usize = 8;

/// The mail exchangers of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchangers {
    /// Names with one address each, best first.
    pub hosts: Vec<(String, IpAddr)>,
}

impl Exchangers {
    /// Asks the DNS; `servers`: whom, the system's where empty.
    ///
    /// # Errors
    /// A sentence.
    pub async fn find(domain: &str, servers: &[SocketAddr]) -> Result<Self, String> {
        let resolver = resolver(servers)?;
        let mut names: Vec<(u16, String)> = Vec::new();
        for data in ask(&resolver, domain, RecordType::MX).await? {
            if let RData::MX(mx) = data {
                names.push((mx.preference, relative(&mx.exchange)));
            }
        }
        names.sort();
        if names.iter().any(|(_, name)| name.is_empty()) {
            return Err(format!("{domain} takes no mail (its MX is `.`)"));
        }
        if names.is_empty() {
            names.push((0, domain.to_owned()));
        }
        let mut hosts = Vec::new();
        for (_, name) in names.into_iter().take(MAX_HOSTS) {
            for kind in [RecordType::A, RecordType::AAAA] {
                // One exchanger whose name leads nowhere does not hide the others.
                let found = ask(&resolver, &name, kind).await.unwrap_or_default();
                hosts.extend(found.iter().filter_map(RData::ip_addr).map(|ip| (name.clone(), ip)));
            }
        }
        Ok(Self { hosts })
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let failed = |error: NetError| format!("the DNS cannot be asked: {error}; name servers as `servers` in [dns]");
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
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, provider)
    };
    let options = builder.options_mut();
    options.timeout = QUERY / 2;
    options.attempts = 2;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(failed)
}

async fn ask(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Vec<RData>, String> {
    let mut parsed = Name::from_ascii(name).map_err(|error| format!("{name} is not a name: {error}"))?;
    parsed.set_fqdn(true);
    match tokio::time::timeout(QUERY, resolver.lookup(parsed, kind)).await {
        Err(_) => Err(format!("{kind} of {name}: no answer in time")),
        Ok(Ok(lookup)) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Ok(Vec::new())
        }
        Ok(Err(error)) => Err(format!("{kind} of {name}: {error}")),
    }
}

fn relative(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}
