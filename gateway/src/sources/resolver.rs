//! Questions to the DNS, and the library that asks them (hickory-resolver, which caches answers for their TTL).
//!
//! Invariants: names are absolute, no search list and no hosts file applies; a name without such records is an empty
//! answer, whatever else goes wrong is [`Trouble`]; every answer is bounded in time. What it does not do: DNSSEC.

use super::settings::DnsConfig;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use std::{future::Future, net::IpAddr, pin::Pin, time::Duration};

/// Longest wait for one answer, repetition included.
const QUERY: Duration = Duration::from_secs(2);
/// Answers kept for their TTL.
const CACHE: u64 = 1024;

/// The DNS could not be asked, or its answer made no sense: nothing is known, waiting may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// The resolver could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the system's DNS servers cannot be read: {0}; name them as `servers` in [dns]")]
pub struct SetupError(String);

/// What the address family of a client decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// The one of this address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// An answer to come: empty where the name has no such records.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<T>, Trouble>> + Send + 'a>>;

/// Whoever answers questions about names. Names come without the dot at the end.
pub trait Resolver: Send + Sync {
    /// TXT records, the strings of each joined (RFC 7208 §3.3).
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String>;
    /// A or AAAA records, aliases followed.
    fn addresses<'a>(&'a self, name: &'a str, family: Family) -> Answer<'a, IpAddr>;
    /// Names of mail servers, best first.
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, String>;
    /// Names of an address.
    fn reverse(&self, ip: IpAddr) -> Answer<'_, String>;
}

/// The DNS.
pub struct Dns(TokioResolver);

impl Dns {
    /// Sets up with the servers of the configuration, the system's where none are named. Sends nothing yet.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(config: &DnsConfig) -> Result<Self, SetupError> {
        let failed = |error: NetError| SetupError(error.to_string());
        let provider = TokioRuntimeProvider::default();
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder(provider).map_err(failed)?
        } else {
            let servers = config.servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let servers = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(servers, provider)
        };
        let options = builder.options_mut();
        options.timeout = QUERY / 2;
        options.attempts = 2;
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self(builder.build().map_err(failed)?))
    }

    async fn ask<T>(&self, name: Name, kind: RecordType, take: fn(&RData) -> Option<T>) -> Result<Vec<T>, Trouble> {
        let shown = format!("{kind} of {name}");
        let trouble = |what: &dyn std::fmt::Display| Trouble(format!("{shown}: {what}"));
        match tokio::time::timeout(QUERY, self.0.lookup(name, kind)).await {
            Err(_) => Err(trouble(&"no answer in time")),
            Ok(Ok(lookup)) => Ok(lookup.answers().iter().filter_map(|record| take(&record.data)).collect()),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(Vec::new())
            }
            Ok(Err(error)) => Err(trouble(&error)),
        }
    }
}

/// What only `doctor` asks for.
impl Dns {
    /// Values of CAA records that name issuers (RFC 8659 §4.2), as they stand there.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn caa(&self, name: &str) -> Result<Vec<String>, Trouble> {
        let issue = |data: &RData| match data {
            RData::CAA(caa) if caa.tag.eq_ignore_ascii_case("issue") => {
                Some(postkeep_shared::run::printable(&caa.value))
            }
            _ => None,
        };
        self.ask(absolute(name)?, RecordType::CAA, issue).await
    }

    /// TLSA records (RFC 6698 §2.1): usage, selector and matching type, and the data.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn tlsa(&self, name: &str) -> Result<Vec<([u8; 3], Vec<u8>)>, Trouble> {
        let take = |data: &RData| match data {
            RData::TLSA(tlsa) => {
                Some(([tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into()], tlsa.cert_data.clone()))
            }
            _ => None,
        };
        self.ask(absolute(name)?, RecordType::TLSA, take).await
    }
}

impl Resolver for Dns {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(async move {
            self.ask(absolute(name)?, RecordType::TXT, |data| match data {
                RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
                _ => None,
            })
            .await
        })
    }

    fn addresses<'a>(&'a self, name: &'a str, family: Family) -> Answer<'a, IpAddr> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        Box::pin(async move { self.ask(absolute(name)?, kind, RData::ip_addr).await })
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(async move {
            let mut found = self
                .ask(absolute(name)?, RecordType::MX, |data| match data {
                    RData::MX(mx) => Some((mx.preference, relative(&mx.exchange))),
                    _ => None,
                })
                .await?;
            found.sort();
            Ok(found.into_iter().map(|(_, name)| name).collect())
        })
    }

    fn reverse(&self, ip: IpAddr) -> Answer<'_, String> {
        Box::pin(async move {
            self.ask(Name::from(ip), RecordType::PTR, |data| match data {
                RData::PTR(ptr) => Some(relative(&ptr.0)),
                _ => None,
            })
            .await
        })
    }
}

fn absolute(name: &str) -> Result<Name, Trouble> {
    let mut parsed = Name::from_ascii(name).map_err(|error| Trouble(format!("not a name: {error}")))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn relative(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}
