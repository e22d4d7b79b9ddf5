//! An SPF record as text: mechanisms and modifiers (RFC 7208 §4.5, §4.6.1, §5, §6, §12).
//!
//! Pure. A record with a mistake anywhere is a mistake as a whole (§4.6). What it does not do: macros (§7) are
//! recognised and never expanded.

use super::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong with a record or a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SyntaxError(pub(super) String);

/// A record taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) terms: Vec<Term>,
    /// Where to go on when nothing fits (§6.1).
    pub(super) redirect: Option<Target>,
}

/// A mechanism with its qualifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    /// Whether a fit passes: `+`, or none of `-`, `~`, `?`.
    pub(super) passes: bool,
    pub(super) mechanism: Mechanism,
    /// As published, for evidence.
    pub(super) text: String,
}

/// A domain to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Name(String),
    /// Depends on the message (§7).
    Macro,
}

/// What a client address is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Ip(Network),
    Include(Target),
    /// `None` is the domain of the record itself.
    A(Option<Target>, Prefixes),
    Mx(Option<Target>, Prefixes),
    /// `ptr` and `exists`: no list of networks.
    Other,
}

/// Leading bits to compare, by address family (§5.6 dual-cidr-length).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl Record {
    /// Whether a TXT record is an SPF record (§4.5).
    pub(super) fn is_one(text: &str) -> bool {
        let (version, rest) = text.split_at_checked(6).unwrap_or((text, ""));
        version.eq_ignore_ascii_case("v=spf1") && (rest.is_empty() || rest.starts_with(' '))
    }

    /// Takes a text apart that [`Self::is_one`].
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut record = Self { terms: Vec::new(), redirect: None };
        let mut explained = false;
        for word in text.split(' ').skip(1).filter(|word| !word.is_empty()) {
            match modifier(word) {
                Some((name, value)) if name.eq_ignore_ascii_case("redirect") => {
                    let target = target(value).map_err(|_| wrong(word))?;
                    if record.redirect.replace(target).is_some() {
                        return Err(SyntaxError("redirect stands twice".into()));
                    }
                }
                Some((name, _)) if name.eq_ignore_ascii_case("exp") => {
                    if std::mem::replace(&mut explained, true) {
                        return Err(SyntaxError("exp stands twice".into()));
                    }
                }
                // §6: unknown modifiers are ignored.
                Some(_) => {}
                None => record.terms.push(term(word).ok_or_else(|| wrong(word))?),
            }
        }
        Ok(record)
    }
}

/// Checks and normalises a domain name: lower case, no dot at the end, at least two labels.
///
/// # Errors
/// [`SyntaxError`].
pub(super) fn domain(text: &str) -> Result<String, SyntaxError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // §7.1 toplabel: not all digits, no hyphen at its ends; so an address is no name.
    let top = name.rsplit_once('.').is_some_and(|(_, top)| {
        !top.bytes().all(|b| b.is_ascii_digit()) && !top.starts_with('-') && !top.ends_with('-') && !top.contains('_')
    });
    if top && name.len() <= 253 && name.split('.').all(label) { Ok(name) } else { Err(wrong(text)) }
}

fn wrong(word: &str) -> SyntaxError {
    SyntaxError(format!("`{}` is not understood", super::network::shown(word)))
}

/// `name=value` (§4.6.1): the name starts with a letter, so mechanisms never look like one.
fn modifier(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(rest)).then_some((name, value))
}

fn term(word: &str) -> Option<Term> {
    let (passes, body) = match word.as_bytes().first()? {
        b'+' => (true, word.get(1..)?),
        b'-' | b'~' | b'?' => (false, word.get(1..)?),
        _ => (true, word),
    };
    let end = body.find([':', '/']).unwrap_or(body.len());
    let (name, rest) = body.split_at_checked(end)?;
    let argument = rest.strip_prefix(':');
    let mechanism = match (name.to_ascii_lowercase().as_str(), argument) {
        ("all", None) if rest.is_empty() => Mechanism::All,
        ("include", Some(name)) => Mechanism::Include(target(name).ok()?),
        ("ip4", Some(text)) => Mechanism::Ip(network(text, |t| t.parse::<Ipv4Addr>().ok().map(IpAddr::V4), 32)?),
        ("ip6", Some(text)) => Mechanism::Ip(network(text, |t| t.parse::<Ipv6Addr>().ok().map(IpAddr::V6), 128)?),
        ("a", _) => target_and_prefixes(rest).map(|(target, prefixes)| Mechanism::A(target, prefixes))?,
        ("mx", _) => target_and_prefixes(rest).map(|(target, prefixes)| Mechanism::Mx(target, prefixes))?,
        ("ptr", None) if rest.is_empty() => Mechanism::Other,
        ("ptr" | "exists", Some(name)) => target(name).ok().map(|_| Mechanism::Other)?,
        _ => return None,
    };
    Some(Term { passes, mechanism, text: word.to_owned() })
}

