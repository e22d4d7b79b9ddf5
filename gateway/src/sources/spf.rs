//! Whether a client address passes a domain's SPF record (RFC 7208 §4 to §6), which is used as a list of networks.
//!
//! Pure but for the [`Resolver`] it is given. Limits of §4.6.4: 10 terms that ask the DNS, 2 of them without an
//! answer, 10 mail servers per `mx`. What it does not do: `ptr`, `exists` and macros, which name no network; they
//! never make an address pass that the record would not pass. Senders' domains are never looked at.

use super::{
    network::Network,
    record::{Mechanism, Prefixes, Record, Target},
    resolver::{Family, Resolver, Trouble},
};
use std::{future::Future, net::IpAddr, pin::Pin};

/// Terms that ask the DNS, in one evaluation.
const QUERIES: u32 = 10;
/// Of those, without an answer.
const VOIDS: u32 = 2;
/// Mail servers of one name.
const SERVERS: usize = 10;

/// What an evaluation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The address passes; with the term that says so.
    Pass(String),
    /// It does not; for any of the reasons that are not about the record itself.
    NoPass,
    /// The domain publishes no SPF record.
    NoRecord,
    /// The record, or one it names, is wrong (`permerror`).
    Broken(String),
    /// The DNS could not be asked (`temperror`).
    Undecided(String),
}

/// Evaluates the record of `domain` (lower case, checked) for a client.
pub async fn check(resolver: &dyn Resolver, domain: &str, client: IpAddr) -> Outcome {
    let client = client.to_canonical();
    let mut evaluation = Evaluation { resolver, client, queries: 0, voids: 0 };
    match evaluation.domain(domain.to_owned(), true).await {
        Ok(Found::Pass(term)) => Outcome::Pass(term),
        Ok(Found::NoPass) => Outcome::NoPass,
        Ok(Found::NoRecord) => Outcome::NoRecord,
        Err(Stop::Broken(why)) => Outcome::Broken(why),
        Err(Stop::Trouble(Trouble(why))) => Outcome::Undecided(why),
    }
}

enum Found {
    Pass(String),
    NoPass,
    NoRecord,
}

enum Stop {
    Broken(String),
    Trouble(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

enum Fit {
    No,
    Yes,
    /// Yes, by this term of another record.
    Through(String),
    /// Cannot be told without macros or the client's own reverse name.
    Unknown,
}

struct Evaluation<'r> {
    resolver: &'r dyn Resolver,
    client: IpAddr,
    queries: u32,
    voids: u32,
}

impl Evaluation<'_> {
    /// `check_host()` (§4). `straight` is false below an `include` whose pass does not pass.
    fn domain(
        &mut self,
        domain: String,
        straight: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Found, Stop>> + Send + '_>> {
        // Depth is bounded with the queries: each level down is one of ten.
        Box::pin(async move {
            let Some(record) = self.record(&domain).await? else { return Ok(Found::NoRecord) };
            for term in &record.terms {
                match self.fits(&term.mechanism, &domain, straight && term.passes).await? {
                    Fit::No => continue,
                    Fit::Unknown if !straight => {
                        return Err(Stop::Broken(format!("`{}` of {domain} is not supported there", term.text)));
                    }
                    // Taken for the answer that passes fewer.
                    Fit::Unknown if term.passes => continue,
                    Fit::Yes if term.passes => return Ok(Found::Pass(term.text.clone())),
                    Fit::Through(inner) if term.passes => return Ok(Found::Pass(inner)),
                    Fit::Yes | Fit::Through(_) | Fit::Unknown => return Ok(Found::NoPass),
                }
            }
            match record.redirect {
                None => Ok(Found::NoPass),
                Some(Target::Macro) if straight => Ok(Found::NoPass),
                Some(Target::Macro) => Err(Stop::Broken(format!("the redirect of {domain} is not supported there"))),
                Some(Target::Name(next)) => {
                    self.count()?;
                    match self.domain(next.clone(), straight).await? {
                        Found::NoRecord => Err(Stop::Broken(format!("redirect to {next}, which has no SPF record"))),
                        found => Ok(found),
                    }
                }
            }
        })
    }

    async fn record(&mut self, domain: &str) -> Result<Option<Record>, Stop> {
        let texts = self.resolver.txt(domain).await?;
        let mut records = texts.iter().filter(|text| Record::is_one(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(text), None) => {
                Record::parse(text).map(Some).map_err(|error| Stop::Broken(format!("SPF record of {domain}: {error}")))
            }
            // §4.5: nothing says which of them counts.
            (Some(_), Some(_)) => Err(Stop::Broken(format!("{domain} has more than one SPF record"))),
        }
    }

    async fn fits(&mut self, mechanism: &Mechanism, domain: &str, straight: bool) -> Result<Fit, Stop> {
        let yes = |fits| if fits { Fit::Yes } else { Fit::No };
        match mechanism {
            Mechanism::All => Ok(Fit::Yes),
            Mechanism::Ip(network) => Ok(yes(network.contains(self.client))),
            Mechanism::Include(target) => {
                self.count()?;
                let Target::Name(name) = target else { return Ok(Fit::Unknown) };
                match self.domain(name.clone(), straight).await? {
                    Found::Pass(term) => Ok(Fit::Through(term)),
                    Found::NoPass => Ok(Fit::No),
                    // §5.2: an include of nothing is a mistake of whoever publishes it.
                    Found::NoRecord => Err(Stop::Broken(format!("include of {name}, which has no SPF record"))),
                }
            }
            Mechanism::A(target, prefixes) => {
                self.count()?;
                let Some(name) = name_of(target.as_ref(), domain) else { return Ok(Fit::Unknown) };
                Ok(yes(self.address(name, *prefixes).await?))
            }
            Mechanism::Mx(target, prefixes) => {
                self.count()?;
                let Some(name) = name_of(target.as_ref(), domain) else { return Ok(Fit::Unknown) };
                Ok(yes(self.mail_server(name, *prefixes).await?))
            }
            Mechanism::Other => self.count().map(|()| Fit::Unknown),
        }
    }

    async fn address(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let addresses = self.resolver.addresses(name, Family::of(self.client)).await?;
        self.void(addresses.is_empty())?;
        let prefix = if self.client.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        let near = |ip: &IpAddr| Network::new(*ip, prefix).is_some_and(|network| network.contains(self.client));
        Ok(addresses.iter().any(near))
    }

    async fn mail_server(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let servers = self.resolver.mx(name).await?;
        self.void(servers.is_empty())?;
        if servers.len() > SERVERS {
            return Err(Stop::Broken(format!("{name} has more than {SERVERS} mail servers")));
        }
        // "." says there is none (RFC 7505).
        for server in servers.iter().filter(|server| !server.is_empty()) {
            if self.address(server, prefixes).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn count(&mut self) -> Result<(), Stop> {
        self.queries += 1;
        if self.queries > QUERIES {
            return Err(Stop::Broken(format!("needs more than {QUERIES} look-ups")));
        }
        Ok(())
    }

    fn void(&mut self, is_one: bool) -> Result<(), Stop> {
        self.voids += u32::from(is_one);
        if self.voids > VOIDS {
            return Err(Stop::Broken(format!("more than {VOIDS} of its look-ups have no answer")));
        }
        Ok(())
    }
}

/// `None` where the name depends on the message.
fn name_of<'a>(target: Option<&'a Target>, domain: &'a str) -> Option<&'a str> {
    match target {
        None => Some(domain),
        Some(Target::Name(name)) => Some(name),
        Some(Target::Macro) => None,
    }
}

#[cfg(test)]
mod tests;
