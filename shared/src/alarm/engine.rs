//! Which conditions are news. Pure: the time is an argument, nothing is sent.
//!
//! The life of an alarm: a condition is seen; once it has lasted for its `hold` it is told ([`Event::Raised`]). While it
//! lasts it is told again when its stage rises, at most once an hour, and after [`Rules::remind`]. Gone for
//! [`Rules::settle`] it is over ([`Event::Resolved`]); if it comes back before, nothing has happened. What was never told
//! ends without a word.
//!
//! After a restart nobody has looked yet: an alarm stays as it was until somebody says that it is still there, or not.

use super::{Condition, Event, Kind, Notice, shortened};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A higher stage is told no sooner than this after the last notice.
const AGAIN: u64 = 3_600_000;

/// How patient the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An alarm that lasts is told again after this.
    pub remind: Duration,
    /// A condition must be gone this long before the alarm is over.
    pub settle: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { remind: Duration::from_hours(24), settle: Duration::from_mins(5) }
    }
}

/// Every alarm, told or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Engine {
    #[serde(with = "listed")]
    alarms: BTreeMap<(Kind, String), Alarm>,
}

/// An alarm as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// What.
    pub kind: Kind,
    /// Where.
    pub subject: String,
    /// One sentence.
    pub detail: String,
    /// When it began, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// When it was told last; `None`: not yet, it has not lasted long enough.
    pub told_ms: Option<u64>,
    /// It is gone, and about to be over.
    pub settling: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Alarm {
    kind: Kind,
    subject: String,
    detail: String,
    since_ms: u64,
    hold_ms: u64,
    stage: u64,
    told: Option<Told>,
    gone_ms: Option<u64>,
}

/// The last notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    at_ms: u64,
    stage: u64,
}

impl Engine {
    /// Something is wrong now. Whether that changes anything that must be kept.
    pub fn raise(&mut self, condition: Condition, now_ms: u64) -> bool {
        let Condition { kind, subject, detail, since_ms, hold_ms, stage } = condition;
        let key = (kind, subject.clone());
        let Some(alarm) = self.alarms.get_mut(&key) else {
            let since_ms = since_ms.unwrap_or(now_ms).min(now_ms);
            let alarm = Alarm { kind, subject, detail, since_ms, hold_ms, stage, told: None, gone_ms: None };
            self.alarms.insert(key, alarm);
            return true;
        };
        let back = alarm.gone_ms.take().is_some();
        let changed = back || alarm.stage != stage || alarm.hold_ms != hold_ms;
        // Until it is told it may begin anew: a host that was up in between has not been down since yesterday.
        if let (None, Some(since_ms)) = (alarm.told, since_ms) {
            alarm.since_ms = since_ms.min(now_ms);
        }
        (alarm.detail, alarm.hold_ms, alarm.stage) = (detail, hold_ms, stage);
        changed
    }

    /// It is not wrong now. Whether that changes anything.
    pub fn clear(&mut self, kind: Kind, subject: &str, now_ms: u64) -> bool {
        self.gone(&(kind, shortened(subject)), now_ms)
    }

    /// These are all conditions of a kind, and no other subject has one, but for `unknown` subjects, of which nothing is
    /// known at the moment. Whether that changes anything.
    pub fn replace(&mut self, kind: Kind, conditions: Vec<Condition>, unknown: &[String], now_ms: u64) -> bool {
        let mut stay: BTreeSet<String> = unknown.iter().map(|subject| shortened(subject)).collect();
        stay.extend(conditions.iter().map(|condition| condition.subject.clone()));
        let over = self.alarms.keys().filter(|(of, subject)| *of == kind && !stay.contains(subject));
        let over: Vec<(Kind, String)> = over.cloned().collect();
        let mut changed = false;
        for key in over {
            changed |= self.gone(&key, now_ms);
        }
        for condition in conditions {
            changed |= self.raise(condition, now_ms);
        }
        changed
    }

    fn gone(&mut self, key: &(Kind, String), now_ms: u64) -> bool {
        match self.alarms.get_mut(key) {
            Some(alarm) if alarm.told.is_none() => {
                self.alarms.remove(key);
                true
            }
            Some(alarm) if alarm.gone_ms.is_none() => {
                alarm.gone_ms = Some(now_ms);
                true
            }
            _ => false,
        }
    }

    /// What is news at this moment; each is given out once.
    pub fn due(&mut self, rules: &Rules, now_ms: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.alarms.retain(|_, alarm| {
            let event = alarm.event(rules, now_ms);
            if let Some(event) = event {
                notices.push(alarm.notice(event, now_ms));
                alarm.told = Some(Told { at_ms: now_ms, stage: alarm.stage });
            }
            event != Some(Event::Resolved)
        });
        notices
    }

    /// Every alarm, the weightiest kind first.
    #[must_use]
    pub fn active(&self) -> Vec<Active> {
        self.alarms.values().map(Alarm::shown).collect()
    }
}

impl Alarm {
    fn event(&self, rules: &Rules, now_ms: u64) -> Option<Event> {
        let passed = |from: u64, span: Duration| u128::from(now_ms.saturating_sub(from)) >= span.as_millis();
        if let Some(gone) = self.gone_ms {
            return passed(gone, rules.settle).then_some(Event::Resolved);
        }
        let Some(told) = self.told else {
            return (now_ms.saturating_sub(self.since_ms) >= self.hold_ms).then_some(Event::Raised);
        };
        if self.stage > told.stage && now_ms.saturating_sub(told.at_ms) >= AGAIN {
            return Some(Event::Worse);
        }
        (self.kind.reminds() && passed(told.at_ms, rules.remind)).then_some(Event::Reminder)
    }

    fn notice(&self, event: Event, now_ms: u64) -> Notice {
        let (kind, subject, detail) = (self.kind, self.subject.clone(), self.detail.clone());
        Notice { event, kind, subject, detail, since_ms: self.since_ms, at_ms: now_ms }
    }

    fn shown(&self) -> Active {
        Active {
            kind: self.kind,
            subject: self.subject.clone(),
            detail: self.detail.clone(),
            since_ms: self.since_ms,
            told_ms: self.told.map(|told| told.at_ms),
            settling: self.gone_ms.is_some(),
        }
    }
}

/// A list in the file: keys of two parts have no place in JSON.
mod listed {
    use super::{Alarm, BTreeMap, Kind};
    use serde::{Deserialize as _, Deserializer, Serializer};

    type Alarms = BTreeMap<(Kind, String), Alarm>;

    pub(super) fn serialize<S: Serializer>(alarms: &Alarms, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(alarms.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Alarms, D::Error> {
        let list = Vec::<Alarm>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|alarm| ((alarm.kind, alarm.subject.clone()), alarm)).collect())
    }
}
