//! The engine against a plain model, with a simulated clock and restarts; the queue; the file.

use super::*;
use crate::{disk::LocalDisk, mailer::Letter};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const START: u64 = 1_790_553_600_000;

fn condition(subject: &str) -> Condition {
    Condition::new(Kind::HostDown, subject, "It cannot be reached.")
}

fn events(engine: &mut Engine, now: u64) -> Vec<Event> {
    engine.due(&Rules::default(), now).iter().map(|notice| notice.event).collect()
}

#[test]
fn once_then_daily_then_resolved() {
    let mut engine = Engine::default();
    let mut told = Vec::new();
    for minute in 0..3 * 24 * 60 + 30 {
        let now = START + minute * MINUTE;
        if minute < 3 * 24 * 60 {
            engine.raise(condition("a").since(START).hold(Duration::from_mins(30)), now);
        } else {
            engine.clear(Kind::HostDown, "a", now);
        }
        told.extend(events(&mut engine, now).into_iter().map(|event| (minute, event)));
    }
    let wanted = [
        (30, Event::Raised),
        (30 + 24 * 60, Event::Reminder),
        (30 + 48 * 60, Event::Reminder),
        (3 * 24 * 60 + 5, Event::Resolved),
    ];
    assert_eq!(told, wanted);
    assert!(engine.active().is_empty());
}

#[test]
fn what_was_not_told_ends_without_a_word_and_what_comes_back_has_not_been_away() {
    let mut engine = Engine::default();
    engine.raise(condition("a").hold(Duration::from_mins(30)), START);
    assert!(events(&mut engine, START + 29 * MINUTE).is_empty());
    engine.clear(Kind::HostDown, "a", START + 29 * MINUTE);
    assert!(events(&mut engine, START + DAY).is_empty() && engine.active().is_empty());
    engine.raise(condition("a"), START);
    assert_eq!(events(&mut engine, START), [Event::Raised]);
    for n in 0..20 {
        let now = START + n * 4 * MINUTE;
        engine.clear(Kind::HostDown, "a", now);
        assert!(events(&mut engine, now + 3 * MINUTE).is_empty());
        engine.raise(condition("a"), now + 3 * MINUTE);
        assert!(events(&mut engine, now + 3 * MINUTE).is_empty());
    }
}

