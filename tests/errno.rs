//! EIO, ENOSPC, EDQUOT, EROFS, EMFILE at every n-th system call on a file (open, write, fsync, fdatasync, rename, unlink
//! and the rest) of two messages accepted, two collected and removed, a round of the archiver, a password change: never
//! a `250`, a `+OK` to QUIT, a DELE or a confirmed change that the disk does not honour. Each error comes once, at one
//! call of one thread (`support/strike.py`); then the program must go on or have stopped with exit 3, and after the next
//! start `verify` finds nothing.
//!
//! `gateway/tests/faults.rs` and `archiver/tests/faults.rs` do the same below the programs, at the trait of the disk. A
//! first run without errors counts the calls; `POSTKEEP_POINTS=all` tries every error at every call, else as many as are
//! usual, spread evenly behind an offset that the seed gives.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, time::Instant};
use support::{
    Random,
    deeds::{Acceptance, Change, Collection, Deed, Round},
    strike::{self, Blow, ERRORS, Watch},
};

fn sweep<D: Deed>(usual: usize) -> Result<()> {
    if !strike::is_possible()? {
        return Ok(());
    }
    let (started, (mut random, seed)) = (Instant::now(), Random::seeded());
    let mut deed = D::prepare()?;
    let whole = deed.once(Watch { blow: Blow::Fail("nothing", 0), at: 0 })?.seen;
    let points = strike::sample(whole.calls.len() * ERRORS.len(), usual, &mut random);
    let (mut kinds, mut heard, mut missed) = (BTreeMap::new(), BTreeMap::new(), 0);
    for point in &points {
        let (name, errno) = ERRORS.get(point % ERRORS.len()).copied().context("five errors")?;
        let watch = Watch { blow: Blow::Fail(name, errno), at: point / ERRORS.len() + 1 };
        let at = || format!("seed {seed}, {}: {watch}, {:?}", D::NAME, whole.calls.get(watch.at - 1));
        let done = deed.once(watch).with_context(at)?;
        match done.seen.struck {
            Some(call) => {
                *kinds.entry(call.kind).or_insert(0) += 1;
                *heard.entry(done.heard).or_insert(0) += 1;
            }
            // What happens in the background is not the same every time.
            None => missed += 1,
        }
    }
    let promised = deed.finish()?;
    let struck: usize = kinds.values().sum();
    println!(
        "errors at system calls of {}: seed {seed}, calls {} {:?}, points {} of {}, struck {struck} {kinds:?}, not reached \
         {missed}; answers {heard:?}; acknowledged {}, found {}, lost 0, duplicated 0; {:.0?}",
        D::NAME,
        whole.calls.len(),
        whole.by_kind(),
        points.len(),
        whole.calls.len() * ERRORS.len(),
        promised.acknowledged,
        promised.found,
        started.elapsed()
    );
    ensure!(struck * 2 >= points.len(), "only {struck} of {} points were reached", points.len());
    Ok(())
}

#[test]
fn an_acceptance() -> Result<()> {
    sweep::<Acceptance>(12)
}

#[test]
fn a_collection() -> Result<()> {
    sweep::<Collection>(12)
}

#[test]
fn a_password_change() -> Result<()> {
    sweep::<Change>(9)
}

#[test]
fn a_round() -> Result<()> {
    sweep::<Round>(12)
}
