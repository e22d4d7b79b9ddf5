//! Damage × place × the next operation, as one table: {flip, truncate, zero, delete, swap, duplicate} × {pack header, pack
//! body, pack table, record, key file, catalog, lock} × {verify, show, collect, rebuild, repair}.
//!
//! In every cell: no wrong octet, no panic; what `verify` and `repair` name as lost is exactly what cannot be read, all
//! else reads octet for octet; whatever was done in between, `repair` saves as much as without it.
//! Words: *whole* (nothing is wrong), *found* (damage is told, nothing is lost), *refused* (an error says why), *lost n* (reports).
//!
//! `POSTKEEP_STRIKES=TEXT` takes only the rows whose name contains TEXT.

#[path = "store/filled.rs"]
mod filled;
#[path = "store/strike.rs"]
mod strike;
#[path = "store/support.rs"]
mod support;

use filled::{Filled, Seen, open};
use postkeep_archiver::store::{
    Repaired, Store, StoreResult, Unlock, UnlockKey, Verified, rebuild_catalog, rebuild_records, repair,
};
use postkeep_shared::disk::{Disk as _, DiskLock, LocalDisk};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use strike::{Strike, strikes};
use support::*;

const THREADS: usize = 4;
const OPERATIONS: [&str; 6] = ["verify", "show", "collect", "rebuild-catalog", "rebuild-records", "repair"];

/// One row: what was done to a file, and what every operation said.
struct Trial<'a> {
    filled: &'a Filled,
    strike: &'a Strike,
    /// What can be read without any mending.
    shown: Seen,
    /// What can be read after `repair`; `None` where it refuses.
    repaired: Option<Seen>,
}

type Row = [String; OPERATIONS.len()];

