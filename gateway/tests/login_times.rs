//! From the time of a refused login nobody can tell whether there is such a mailbox: 500 tries on unknown and 500 on
//! known names, medians within 2 % (a debug build tries 100 + 100).
//!
//! In process and one after the other: what is compared is the work of one attempt, without the waits that failures
//! bring. Judged by processor time, which other tests on the machine change little; the clock's time is printed, too.
//! What noise there is moves some round; a real difference shows in each. So the first round within 2 % decides, and
//! only [`ROUNDS`] outside it are a finding. `POSTKEEP_LOGINS=…` sets the tries of each kind in a round.

use postkeep_gateway::mailbox::{Mailboxes, UnlockError};
use postkeep_shared::{
    crypt::{Password, random},
    disk::LocalDisk,
    mail::MailboxId,
};
use std::{sync::Arc, time::Instant};

/// Of each kind in a round. A debug build takes three times as long for each.
const TRIES: usize = if cfg!(debug_assertions) { 100 } else { 500 };
/// Rounds that have to differ before that counts as a difference.
const ROUNDS: usize = 6;
const MAILBOXES: usize = 8;
const TOLERANCE: f64 = 0.02;

/// Nanoseconds of processor time this thread has used (proc(5), `schedstat`).
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64
}

/// Medians of processor and clock time, in nanoseconds.
struct Medians {
    processor: f64,
    clock: f64,
}

fn medians(times: Vec<(u64, u64)>) -> Medians {
    let (processor, clock) = times.into_iter().unzip();
    Medians { processor: median(processor), clock: median(clock) }
}

#[test]
fn unknown_and_wrong_take_the_same_time() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
    let known: Vec<MailboxId> = (0..MAILBOXES).map(|_| all.create("", None).expect("makes").0.id).collect();
    let password = Password::received(b"not the password");
    let attempt = |name: MailboxId| {
        let (processor, clock) = (processor_time(), Instant::now());
        let claim =
            all.claim(Some(name), name.to_string().as_bytes()).expect("reads").expect("a mailbox or a stand-in");
        assert_eq!(claim.unlock(&password).err(), Some(UnlockError::WrongPassword));
        (processor_time() - processor, u64::try_from(clock.elapsed().as_nanos()).expect("short"))
    };
    for _ in 0..5 {
        attempt(known[0]);
    }
    let tries = std::env::var("POSTKEEP_LOGINS").ok().map_or(TRIES, |text| text.parse().expect("a number"));
    let apart = |a: f64, b: f64| (a - b).abs() / b;
    let fits = (1..=ROUNDS).any(|round| {
        let (mut of_known, mut of_unknown) = (Vec::new(), Vec::new());
        for n in 0..tries {
            // By turns and in random order, so that whatever the machine does meets both.
            let unknown_first = random::<1>()[0].is_multiple_of(2);
            for unknown in [unknown_first, !unknown_first] {
                if unknown {
                    of_unknown.push(attempt(MailboxId(random())));
                } else {
                    of_known.push(attempt(known[n % MAILBOXES]));
                }
            }
        }
        let (known, unknown) = (medians(of_known), medians(of_unknown));
        let (processor, clock) = (apart(unknown.processor, known.processor), apart(unknown.clock, known.clock));
        println!(
            "round {round}: {tries} + {tries} logins, medians known / unknown: processor {:.3} / {:.3} ms ({:.2} % apart), clock {:.3} / {:.3} ms ({:.2} % apart)",
            known.processor / 1e6,
            unknown.processor / 1e6,
            processor * 100.0,
            known.clock / 1e6,
            unknown.clock / 1e6,
            clock * 100.0
        );
        processor <= TOLERANCE
    });
    assert!(fits, "unknown and known mailboxes can be told apart by time, in {ROUNDS} rounds of {ROUNDS}");
}

#[test]
fn unknown_names_cost_what_this_nodes_mailboxes_cost() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
    // One in four with a password somebody chose, which costs more to check.
    for n in 0..8 {
        let chosen = Password::received(b"a password somebody chose");
        all.create("", (n % 4 == 0).then_some(&chosen)).expect("makes");
    }
    let costly = (0..2_000)
        .filter(|_| {
            let claim = all.claim(Some(MailboxId(random())), b"").expect("reads").expect("a stand-in");
            claim.cost().memory_kib == postkeep_shared::crypt::KdfParams::CHOSEN.memory_kib
        })
        .count();
    println!("unknown names as costly as chosen passwords: {costly} of 2000, mailboxes: 2 of 8");
    assert!((300..=700).contains(&costly), "{costly}");
}
