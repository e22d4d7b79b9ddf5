//! A piece of work that is timed by criterion and counted by callgrind.
//!
//! Instructions do not depend on what else the machine does, so a regression shows on a noisy one. `postkeep-bench
//! count` starts each bench under callgrind with [`ONCE`] set; only what happens inside [`counted`] is collected.

use std::hint::black_box;

/// Names the subject that is to be run once, under callgrind. `?` lists them.
pub const ONCE: &str = "POSTKEEP_BENCH_ONCE";

/// One piece of work.
pub struct Subject<'a> {
    /// Its name, for ever.
    pub name: &'static str,
    /// Octets it works on.
    pub octets: u64,
    /// Does it; may be called any number of times.
    pub work: Box<dyn FnMut() + 'a>,
}

impl<'a> Subject<'a> {
    /// A piece of work whose result is not looked at.
    pub fn new<T>(name: &'static str, octets: usize, mut work: impl FnMut() -> T + 'a) -> Self {
        Self { name, octets: octets as u64, work: Box::new(move || drop(black_box(work()))) }
    }
}

/// Where callgrind collects. Not inlined and not generic, so that its name stays what it is.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    black_box(work)();
}

/// Does what [`ONCE`] asks for; whether it asked.
pub fn once(subjects: &mut [Subject<'_>]) -> bool {
    let Ok(wanted) = std::env::var(ONCE) else { return false };
    for subject in subjects {
        if wanted == "?" {
            println!("{} {}", subject.name, subject.octets);
        } else if wanted == subject.name {
            // Tables, allocations and lazily loaded code of the first time are not counted.
            (subject.work)();
            counted(&mut subject.work);
        }
    }
    true
}
