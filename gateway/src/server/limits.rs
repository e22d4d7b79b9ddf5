//! How many connections there may be, in all and of one client.
//!
//! Every protocol has its own count, so a flood of one takes nothing from the other. Of each, a share is kept for
//! clients that are known: the networks of `[sources]` for SMTP, addresses that have logged in for POP3.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

/// Counts the connections of one protocol.
#[derive(Clone)]
pub struct Limits {
    total: usize,
    per_client: usize,
    reserved: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

/// A connection that was let in; dropping it makes room.
pub struct Admitted {
    client: IpAddr,
    open: Arc<Mutex<Open>>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many connections in all.
    Total,
    /// Too many of this client.
    Client,
}

impl Limits {
    /// At most `total` connections, `reserved` of them for known clients only, and at most `per_client` of one IPv4
    /// address or IPv6 /48.
    #[must_use]
    pub fn new(total: usize, per_client: usize, reserved: usize) -> Self {
        Self { total, per_client, reserved, open: Arc::default() }
    }

    /// Lets a connection in; `known` clients may use the reserved share.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, address: IpAddr, known: bool) -> Result<Admitted, Refused> {
        let client = network(address);
        let mut open = lock(&self.open);
        let room = if known { self.total } else { self.total.saturating_sub(self.reserved) };
        if open.total >= room {
            return Err(Refused::Total);
        }
        let count = open.clients.entry(client).or_default();
        if *count >= self.per_client {
            return Err(Refused::Client);
        }
        *count += 1;
        open.total += 1;
        Ok(Admitted { client, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.clients.remove(&self.client);
            }
        }
    }
}

/// One customer has one IPv4 address or one IPv6 /48 (RFC 6177 §2: a site gets up to that much).
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))),
        v4 => v4,
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    // Two counters that are changed together without a call in between: never half-changed.
    open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn room_is_given_back() {
        let limits = Limits::new(3, 2, 0);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = limits.admit(a, false).expect("room");
        let _second = limits.admit(a, false).expect("room");
        assert_eq!(limits.admit(a, false).err(), Some(Refused::Client));
        let _third = limits.admit(b, false).expect("room");
        assert_eq!(limits.admit(b, false).err(), Some(Refused::Total));
        drop(first);
        assert!(limits.admit(a, false).is_ok());
    }

    #[test]
    fn the_reserved_share_is_for_known_clients() {
        let limits = Limits::new(3, 3, 2);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let _first = limits.admit(a, false).expect("room");
        assert_eq!(limits.admit(a, false).err(), Some(Refused::Total));
        let _second = limits.admit(b, true).expect("reserved");
        let _third = limits.admit(b, true).expect("reserved");
        assert_eq!(limits.admit(b, true).err(), Some(Refused::Total));
    }

    #[test]
    fn an_ipv6_site_counts_as_one() {
        let limits = Limits::new(10, 1, 0);
        let _one = limits.admit(address("2001:db8:1::1"), false).expect("room");
        assert_eq!(limits.admit(address("2001:db8:1:ffff::1"), false).err(), Some(Refused::Client));
        assert!(limits.admit(address("2001:db8:2::1"), false).is_ok());
        let _v4 = limits.admit(address("192.0.2.1"), false).expect("room");
        assert_eq!(limits.admit(address("::ffff:192.0.2.1"), false).err(), Some(Refused::Client));
    }
}
