//! A name that `tls_names` allows: pure.
//!
//! RFC 9525 §6.3: `*.` stands for exactly one label, as the whole left-most one. That goes both ways: a rule with a
//! wildcard fits every name directly below, and a certificate with a wildcard proves every name directly below.

use super::record;

/// A host name, or `*.` and a domain; lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsName(String);

impl TlsName {
    /// Reads `mail.aurora.example` or `*.aurora.example`; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(domain) => record::domain(domain).ok().map(|domain| Self(format!("*.{domain}"))),
            None => record::domain(text).ok().map(Self),
        }
    }

    /// Whether a name out of a verified certificate is it.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.0 == name || covers(&self.0, &name) || covers(&name, &self.0)
    }
}

/// Whether `pattern` is a wildcard and `name` stands directly below it.
fn covers(pattern: &str, name: &str) -> bool {
    let below = |domain: &str| name.split_once('.').is_some_and(|(label, rest)| label != "*" && rest == domain);
    pattern.strip_prefix("*.").is_some_and(below)
}

impl std::fmt::Display for TlsName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label() {
        for (rule, name, fits) in [
            ("mail.aurora.example", "mail.aurora.example", true),
            ("Mail.Aurora.example", "mail.AURORA.example", true),
            ("mail.aurora.example", "mail2.aurora.example", false),
            ("mail.aurora.example", "aurora.example", false),
            ("mail.aurora.example", "evilmail.aurora.example", false),
            ("mail.aurora.example", "mail.aurora.example.evil.example", false),
            ("*.aurora.example", "mail.aurora.example", true),
            ("*.aurora.example", "*.aurora.example", true),
            ("*.aurora.example", "a.mail.aurora.example", false),
            ("*.aurora.example", "aurora.example", false),
            ("*.aurora.example", "*.mail.aurora.example", false),
            ("*.aurora.example", "mail.evilaurora.example", false),
            ("mail.aurora.example", "*.aurora.example", true),
            ("mail.aurora.example", "*.example", false),
            ("aurora.example", "*.aurora.example", false),
            ("mail.aurora.example", "*", false),
            ("mail.aurora.example", "*.*.example", false),
        ] {
            assert_eq!(TlsName::parse(rule).expect("a name").fits(name), fits, "{rule} {name}");
        }
        for text in
            ["", "*", "*.", "*.example", "example", "a.*.example", "**.aurora.example", "*a.aurora.example", "10.0.0.1"]
        {
            assert_eq!(TlsName::parse(text), None, "{text}");
        }
    }
}
