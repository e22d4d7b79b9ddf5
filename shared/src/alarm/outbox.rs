//! What is still to be delivered, one queue per recipient: order kept, nothing given up. Pure.
//!
//! A recipient is `mail:ADDRESS` or `command`. Only the head of a queue is tried; after a failure the wait doubles from
//! the first one up to [`LONGEST`]. A reminder that waits behind the head gives way to the next one of its alarm, and a
//! status to the next status, so a way that is blocked for weeks costs no more room than there are alarms.

use super::{Event, Notice};
use crate::{crypt::random, mailer::Letter};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Longest wait between two tries.
pub(super) const LONGEST: Duration = Duration::from_mins(15);
/// Items of one recipient. More come only from an alarm that is raised and resolved over and over; what is left out is
/// counted.
const MOST: usize = 10_000;

/// Queues by recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outbox(BTreeMap<String, Queue>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Queue {
    items: VecDeque<Item>,
    failures: u32,
    next_try_ms: u64,
    error: Option<String>,
    #[serde(default)]
    left_out: u64,
}

/// One thing to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name: the local part of the Message-ID, the same at every try.
    pub id: String,
    /// What.
    pub post: Post,
}

/// What is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Post {
    /// An alarm.
    Notice(Notice),
    /// Anything else that is mailed.
    Letter(Letter),
}

/// A queue as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// `mail:ADDRESS` or `command`.
    pub recipient: String,
    /// How many wait.
    pub waiting: usize,
    /// Failures in a row.
    pub failures: u32,
    /// When the next try is, milliseconds since 1970-01-01 UTC.
    pub next_try_ms: u64,
    /// What went wrong last.
    pub error: Option<String>,
    /// How many were left out because there were too many.
    pub left_out: u64,
}

impl Outbox {
    /// Takes something in for one recipient.
    pub fn put(&mut self, recipient: &str, post: Post) {
        let queue = self.0.entry(recipient.to_owned()).or_default();
        // The head may be on its way.
        let stale = queue.items.iter().skip(1).position(|item| item.post.gives_way_to(&post));
        if let Some(at) = stale {
            queue.items.remove(at + 1);
        }
        if queue.items.len() >= MOST {
            queue.items.remove(1);
            queue.left_out += 1;
        }
        let id = data_encoding::HEXLOWER.encode(&random::<12>());
        queue.items.push_back(Item { id, post });
    }

    /// Whether something is to be delivered to anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|queue| queue.items.is_empty())
    }

    /// The heads whose time has come, with their recipients.
    #[must_use]
    pub fn due(&self, now_ms: u64) -> Vec<(String, Item)> {
        let ready = self.0.iter().filter(|(_, queue)| queue.next_try_ms <= now_ms);
        ready.filter_map(|(recipient, queue)| Some((recipient.clone(), queue.items.front()?.clone()))).collect()
    }

    /// The head was delivered.
    pub fn sent(&mut self, recipient: &str, id: &str) {
        let Some(queue) = self.0.get_mut(recipient) else { return };
        if queue.items.front().is_some_and(|item| item.id == id) {
            queue.items.pop_front();
        }
        (queue.failures, queue.next_try_ms, queue.error) = (0, 0, None);
        if queue.items.is_empty() && queue.left_out == 0 {
            self.0.remove(recipient);
        }
    }

    /// The head could not be delivered; `first`: the wait after the first failure in a row.
    pub fn failed(&mut self, recipient: &str, error: String, first: Duration, now_ms: u64) {
        let Some(queue) = self.0.get_mut(recipient) else { return };
        let doubled = first.saturating_mul(1 << queue.failures.min(16)).min(LONGEST.max(first));
        queue.failures = queue.failures.saturating_add(1);
        queue.next_try_ms = now_ms.saturating_add(u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX));
        queue.error = Some(error);
    }

    /// Nobody waits any longer: everything is tried at once.
    pub fn hurry(&mut self) {
        self.0.values_mut().for_each(|queue| queue.next_try_ms = 0);
    }

    /// After a start. A clock that was wrong then must not hold anything back for longer than the longest wait.
    pub fn wake(&mut self, now_ms: u64) {
        let latest = now_ms.saturating_add(u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX));
        self.0.values_mut().for_each(|queue| queue.next_try_ms = queue.next_try_ms.min(latest));
    }

    /// Takes out the queues of recipients that nobody wants to reach any more; each with how many waited.
    pub fn keep_only(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<(String, usize)> {
        let mut out = Vec::new();
        self.0.retain(|recipient, queue| {
            let keep = wanted(recipient);
            if !keep {
                out.push((recipient.clone(), queue.items.len()));
            }
            keep
        });
        out
    }

    /// Every queue that holds something.
    #[must_use]
    pub fn queued(&self) -> Vec<Queued> {
        let shown = |(recipient, queue): (&String, &Queue)| Queued {
            recipient: recipient.clone(),
            waiting: queue.items.len(),
            failures: queue.failures,
            next_try_ms: queue.next_try_ms,
            error: queue.error.clone(),
            left_out: queue.left_out,
        };
        self.0.iter().map(shown).collect()
    }
}

impl Post {
    /// Whether this one need not be said where `next` is.
    fn gives_way_to(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Notice(old), Self::Notice(new)) => {
                let repeats = |event| matches!(event, Event::Worse | Event::Reminder);
                old.kind == new.kind && old.subject == new.subject && repeats(old.event) && repeats(new.event)
            }
            (Self::Letter(old), Self::Letter(new)) => old.replaces.is_some() && old.replaces == new.replaces,
            _ => false,
        }
    }
}
