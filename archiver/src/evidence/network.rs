//! A network in the notation of RFC 4632: `192.0.2.0/24`, `2001:db8::/32`, or one address.

use std::{net::IpAddr, str::FromStr};

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
    v6: bool,
}

impl Network {
    /// Whether an address is in it. An IPv4 address in IPv6 form (`::ffff:192.0.2.1`) counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (value, width, v6) = number(address.to_canonical());
        v6 == self.v6 && (value ^ self.address).checked_shr(width - self.bits).unwrap_or(0) == 0
    }
}

/// Value, number of bits, and whether it is IPv6.
fn number(address: IpAddr) -> (u128, u32, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, false),
        IpAddr::V6(v6) => (v6.to_bits(), 128, true),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a network; write for example \"192.0.2.0/24\" or \"2001:db8::/32\"");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (address, width, v6) = number(address.parse().map_err(|_| bad())?);
        let bits = bits.unwrap_or(width);
        if bits > width {
            return Err(bad());
        }
        // A mistyped network would fit other clients than the ones meant.
        if bits < width && address.trailing_zeros().min(width) < width - bits {
            return Err(format!("`{text}` has address bits behind its prefix; write the network's own address"));
        }
        Ok(Self { address, bits, v6 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("192.0.2.0/24", "::ffff:192.0.2.7", "::192.0.2.7"),
        ] {
            let network: Network = network.parse().expect("valid");
            assert!(network.contains(inside.parse().expect("valid")), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().expect("valid")), "{network:?} {outside}");
        }
        for wrong in ["", "x", "192.0.2.0/33", "192.0.2.1/24", "2001:db8::1/32", "192.0.2.0/-1", "::/129", "1.2.3/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
