//! A network of IP addresses in CIDR form (RFC 4632 §3.1, RFC 4291 §2.3).

use std::{fmt, net::IpAddr};

/// An address range. IPv4 clients that reach an IPv6 socket count as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address` with `prefix` leading bits; the bits behind them are cleared. `None` for a prefix
    /// longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let first = match address {
            IpAddr::V4(v4) if prefix <= 32 => IpAddr::V4((v4.to_bits() & mask4(prefix)).into()),
            IpAddr::V6(v6) if prefix <= 128 => IpAddr::V6((v6.to_bits() & mask6(prefix)).into()),
            _ => return None,
        };
        Some(Self { first, prefix })
    }

    /// Reads what people write: `192.0.2.0/24`, `2001:db8::/32`, or one address.
    ///
    /// # Errors
    /// What is wrong and how to mend it: also bits behind the prefix, which are mostly a slip of the prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let forms = || format!("`{}` is not a network; write for example 192.0.2.0/24 or 2001:db8::/32", shown(text));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| forms())?;
        if address.to_canonical() != address {
            return Err(format!("`{text}` is IPv4 in the form of IPv6; write it as IPv4"));
        }
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => whole,
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| forms())?
            }
            Some(_) => return Err(forms()),
        };
        let network = Self::new(address, prefix)
            .ok_or_else(|| format!("`{text}` has a prefix longer than {whole}; write at most /{whole}"))?;
        if network.first == address {
            Ok(network)
        } else {
            Err(format!("`{text}` has bits behind its prefix; write {network}, or {address}/{whole} for one address"))
        }
    }

    /// Whether `ip` is one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip.to_canonical(), self.prefix).is_some_and(|network| network.first == self.first)
    }

    /// Whether every address of its kind is one of them.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// A piece of somebody's text that is safe to show.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("40.92.0.0/15", "40.93.1.2", "40.94.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("2a01:111:f400::/48", "2a01:111:f400:ffff::1", "2a01:111:f401::1"),
            ("::/0", "ffff::1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("10.0.0.0/8", "10.1.2.3", "2001:db8::1"),
        ] {
            let parsed = Network::parse(network).expect(network);
            assert!(parsed.contains(inside.parse().expect("address")), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().expect("address")), "{network} {outside}");
            assert_eq!(parsed.is_everything(), network.ends_with("/0"), "{network}");
        }
    }

    #[test]
    fn mistakes_have_a_remedy() {
        for (text, wanted) in [
            ("", "is not a network"),
            ("mail.example", "is not a network"),
            ("192.0.2.0/", "is not a network"),
            ("192.0.2.0/+8", "is not a network"),
            ("192.0.2.0/999", "is not a network"),
            ("192.0.2.0/33", "write at most /32"),
            ("2001:db8::/129", "write at most /128"),
            ("192.0.2.7/24", "write 192.0.2.0/24, or 192.0.2.7/32 for one address"),
            ("::ffff:192.0.2.0/120", "write it as IPv4"),
        ] {
            let error = Network::parse(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
