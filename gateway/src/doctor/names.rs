//! Checks of what the DNS says now: addresses, MX, reverse names, CAA, TLSA, MTA-STS, TLSRPT.

use super::{Doctor, Finding, publish::caa_name};
use crate::{
    config::CertificateSource,
    sources::{Dns, Family, Resolver as _, Trouble},
};
use data_encoding::HEXLOWER;
use std::net::IpAddr;

const ASK: &str = "ask again later, or name a server in [dns]";

impl Doctor<'_> {
    pub(super) async fn names(&self, dns: &Dns) -> Vec<Finding> {
        let mut findings = self.addresses(dns).await;
        for domain in &self.config.domains {
            findings.push(self.mx(dns, domain).await);
        }
        findings.extend(self.caa(dns).await);
        findings.push(self.tlsa(dns).await);
        for domain in &self.config.domains {
            findings.push(self.mta_sts(dns, domain).await);
            findings.push(tls_reports(dns, domain).await);
        }
        findings
    }

    async fn addresses(&self, dns: &Dns) -> Vec<Finding> {
        let (host, check) = (&self.config.hostname, "dns-address");
        let (mut found, mut findings): (Vec<IpAddr>, Vec<Finding>) = (Vec::new(), Vec::new());
        for family in [Family::V4, Family::V6] {
            match dns.addresses(host, family).await {
                Ok(addresses) => found.extend(addresses),
                Err(Trouble(text)) => findings.push(Finding::unknown(check, text, ASK)),
            }
        }
        if found.is_empty() && findings.is_empty() {
            findings.push(Finding::problem(
                check,
                format!("{host} has no address"),
                "publish the A or AAAA record below",
            ));
        }
        for address in found {
            findings.push(Finding::ok(check, format!("{host} is {address}")));
            findings.push(match dns.reverse(address).await {
                Ok(names) if names.contains(host) => Finding::ok("dns-reverse", format!("{address} is {host}")),
                Ok(names) => {
                    let names =
                        if names.is_empty() { "has no name".to_owned() } else { format!("is {}", names.join(", ")) };
                    let remedy =
                        format!("ask your provider to name it {host}; a gateway that only receives works without");
                    Finding::note("dns-reverse", format!("{address} {names}"), &remedy)
                }
                Err(Trouble(text)) => Finding::unknown("dns-reverse", text, ASK),
            });
        }
        findings
    }

    async fn mx(&self, dns: &Dns, domain: &str) -> Finding {
        let (host, check) = (&self.config.hostname, "dns-mx");
        match dns.mx(domain).await {
            Ok(names) if names.contains(host) => Finding::ok(check, format!("{domain} goes to {}", names.join(", "))),
            // RFC 5321 §5.1: without an MX record the address counts.
            Ok(names) if names.is_empty() && domain == host => {
                Finding::ok(check, format!("{domain} has none and needs none"))
            }
            Ok(names) if names.is_empty() => {
                Finding::problem(check, format!("{domain} has no MX record"), "publish the one below")
            }
            Ok(names) => Finding::problem(
                check,
                format!("{domain} goes to {}, not to {host}", names.join(", ")),
                "publish the MX record below, or take the domain out of `domains`",
            ),
            Err(Trouble(text)) => Finding::unknown(check, text, ASK),
        }
    }

    /// RFC 8659 §3: the records of the nearest name upwards that has any.
    async fn caa(&self, dns: &Dns) -> Vec<Finding> {
        let CertificateSource::Acme(settings) = &self.config.tls.source else { return Vec::new() };
        let (check, mut findings) = ("dns-caa", Vec::new());
        'names: for name in &settings.names {
            let mut at = name.as_str();
            let found = loop {
                match dns.caa(at).await {
                    Ok(issuers) if !issuers.is_empty() => break Some(issuers),
                    Ok(_) => match at.split_once('.') {
                        Some((_, above)) => at = above,
                        None => break None,
                    },
                    Err(Trouble(text)) => {
                        findings.push(Finding::unknown(check, text, ASK));
                        continue 'names;
                    }
                }
            };
            let (remedy, account) = ("publish the CAA record below", self.account.as_deref());
            findings.push(match (found, caa_name(&settings.directory)) {
                (None, _) => {
                    Finding::note(check, format!("{name} has none: any authority may make a certificate"), remedy)
                }
                (Some(issuers), authority) => match allowed(&issuers, authority, account) {
                    Some(true) => Finding::ok(check, format!("at {at}: {}", issuers.join(", "))),
                    None => Finding::unknown(
                        check,
                        format!("at {at}: {}", issuers.join(", ")),
                        "compare it with the authority's name",
                    ),
                    Some(false) => {
                        let text = format!("at {at}: {}: renewal will fail", issuers.join(", "));
                        Finding::problem(check, text, remedy)
                    }
                },
            });
        }
        findings
    }

    async fn tlsa(&self, dns: &Dns) -> Finding {
        let (check, name) = ("dns-tlsa", format!("_25._tcp.{}", self.config.hostname));
        let records = match dns.tlsa(&name).await {
            Ok(records) => records,
            Err(Trouble(text)) => return Finding::unknown(check, text, ASK),
        };
        let own = self.certificate.as_ref().map(|(facts, _)| facts.public_key_sha256.as_str());
        let remedy =
            "publish the TLSA record below and remove the others: senders with DANE deliver nothing until then";
        let shown: Vec<String> = records
            .iter()
            .map(|(head, data)| format!("{} {} {} {}", head[0], head[1], head[2], HEXLOWER.encode(data)))
            .collect();
        let fits =
            |(head, data): &([u8; 3], Vec<u8>)| *head == [3, 1, 1] && Some(HEXLOWER.encode(data).as_str()) == own;
        if records.is_empty() {
            Finding::note(check, format!("{name} has none"), "publish the one below if the zone has DNSSEC")
        } else if records.iter().any(fits) {
            Finding::ok(check, format!("{name}: {}", shown.join(", ")))
        } else {
            Finding::problem(check, format!("{name}: {}: not the key that is served", shown.join(", ")), remedy)
        }
    }

    async fn mta_sts(&self, dns: &Dns, domain: &str) -> Finding {
        let (check, name) = ("dns-mta-sts", format!("_mta-sts.{domain}"));
        let texts = match dns.txt(&name).await {
            Ok(texts) => texts,
            Err(Trouble(text)) => return Finding::unknown(check, text, ASK),
        };
        // RFC 8461 §3.1: other TXT records do not count, two of these count as none.
        let policies: Vec<&String> = texts.iter().filter(|text| text.starts_with("v=STSv1")).collect();
        let remedy = "publish the record below, and the policy at the address beside it";
        match policies.as_slice() {
            [] => Finding::note(check, format!("{name} has none"), remedy),
            [one] if !one.split(';').any(|part| part.trim().starts_with("id=")) => {
                Finding::problem(check, format!("{name}: {one}: has no id"), remedy)
            }
            [one] if self.certificate.as_ref().is_none_or(|(_, source)| source == "self-signed") => Finding::problem(
                check,
                format!("{name}: {one}: but a self-signed certificate is served, which senders refuse then"),
                "use an authority, or take the record away",
            ),
            [one] => Finding::ok(check, format!("{name}: {one}")),
            _ => Finding::problem(
                check,
                format!("{name} has {} of them, which counts as none", policies.len()),
                "keep one",
            ),
        }
    }
}