impl Trial<'_> {
    fn struck(&self) -> Place {
        let place = self.filled.place.copied();
        self.strike.at(&place);
        place
    }

    fn row(&mut self) -> Row {
        let place = self.struck();
        let verified = self.verify(&place);
        let shown = self.show(&place);
        let repaired = self.repair();
        [verified, shown, self.collect(), self.rebuild_catalog(), self.rebuild_records(), repaired]
    }

    /// `open_read` and `verify`: what it names is what cannot be read.
    fn verify(&self, place: &Place) -> String {
        let _lock = locked(place);
        let Some((store, verified)) = tried(open(place, false).and_then(|store| {
            let verified = store.verify()?;
            Ok((store, verified))
        })) else {
            return "refused".to_owned();
        };
        let seen = self.filled.seen(&store, &self.strike.to_string());
        let (all, named) = (self.filled.all(), named(&verified));
        let missing = Seen {
            reports: all.reports.difference(&seen.reports).cloned().collect(),
            messages: all.messages.difference(&seen.messages).cloned().collect(),
        };
        assert_eq!(named, missing, "what verify names is not what cannot be read: {verified:#?}");
        assert!(!verified.ok || missing == Seen::default(), "not found: {missing:?}");
        assert!(!verified.ok || self.is_listed(&store), "not found: other listings");
        word(verified.ok, missing.reports.len())
    }

    fn show(&mut self, place: &Place) -> String {
        let _lock = locked(place);
        let Some(store) = tried(open(place, false)) else { return "refused".to_owned() };
        self.shown = self.filled.seen(&store, &self.strike.to_string());
        let read = store.read_message(&self.filled.deleted.1, &mut Vec::new());
        assert!(read.is_err(), "what was deleted is shown");
        word(true, self.filled.reports.len() - self.shown.reports.len())
    }

    /// A further report, and all others again under other names: refused, or stored whole and nothing worse.
    fn collect(&self) -> String {
        let place = self.struck();
        let lock = locked(&place);
        let fresh = report("<fresh@x>", "a fresh one\r\n", 3);
        let taken = tried(open(&place, true).and_then(|mut store| {
            add(&mut store, "fresh", &fresh, &plan(&["ann"]))?;
            Ok(store.commit()?.receipts.len())
        }));
        let said = match taken {
            None => "refused".to_owned(),
            Some(receipts) => {
                assert_eq!(receipts, 1, "a fresh report is not stored");
                let store = open(&place, false).expect("opens again");
                assert!(raw(&store, "fresh") == fresh.octets);
                let seen = self.filled.seen(&store, "after a further report");
                assert!(seen.holds(&self.shown), "less than before: {seen:?}");
                drop(store);
                self.collect_again(&place)
            }
        };
        drop(lock);
        self.no_worse(&place, taken.map(|_| fresh.octets));
        said
    }

    /// What has a receipt is there, also where it was thought to be stored before; asked twice, the store takes it.
    fn collect_again(&self, place: &Place) -> String {
        let again = |uidl: &str| format!("again {uidl}");
        let mut waiting: Vec<_> = self.filled.reports.iter().collect();
        let mut store = open(place, true).expect("opens");
        for _ in 0..2 {
            for (uidl, report) in &waiting {
                add(&mut store, &again(uidl), report, &plan(&["ann"])).expect("adds");
            }
            let receipts = store.commit().expect("commits").receipts;
            waiting.retain(|(uidl, _)| receipts.iter().all(|receipt| receipt.uidl() != again(uidl)));
        }
        assert!(
            waiting.is_empty(),
            "never stored again: {:?}",
            waiting.iter().map(|(uidl, _)| uidl).collect::<Vec<_>>()
        );
        drop(store);
        let store = open(place, false).expect("opens");
        for (uidl, report) in &self.filled.reports {
            assert!(raw(&store, &again(uidl)) == report.octets, "again {uidl}");
        }
        "stored".to_owned()
    }

    fn rebuild_catalog(&self) -> String {
        let place = self.struck();
        let lock = locked(&place);
        let rebuilt = tried(UnlockKey::load(&place.key_file(), &LocalDisk).and_then(|key| {
            rebuild_catalog(&place.store(), &Unlock::Key(&key), disk())?;
            open(&place, false)
        }));
        let said = rebuilt.map_or_else(|| "refused".to_owned(), |store| self.read(&store));
        drop(lock);
        self.no_worse(&place, None);
        said
    }

    fn rebuild_records(&self) -> String {
        let place = self.struck();
        let lock = locked(&place);
        let rebuilt = tried(UnlockKey::load(&place.key_file(), &LocalDisk).and_then(|key| {
            rebuild_records(&place.store(), &Unlock::Key(&key), &disk(), &mut |_, _| ())?;
            open(&place, false)
        }));
        let said = rebuilt.map_or_else(|| "refused".to_owned(), |store| self.read(&store));
        drop(lock);
        self.no_worse(&place, None);
        said
    }

    fn read(&self, store: &Store) -> String {
        let seen = self.filled.seen(store, &self.strike.to_string());
        word(true, self.filled.reports.len() - seen.reports.len())
    }

    fn repair(&mut self) -> String {
        let place = self.struck();
        let _lock = locked(&place);
        let Some(told) = tried(repaired(&place)) else {
            assert_eq!(self.strike.object, "key file", "it may not refuse");
            return "refused".to_owned();
        };
        let store = open(&place, false).expect("opens");
        let seen = self.exactly(&store, &told);
        assert!(seen.holds(&self.shown), "it could be read before");
        let verified = store.verify().expect("goes on");
        let sound = verified.ok || self.strike.object == "key file";
        assert!(sound, "not sound after it: {verified:#?}");
        assert!(self.may_lose() || told.ok, "lost without need: {told:#?}");
        assert!(!told.ok || self.is_listed(&store), "other listings: {told:#?}");
        drop(store);
        assert!(repaired(&place).expect("repairs").lost.is_empty(), "told once");
        self.repaired = Some(seen);
        word(!told.damaged, told.lost.iter().flat_map(|lost| &lost.reports).count())
    }

    /// What `repair` names is what cannot be read.
    fn exactly(&self, store: &Store, told: &Repaired) -> Seen {
        let seen = self.filled.seen(store, &self.strike.to_string());
        let all = self.filled.all();
        let reports: BTreeSet<_> =
            told.lost.iter().flat_map(|lost| &lost.reports).map(|(_, uidl)| uidl.clone()).collect();
        let messages: BTreeSet<_> = told.lost.iter().filter_map(|lost| lost.message.clone()).collect();
        assert_eq!(reports, all.reports.difference(&seen.reports).cloned().collect(), "{told:#?}");
        assert_eq!(messages, all.messages.difference(&seen.messages).cloned().collect(), "{told:#?}");
        assert_eq!(told.ok, seen == all);
        seen
    }

    /// Whatever was done, `repair` saves as much as without it.
    fn no_worse(&self, place: &Place, fresh: Option<Vec<u8>>) {
        let Some(before) = &self.repaired else { return };
        let told = repaired(place).expect("repairs");
        let store = open(place, false).expect("opens");
        let seen = self.filled.seen(&store, &self.strike.to_string());
        assert!(seen.holds(before), "less than a repair saves without it: {told:#?}");
        assert!(store.read_message(&self.filled.deleted.1, &mut Vec::new()).is_err(), "what was deleted is back");
        if let Some(octets) = fresh {
            assert!(raw(&store, "fresh") == octets, "what was added to a damaged store is lost");
        }
    }

    fn is_listed(&self, store: &Store) -> bool {
        format!("{:?}", list(store, "ann")) == self.filled.listing
    }

    /// Octets of messages are in the frames of packs and nowhere else. Frames are bound to their place: where octets are
    /// taken out or put in before them, those behind are lost.
    fn may_lose(&self) -> bool {
        let moved = ["delete", "duplicate"].contains(&self.strike.action);
        match self.strike.object {
            "pack body" => self.strike.action != "duplicate",
            "pack header" => moved || self.strike.action == "truncate",
            "pack table" => self.strike.what == "with the frame before",
            _ => false,
        }
    }
}

