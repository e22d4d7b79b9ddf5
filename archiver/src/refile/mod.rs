//! Filing old messages anew when owners, addresses or own domains change: by reference, record first, as often as wanted.
//!
//! An address is served once: a message goes to those who own the address when it is filed. Whoever gets the address
//! later does not get what was filed to somebody before (a name that is given to another person must not hand over the
//! first one's mail); he gets what nobody owned. What nobody owned, and leaves the catch-all archive for it, is found by
//! the catalog; `owner refile` looks at every report, which also serves addresses outside the own domains.
//!
//! What is decided lies in the store of its report; reports in a write-protected store are counted and left as they are.
//!
//! Not here: what is in quarantine or a dead letter; that has its own commands.

use crate::{
    archive::Archive,
    filing::{Envelope, Owners, Plan, Rules, Unknown, normalise, plan},
    store::{Filed, NewFiling, Outcome, StoreResult, entry::FiledBy},
};
use postkeep_shared::run::now_ms;
use std::collections::BTreeSet;

/// Records of one commit.
const BATCH: u64 = 64;

/// What was filed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Refiled {
    /// Reports that were looked at.
    pub reports: u64,
    /// Reports of which something new is recorded.
    pub changed: u64,
    /// Appearances that are new.
    pub instances: u64,
    /// Pairs of report and address that have an owner now and had none.
    pub served: u64,
    /// Reports that would be filed to somebody, but lie in a store that is write-protected.
    pub write_protected: u64,
}

/// Which reports to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those with an address that nobody owned and somebody owns now, and those that nobody owned at all.
    Waiting,
    /// All.
    All,
}

/// Files stored reports to owners they have now. `rules` gives the rules of a source by its name.
///
/// # Errors
/// The store's. What was committed before stays; said again, it goes on where it ended.
pub fn refile(
    store: &mut Archive,
    owners: &Owners,
    rules: &dyn Fn(&str) -> Rules,
    reach: Reach,
    stop: &dyn Fn() -> bool,
) -> StoreResult<Refiled> {
    // Own domains and separator are the same for every source.
    let any = rules("");
    let changed = |address: &str| !any.is_own(address) || !owners.find(address, any.sub_addressing).is_empty();
    let numbers = match reach {
        Reach::All => store.all_reports()?,
        Reach::Waiting => store.waiting_for(&changed)?,
    };
    let mut done = Refiled::default();
    for number in numbers {
        if stop() {
            break;
        }
        let filed = store.filed(number)?;
        done.reports += 1;
        let Some(Change { plan, settled, served }) = reconsider(&filed, owners, &rules(&filed.source)) else {
            continue;
        };
        if !store.takes_filings(number) {
            done.write_protected += 1;
            continue;
        }
        let filing = NewFiling {
            filed: &filed,
            by: FiledBy::Refile,
            who: None,
            reason: None,
            plan: &plan,
            settled,
            examined: None,
            filed_ms: now_ms(),
        };
        done.instances += store.add_filing(filing)?;
        done.changed += 1;
        done.served += served;
        if done.changed.is_multiple_of(BATCH) {
            let _ = store.commit()?;
        }
    }
    let _ = store.commit()?;
    Ok(done)
}

struct Change {
    plan: Plan,
    settled: Vec<String>,
    served: u64,
}

/// What is new about a stored report, `None` when nothing is.
fn reconsider(filed: &Filed, owners: &Owners, rules: &Rules) -> Option<Change> {
    let catchall = filed.outcome == Outcome::CatchAll;
    if !catchall && filed.outcome != Outcome::Filed {
        return None;
    }
    let envelope = filed.verdict.envelope(filed.message.as_ref()?.date);
    let waiting = waiting(filed, &envelope, catchall);
    // The message is here: what the source does with others of its kind makes no difference.
    let whole = plan(envelope, owners, &Rules { unknown: Unknown::CatchAll, ..rules.clone() });
    let (mut instances, mut served) = (Vec::new(), BTreeSet::new());
    for mut instance in whole.instances {
        instance.because.retain(|reason| waiting.contains(&normalise(&reason.address)));
        served.extend(instance.because.iter().map(|reason| normalise(&reason.address)));
        // The catch-all archive has no reason, and is no news.
        if !instance.because.is_empty() {
            instances.push(instance);
        }
    }
    let before: BTreeSet<String> = filed.unowned.iter().cloned().collect();
    let unowned: BTreeSet<String> = whole.unowned.into_iter().filter(|address| waiting.contains(address)).collect();
    if instances.is_empty() && unowned == before {
        return None;
    }
    let settled = before.difference(&unowned).cloned().collect();
    let catchall = catchall && instances.is_empty();
    let plan = Plan { instances, unowned: unowned.into_iter().collect(), catchall, leave: false };
    Some(Change { plan, settled, served: served.len() as u64 })
}

/// Addresses of the envelope that nobody was ever found for.
fn waiting(filed: &Filed, envelope: &Envelope<'_>, catchall: bool) -> BTreeSet<String> {
    let served: BTreeSet<String> = filed.reasons().map(|reason| normalise(&reason.address)).collect();
    if served.is_empty() && !catchall {
        // Filed by a build that kept no reasons, or to an owner whom a person named.
        return filed.unowned.iter().cloned().collect();
    }
    envelope.addresses().map(|(_, address)| normalise(address)).filter(|address| !served.contains(address)).collect()
}
