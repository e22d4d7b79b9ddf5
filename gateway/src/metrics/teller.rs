//! What stands now: mailboxes, disk, certificate; and whether the gateway is alive and can take mail.

use super::Counters;
use crate::{
    mailbox::{Mailbox, State},
    spool::{Spool, SpoolError, Standing},
    tls::Certificates,
};
use postkeep_shared::{
    metrics::{Exposition, Health, Told, process, whole},
    run::now_ms,
};
use std::sync::Arc;

/// Answers monitoring.
pub struct Teller {
    spool: Spool,
    certificates: Arc<Certificates>,
    counters: Arc<Counters>,
    started_ms: u64,
}

impl Teller {
    /// Of a server that starts now.
    #[must_use]
    pub fn new(spool: Spool, certificates: Arc<Certificates>, counters: Arc<Counters>) -> Self {
        Self { spool, certificates, counters, started_ms: now_ms() }
    }

    /// Why storage has stopped, where it has.
    fn stopped(&self) -> Option<String> {
        self.spool.failed().borrow().clone()
    }

    fn mailboxes(&self) -> Result<Vec<(Mailbox, Option<Standing>)>, SpoolError> {
        let all = self.spool.mailboxes().list()?;
        all.into_iter().map(|mailbox| Ok((mailbox.clone(), self.spool.standing(mailbox.id)?))).collect()
    }

    fn mailbox_figures(&self, out: &mut Exposition) {
        let mailboxes = match self.mailboxes() {
            Ok(mailboxes) => mailboxes,
            Err(error) => {
                // A scrape without these figures is noticed; one with wrong ones is not.
                tracing::error!(%error, "figures of the mailboxes");
                return;
            }
        };
        let now = now_ms();
        let labelled: Vec<(String, &Mailbox, &Option<Standing>)> =
            mailboxes.iter().map(|(mailbox, standing)| (mailbox.id.label(), mailbox, standing)).collect();
        let mut each = |name: &str, help: &str, value: &dyn Fn(&Standing) -> f64| {
            let mut family = out.gauge(name, help);
            for (label, _, standing) in &labelled {
                if let Some(standing) = standing {
                    family.sample(&[("mailbox", label)], value(standing));
                }
            }
        };
        each("waiting_messages", "Messages that wait to be collected.", &|s| whole(s.waiting.messages));
        each("waiting_bytes", "Octets of those messages, as received.", &|s| whole(s.waiting.bytes));
        each("oldest_waiting_seconds", "Age of the oldest message that waits; 0 where none does.", &|s| {
            s.oldest_ms.map_or(0.0, |oldest| whole(now.saturating_sub(oldest)) / 1000.0)
        });
        each("ledger_entries", "Entries of the ledger.", &|s| whole(s.entries));
        let mut family = out.gauge("mailbox_suspended", "1 where a mailbox takes no mail by command.");
        for (label, mailbox, _) in &labelled {
            family.flag(&[("mailbox", label)], mailbox.state == State::Suspended);
        }
        let sealed = mailboxes.iter().filter_map(|(_, standing)| standing.as_ref()).map(|s| s.waiting.sealed).sum();
        out.gauge("spool_bytes", "Octets sealed in the messages that wait, without what sealing adds.")
            .value(whole(sealed));
    }

    fn disk_figures(&self, out: &mut Exposition) {
        out.gauge("storage_failed", "1 when storage has failed and the gateway is stopping.")
            .flag(&[], self.stopped().is_some());
        out.gauge("storage_read_only", "1 when the disk did not pass the first test and is only read.")
            .flag(&[], self.spool.read_only().is_some());
        let Ok(space) = self.spool.space() else { return };
        out.gauge("disk_free_bytes", "Free octets on the file system of the data directory.").value(whole(space.free));
        out.gauge("disk_size_bytes", "Octets of that file system.").value(whole(space.total));
        if space.free_inodes != u64::MAX {
            out.gauge("disk_free_inodes", "Files that can still be made there.").value(whole(space.free_inodes));
        }
    }

    fn certificate_figures(&self, out: &mut Exposition) {
        let serving = self.certificates.serving();
        let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
        let left = serving.facts.not_after.saturating_sub(now);
        let labels = [("source", serving.source)];
        out.gauge("certificate_remaining_seconds", "Until the certificate that is served ends; negative when it has.")
            .sample(&labels, if left < 0 { -whole(left.unsigned_abs()) } else { whole(left.unsigned_abs()) });
    }
}

impl Told for Teller {
    /// Tasks are run, or this would not be asked; and the index answers.
    fn alive(&self) -> Health {
        let mut reasons: Vec<String> =
            self.stopped().map(|why| format!("storage has failed: {why}")).into_iter().collect();
        if let Err(error) = self.mailboxes() {
            reasons.push(format!("the spool does not answer: {error}"));
        }
        Health::of(reasons)
    }

    /// Whether mail is taken.
    fn ready(&self) -> Health {
        let mut reasons: Vec<String> = Vec::new();
        if let Some(why) = self.spool.read_only() {
            reasons.push(format!("the disk is only read, no mail is taken: {why}"));
        } else if let Some(why) = self.stopped() {
            reasons.push(format!("storage has failed: {why}"));
        } else if let Err(error) = self.spool.check_room(None) {
            reasons.push(format!("no mail is taken: {error}"));
        }
        let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
        if self.certificates.serving().facts.is_expired(now) {
            reasons.push("the certificate has ended; senders that check it keep their mail".into());
        }
        Health::of(reasons)
    }

    fn figures(&self, out: &mut Exposition) {
        process(out, env!("CARGO_PKG_VERSION"), self.started_ms);
        self.counters.figures(out);
        self.mailbox_figures(out);
        self.disk_figures(out);
        self.certificate_figures(out);
    }
}