fn word(well: bool, lost: usize) -> String {
    match (well, lost) {
        (true, 0) => "whole".to_owned(),
        (false, 0) => "found".to_owned(),
        (_, lost) => format!("lost {lost}"),
    }
}

/// A refusal says why.
fn tried<T>(result: StoreResult<T>) -> Option<T> {
    result.map_err(|error| assert!(error.to_string().len() > 20, "{error:?}")).ok()
}

/// As the program does before anything else; nobody else gets it meanwhile.
fn locked(place: &Place) -> Box<dyn DiskLock> {
    let path = place.0.path().join("lock");
    let lock = LocalDisk.lock(&path).expect("the lock is free");
    assert!(LocalDisk.lock(&path).is_err(), "two have it");
    lock
}

fn repaired(place: &Place) -> StoreResult<Repaired> {
    let key = UnlockKey::load(&place.key_file(), &LocalDisk)?;
    repair(&place.store(), &Unlock::Key(&key), &disk(), &mut |_, _| ())
}

/// Reports and messages that `verify` calls damaged.
fn named(verified: &Verified) -> Seen {
    let of = |kind: &str| {
        verified.problems.iter().filter(|p| p.kind == kind).map(|p| p.r#where.clone()).collect::<BTreeSet<_>>()
    };
    let reports =
        of("report-damaged").iter().filter_map(|place| place.strip_prefix("src ").map(str::to_owned)).collect();
    Seen { reports, messages: of("message-damaged") }
}

/// Rows in their order; `None` where something was not as it must be.
fn rows(filled: &Filled, strikes: &[Strike]) -> Vec<Option<Row>> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(strike) = strikes.get(at) else { break };
                    let mut trial = Trial { filled, strike, shown: Seen::default(), repaired: None };
                    let row = catch_unwind(AssertUnwindSafe(|| trial.row())).ok();
                    rows.lock().expect("whole").insert(at, row);
                }
            });
        }
    });
    rows.into_inner().expect("whole").into_values().collect()
}

#[test]
fn damage_by_place_by_operation() {
    let wanted = std::env::var("POSTKEEP_STRIKES").unwrap_or_default();
    let [a, b, c, d, e, f] = OPERATIONS;
    let mut lines =
        vec![format!("{:<10} {:<12} {:<40} {a:<8} {b:<8} {c:<8} {d:<16} {e:<16} {f}", "action", "place", "where")];
    let (mut count, mut failed) = (0, Vec::new());
    for sealed in [true, false] {
        let filled = Filled::new(sealed);
        let strikes: Vec<_> = strikes(&filled).into_iter().filter(|one| one.to_string().contains(&wanted)).collect();
        for (strike, row) in strikes.iter().zip(rows(&filled, &strikes)) {
            let Strike { action, object, what, .. } = strike;
            failed.extend(row.is_none().then(|| strike.to_string()));
            let [a, b, c, d, e, f] = row.unwrap_or_else(|| OPERATIONS.map(|_| "FAILED".to_owned()));
            lines.push(format!("{action:<10} {object:<12} {what:<40} {a:<8} {b:<8} {c:<8} {d:<16} {e:<16} {f}"));
            count += 1;
        }
    }
    println!("{}", lines.join("\n"));
    println!(
        "{count} strikes × {} operations: {} failed; else 0 wrong octets served, 0 panics, lost is what is named",
        OPERATIONS.len(),
        failed.len()
    );
    assert!(failed.is_empty() && count > 0, "{failed:#?}");
}
