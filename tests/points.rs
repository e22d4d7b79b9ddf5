//! Killed at every n-th system call, before, between and after the answers, of two messages accepted, two collected and
//! removed, a round of the archiver, a password change, a merge of stores: after the next start nothing that was answered is missing, and
//! nothing is there twice.
//!
//! The calls of all threads are counted together (`support/strike.py`): on files below the program's folder, and what
//! goes out on connections, so that some points lie just before and just after a reply. A first run without a kill
//! counts them; then every point, or as many as are usual (every other one in the last quarter), is killed once. `POSTKEEP_POINTS=all` takes
//! them all.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, time::Instant};
use support::{
    Random,
    deeds::{Acceptance, Change, Collection, Deed, Merge, Round},
    strike::{self, Blow, Watch},
};

fn sweep<D: Deed>(usual: usize) -> Result<()> {
    if !strike::is_possible()? {
        return Ok(());
    }
    let (started, (mut random, seed)) = (Instant::now(), Random::seeded());
    let mut deed = D::prepare()?;
    let whole = deed.once(Watch { blow: Blow::Kill, at: 0 })?.seen;
    let points = strike::sample_to_the_end(whole.calls.len(), usual, &mut random);
    let (mut kinds, mut stages, mut missed) = (BTreeMap::new(), BTreeMap::new(), 0);
    for at in points.iter().map(|i| i + 1) {
        let watch = Watch { blow: Blow::Kill, at };
        let done = deed.once(watch).with_context(|| format!("seed {seed}, {}: {watch}", D::NAME))?;
        match done.seen.struck {
            Some(call) => {
                *kinds.entry(call.kind).or_insert(0) += 1;
                *stages.entry(done.stage).or_insert(0) += 1;
            }
            // What happens in the background is not the same every time.
            None => missed += 1,
        }
    }
    let promised = deed.finish()?;
    let struck: usize = kinds.values().sum();
    println!(
        "killed at system calls of {}: seed {seed}, calls {}, points {}, killed at {struck}, not reached {missed}; {stages:?}; \
         {kinds:?}; acknowledged {}, found {}, lost 0, duplicated 0; {:.0?}",
        D::NAME,
        whole.calls.len(),
        points.len(),
        promised.acknowledged,
        promised.found,
        started.elapsed()
    );
    ensure!(struck * 2 >= points.len(), "only {struck} of {} points were reached", points.len());
    ensure!(stages.len() > 1, "every point lies in the same stage");
    Ok(())
}

#[test]
fn an_acceptance() -> Result<()> {
    sweep::<Acceptance>(14)
}

#[test]
fn a_collection() -> Result<()> {
    sweep::<Collection>(14)
}

#[test]
fn a_password_change() -> Result<()> {
    sweep::<Change>(12)
}

#[test]
fn a_merge_of_stores() -> Result<()> {
    sweep::<Merge>(12)
}

#[test]
fn a_round() -> Result<()> {
    sweep::<Round>(14)
}