#[test]
fn stages_of_a_certificate_are_told_and_nothing_between() {
    let mut engine = Engine::default();
    let mut told = Vec::new();
    for hour in 0..24 * 24 {
        let now = START + hour * HOUR;
        // 21, 14, 7, 3 days before its end, then daily.
        let days = 21 - i64::try_from(hour / 24).expect("small");
        let stage = match days {
            15.. => 1,
            8..=14 => 2,
            4..=7 => 3,
            1..=3 => 4,
            _ => 5 + days.unsigned_abs(),
        };
        engine.raise(Condition::new(Kind::Certificate, "gw", "It ends.").stage(stage), now);
        told.extend(events(&mut engine, now).into_iter().map(|event| (days, event)));
    }
    let wanted = [
        (21, Event::Raised),
        (14, Event::Worse),
        (7, Event::Worse),
        (3, Event::Worse),
        (0, Event::Worse),
        (-1, Event::Worse),
        (-2, Event::Worse),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn all_of_a_kind_at_once_and_what_is_not_known_stays() {
    let mut engine = Engine::default();
    engine.replace(Kind::HostDown, vec![condition("a"), condition("b"), condition("c")], &[], START);
    engine.raise(Condition::new(Kind::Disk, "/", "full"), START);
    assert_eq!(events(&mut engine, START).len(), 4);
    engine.replace(Kind::HostDown, vec![condition("a")], &["b".into()], START + 1);
    let over = engine.due(&Rules::default(), START + 10 * MINUTE);
    assert_eq!(over.iter().map(|n| (n.event, n.subject.as_str())).collect::<Vec<_>>(), [(Event::Resolved, "c")]);
    assert_eq!(engine.active().len(), 3);
}

/// What the engine must do, without its code: the history of one alarm.
#[derive(Default, Clone)]
struct Model {
    present_since: Option<u64>,
    gone_since: Option<u64>,
    told: Option<u64>,
}

#[derive(Debug, Clone)]
enum Step {
    Raise(u8),
    Clear(u8),
    Replace(u8),
    Restart,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..4).prop_map(Step::Raise),
        3 => (0u8..4).prop_map(Step::Clear),
        1 => (0u8..16).prop_map(Step::Replace),
        1 => Just(Step::Restart),
        4 => prop_oneof![0..10 * MINUTE, 0..3 * HOUR, 0..2 * DAY].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Each alarm: raised, then reminders a day apart, then resolved, over and over; raised only after it has lasted for
    /// ten minutes, resolved only after five minutes without it, and nothing twice, whatever comes and however often the
    /// program is started again.
    #[test]
    fn each_notice_once(steps in steps()) {
        let (rules, hold) = (Rules::default(), Duration::from_mins(10));
        let mut engine = Engine::default();
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        let mut now = START;
        let names = ["a", "b", "c", "d"];
        let one = |name: &str| condition(name).hold(hold);
        for step in steps.into_iter().chain([Step::Wait(0)]) {
            let mut changed: Vec<(&str, bool)> = Vec::new();
            match step {
                Step::Raise(n) => {
                    let name = names[usize::from(n)];
                    engine.raise(one(name), now);
                    changed.push((name, true));
                }
                Step::Clear(n) => {
                    let name = names[usize::from(n)];
                    engine.clear(Kind::HostDown, name, now);
                    changed.push((name, false));
                }
                Step::Replace(set) => {
                    let has = |n: usize| set & (1 << n) != 0;
                    let conditions = (0..4).filter(|n| has(*n)).map(|n| one(names[n])).collect();
                    engine.replace(Kind::HostDown, conditions, &[], now);
                    changed.extend((0..4).map(|n| (names[n], has(n))));
                }
                Step::Restart => {
                    let text = serde_json::to_string(&engine).expect("JSON");
                    let read: Engine = serde_json::from_str(&text).expect("reads");
                    prop_assert_eq!(&read, &engine);
                    engine = read;
                }
                Step::Wait(ms) => now += ms,
            }
            for (name, present) in changed {
                let model = models.entry(name.to_owned()).or_default();
                if present {
                    model.gone_since = None;
                    model.present_since.get_or_insert(now);
                } else if model.told.is_none() {
                    *model = Model::default();
                } else {
                    model.gone_since.get_or_insert(now);
                }
            }
            let mut seen = Vec::new();
            for notice in engine.due(&rules, now) {
                prop_assert!(!seen.contains(&notice.subject), "two of one alarm at once");
                seen.push(notice.subject.clone());
                let model = models.entry(notice.subject.clone()).or_default();
                match notice.event {
                    Event::Raised => {
                        prop_assert!(model.told.is_none(), "raised twice");
                        let since = model.present_since.expect("raised without a condition");
                        prop_assert!(now - since >= 10 * MINUTE && model.gone_since.is_none());
                        model.told = Some(now);
                    }
                    Event::Reminder => {
                        let told = model.told.expect("a reminder of nothing");
                        prop_assert!(now - told >= DAY && model.gone_since.is_none());
                        model.told = Some(now);
                    }
                    Event::Resolved => {
                        prop_assert!(model.told.is_some(), "resolved what was never raised");
                        prop_assert!(now - model.gone_since.expect("resolved while it lasts") >= 5 * MINUTE);
                        *model = Model::default();
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            // And nothing is forgotten: what is due now was told now.
            for (name, model) in &models {
                let lasts = model.present_since.is_some_and(|since| now - since >= 10 * MINUTE) && model.gone_since.is_none();
                prop_assert!(!lasts || model.told.is_some(), "{name} was not told");
                prop_assert!(model.gone_since.is_none_or(|gone| now - gone < 5 * MINUTE), "{name} is not over");
                prop_assert!(model.gone_since.is_some() || model.told.is_none_or(|told| now - told < DAY), "{name}: no reminder");
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever fails in between: each item reaches its recipient once and in order, and nothing stays.
    #[test]
    fn the_queue_keeps_order(fails in prop::collection::vec(any::<bool>(), 0..60)) {
        let mut outbox = Outbox::default();
        let mut taken: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let (mut now, mut fails) = (START, fails.into_iter());
        for n in 0..20u64 {
            for recipient in ["mail:a@x.example", "command"] {
                outbox.put(recipient, raised(n));
            }
        }
        for _ in 0..100 {
            for (recipient, item) in outbox.due(now) {
                if fails.next() == Some(true) {
                    outbox.failed(&recipient, "no".into(), Duration::from_secs(30), now);
                    prop_assert!(outbox.due(now).iter().all(|(other, _)| *other != recipient), "it waits");
                } else {
                    let Post::Notice(notice) = &item.post else { panic!("a notice") };
                    taken.entry(recipient.clone()).or_default().push(notice.since_ms);
                    outbox.sent(&recipient, &item.id);
                }
            }
            outbox = serde_json::from_str(&serde_json::to_string(&outbox).expect("JSON")).expect("reads");
            now += 16 * MINUTE;
        }
        prop_assert!(outbox.is_empty());
        prop_assert!(taken.len() == 2 && taken.values().all(|numbers| numbers.iter().copied().eq(0..20)));
    }
}

fn post(event: Event, since_ms: u64) -> Post {
    Post::Notice(Notice { event, kind: Kind::Gap, subject: "s".into(), detail: "d".into(), since_ms, at_ms: START })
}

fn raised(since_ms: u64) -> Post {
    post(Event::Raised, since_ms)
}

#[test]
fn a_blocked_way_grows_no_heap_of_reminders() {
    let mut outbox = Outbox::default();
    let status = |n: i64| Post::Letter(Letter { written: n, replaces: Some("status".into()), ..Letter::default() });
    outbox.put("command", raised(0));
    for n in 0..1000 {
        outbox.put("command", post(Event::Reminder, n));
        outbox.put("command", status(1));
    }
    outbox.put("command", post(Event::Resolved, 0));
    assert_eq!(outbox.queued()[0].waiting, 4, "raised, the last reminder, the last status, resolved");
    let mut waits = Vec::new();
    for _ in 0..12 {
        outbox.failed("command", "no".into(), Duration::from_secs(30), START);
        waits.push((outbox.queued()[0].next_try_ms - START) / 1000);
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900, 900, 900, 900, 900]);
    outbox.hurry();
    assert_eq!(outbox.due(START).len(), 1);
    assert_eq!(outbox.keep_only(|_| false), [("command".to_owned(), 4)]);
}

#[test]
fn the_file_is_whole_or_put_aside() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut kept = Kept::open(&LocalDisk, folder.path());
    assert_eq!(kept, Kept::default());
    kept.engine.raise(condition("a"), START);
    kept.outbox.put("command", raised(1));
    kept.write(&LocalDisk, folder.path()).expect("writes");
    assert_eq!(Kept::read(&LocalDisk, folder.path()).expect("reads"), kept);
    std::fs::write(Kept::file(folder.path()), b"{\"version\":1,").expect("writes");
    assert!(matches!(Kept::read(&LocalDisk, folder.path()), Err(KeptError::Damaged { .. })));
    assert_eq!(Kept::open(&LocalDisk, folder.path()), Kept::default());
    let names: Vec<_> = std::fs::read_dir(folder.path().join("alarms")).expect("lists").flatten().collect();
    assert!(names.len() == 1 && names[0].file_name().to_string_lossy().starts_with("state.damaged-"), "{names:?}");
}