/// Whether one of the issuers is ours; `None` where the name of ours is not known and an account does not decide.
fn allowed(issuers: &[String], authority: Option<&str>, account: Option<&str>) -> Option<bool> {
    let mut open = false;
    for issuer in issuers {
        let mut parts = issuer.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let bound = parts.find_map(|part| part.strip_prefix("accounturi="));
        let account_fits = bound.is_none_or(|bound| account.is_none_or(|own| own == bound));
        match authority {
            Some(own) if own.eq_ignore_ascii_case(name) && account_fits => return Some(true),
            None if bound.is_some() && bound == account => return Some(true),
            None if account_fits && !name.is_empty() => open = true,
            _ => {}
        }
    }
    if open { None } else { Some(false) }
}

async fn tls_reports(dns: &Dns, domain: &str) -> Finding {
    let (check, name) = ("dns-tlsrpt", format!("_smtp._tls.{domain}"));
    match dns.txt(&name).await {
        Ok(texts) => match texts.iter().find(|text| text.starts_with("v=TLSRPTv1")) {
            Some(text) if text.contains("rua=") => Finding::ok(check, format!("{name}: {text}")),
            Some(text) => Finding::problem(check, format!("{name}: {text}: has no rua"), "publish the record below"),
            None => Finding::note(check, format!("{name} has none"), "publish the record below"),
        },
        Err(Trouble(text)) => Finding::unknown(check, text, ASK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_issue() {
        let judge = |issuers: &[&str], account| {
            let issuers: Vec<String> = issuers.iter().map(|i| (*i).to_owned()).collect();
            allowed(&issuers, Some("letsencrypt.org"), account)
        };
        assert_eq!(judge(&["letsencrypt.org"], Some("u")), Some(true));
        assert_eq!(judge(&["ca.example", "LetsEncrypt.org; accounturi=u"], Some("u")), Some(true));
        assert_eq!(judge(&["letsencrypt.org; accounturi=other"], Some("u")), Some(false));
        assert_eq!(judge(&["letsencrypt.org; accounturi=other"], None), Some(true));
        assert_eq!(judge(&[";"], None), Some(false));
        assert_eq!(judge(&["ca.example"], None), Some(false));
        let unknown = |issuer: &str| allowed(&[issuer.to_owned()], None, Some("u"));
        assert_eq!((unknown("ca.example"), unknown("ca.example; accounturi=u")), (None, Some(true)));
        assert_eq!((unknown("ca.example; accounturi=v"), unknown(";")), (Some(false), Some(false)));
    }
}
