//! What is counted while the gateway runs. Shared by every session; never blocks for longer than an addition.

use crate::{
    server::Kind,
    smtp::{ALL_REPLIES, Reply},
};
use postkeep_shared::metrics::{Exposition, whole};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Since the start.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    accepted_bytes: AtomicU64,
    accepting_us: AtomicU64,
    given: AtomicU64,
    given_bytes: AtomicU64,
    removed: AtomicU64,
    logins: AtomicU64,
    logins_refused: AtomicU64,
    /// By reply and enhanced status code.
    refused: Mutex<BTreeMap<(u16, &'static str), u64>>,
    /// By what is spoken: let in, and turned away.
    connections: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Counters {
    /// A message is on stable storage in one mailbox; it took so long from its first octet.
    pub fn accepted(&self, octets: u64, took: Duration) {
        self.accepted.fetch_add(1, Relaxed);
        self.accepted_bytes.fetch_add(octets, Relaxed);
        self.accepting_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A command or message was refused with this reply.
    pub fn refused(&self, reply: &Reply) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry((reply.code, reply.enhanced)).or_default() += 1;
    }

    /// A client connected and was let in, or not.
    pub fn connection(&self, kind: Kind, admitted: bool) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let (in_, away) = connections.entry(kind.to_string()).or_default();
        *(if admitted { in_ } else { away }) += 1;
    }

    /// Somebody logged in, or was refused.
    pub fn login(&self, well: bool) {
        if well { &self.logins } else { &self.logins_refused }.fetch_add(1, Relaxed);
    }

    /// A message was given out whole.
    pub fn given(&self, octets: u64) {
        self.given.fetch_add(1, Relaxed);
        self.given_bytes.fetch_add(octets, Relaxed);
    }

    /// So many messages were removed by a client.
    pub fn removed(&self, messages: usize) {
        self.removed.fetch_add(messages as u64, Relaxed);
    }

    /// Writes them.
    pub fn figures(&self, out: &mut Exposition) {
        let get = |counter: &AtomicU64| whole(counter.load(Relaxed));
        out.counter("accepted_total", "Messages accepted, once for each mailbox.").value(get(&self.accepted));
        out.counter("accepted_bytes_total", "Octets of those messages, as received.").value(get(&self.accepted_bytes));
        out.summary("accept_seconds", "From the first octet of a message to its 250.").measured(
            &[],
            get(&self.accepting_us) / 1e6,
            self.accepted.load(Relaxed),
        );
        self.refusals(out);
        out.counter("given_total", "Messages given out whole over POP3.").value(get(&self.given));
        out.counter("given_bytes_total", "Octets of those messages.").value(get(&self.given_bytes));
        out.counter("removed_total", "Messages removed by POP3 clients.").value(get(&self.removed));
        out.counter("pop3_logins_total", "Logins over POP3.")
            .sample(&[("result", "ok")], get(&self.logins))
            .sample(&[("result", "refused")], get(&self.logins_refused));
        let mut family =
            out.counter("connections_total", "Connections, by what is spoken and whether they were let in.");
        for (kind, (admitted, refused)) in &*self.connections.lock().unwrap_or_else(PoisonError::into_inner) {
            family
                .sample(&[("kind", kind), ("result", "admitted")], whole(*admitted))
                .sample(&[("kind", kind), ("result", "refused")], whole(*refused));
        }
    }

    /// Every refusal there is, also those that never happened: a rate needs a beginning.
    fn refusals(&self, out: &mut Exposition) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<(u16, &str), u64> = ALL_REPLIES
            .iter()
            .filter(|reply| reply.code >= 400)
            .map(|reply| ((reply.code, reply.enhanced), 0))
            .collect();
        all.extend(refused.iter().map(|(reply, count)| (*reply, *count)));
        let mut family =
            out.counter("refused_total", "Commands and messages refused over SMTP, by reply (docs/replies.md).");
        for ((code, status), count) in all {
            family.sample(&[("code", &code.to_string()), ("status", status)], whole(count));
        }
    }
}