fn target(text: &str) -> Result<Target, SyntaxError> {
    if !text.contains('%') {
        return domain(text).map(Target::Name);
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.as_bytes().first() {
            Some(b'%' | b'_' | b'-') => after.get(1..).unwrap_or_default(),
            Some(b'{') => after.split_once('}').ok_or_else(|| wrong(text))?.1,
            _ => return Err(wrong(text)),
        };
    }
    Ok(Target::Macro)
}

fn network(text: &str, parse: fn(&str) -> Option<IpAddr>, whole: u8) -> Option<Network> {
    match text.split_once('/') {
        // Bits behind the prefix are allowed here (§5.6): published records have them.
        Some((address, digits)) => Network::new(parse(address)?, prefix(digits, whole)?),
        None => Network::new(parse(text)?, whole),
    }
}

/// `[:domain][/v4][//v6]` (§5.3, §5.4).
fn target_and_prefixes(rest: &str) -> Option<(Option<Target>, Prefixes)> {
    let (name, lengths) = match rest.strip_prefix(':') {
        // The slash is also a delimiter within macros; such a target is never looked up, so its lengths do not matter.
        Some(text) if text.contains('%') => return Some((Some(target(text).ok()?), Prefixes { v4: 32, v6: 128 })),
        Some(text) => {
            let (name, lengths) = text.split_at_checked(text.find('/').unwrap_or(text.len()))?;
            (Some(target(name).ok()?), lengths)
        }
        None => (None, rest),
    };
    let (v4, v6) = match lengths.split_once("//") {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (lengths, None),
    };
    let v4 = if v4.is_empty() { 32 } else { prefix(v4.strip_prefix('/')?, 32)? };
    let v6 = v6.map_or(Some(128), |digits| prefix(digits, 128))?;
    Some((name, Prefixes { v4, v6 }))
}

fn prefix(digits: &str, whole: u8) -> Option<u8> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits == "0" || !digits.starts_with('0');
    if plain && canonical { digits.parse().ok().filter(|bits| *bits <= whole) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_other_texts() {
        for (text, is) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf10 -all", false),
            ("v=spf1\t-all", false),
            (" v=spf1", false),
            ("v=spf", false),
            ("", false),
            ("v=spf§", false),
        ] {
            assert_eq!(Record::is_one(text), is, "{text:?}");
        }
    }

    #[test]
    fn mechanisms_and_modifiers() {
        let text = "v=spf1  A a:B.example./24//64 mx//48 ip4:192.0.2.9/24 ip6:2001:db8::/32 ?include:x.example \
                    exists:%{i}.x.example ptr ~mx:%{d}/8 moo.x=%{y unknown= redirect=_spf.example -all";
        let record = Record::parse(text).expect("valid");
        let mechanisms: Vec<&Mechanism> = record.terms.iter().map(|term| &term.mechanism).collect();
        let whole = Prefixes { v4: 32, v6: 128 };
        let network = |text| Network::parse(text).expect("network");
        assert_eq!(
            mechanisms,
            [
                &Mechanism::A(None, whole),
                &Mechanism::A(Some(Target::Name("b.example".into())), Prefixes { v4: 24, v6: 64 }),
                &Mechanism::Mx(None, Prefixes { v4: 32, v6: 48 }),
                &Mechanism::Ip(network("192.0.2.0/24")),
                &Mechanism::Ip(network("2001:db8::/32")),
                &Mechanism::Include(Target::Name("x.example".into())),
                &Mechanism::Other,
                &Mechanism::Other,
                &Mechanism::Mx(Some(Target::Macro), whole),
                &Mechanism::All,
            ]
        );
        let passes: Vec<bool> = record.terms.iter().map(|term| term.passes).collect();
        assert_eq!(passes, [true, true, true, true, true, false, true, true, false, false]);
        assert_eq!(record.redirect, Some(Target::Name("_spf.example".into())));
    }

    #[test]
    fn a_mistake_anywhere_is_one() {
        for word in [
            "moo",
            "all:x.example",
            "all/8",
            "include",
            "include:",
            "include:x",
            "include:192.0.2.1",
            "include:a..example",
            "ip4",
            "ip4:192.0.2",
            "ip4:192.0.2.0/33",
            "ip4:192.0.2.0/08",
            "ip4:192.0.2.0/",
            "ip4:192.0.2.0/-1",
            "ip4:2001:db8::",
            "ip6:192.0.2.0",
            "ip6:2001:db8::/129",
            "a:",
            "a/",
            "a/33",
            "a//129",
            "a/24/64",
            "mx:x.example/999999999999",
            "ptr:",
            "exists",
            "include:%(d)",
            "include:%{d",
            "include:%",
            "+-all",
            "+",
            "redirect=",
            "redirect=a.example redirect=b.example",
            "exp=a.example exp=b.example",
            "=x",
            "ip4:192.0.2.1\t-all",
        ] {
            assert!(Record::parse(&format!("v=spf1 {word} -all")).is_err(), "{word}");
        }
    }
}
