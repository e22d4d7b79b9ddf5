//! The only place where a password meets a key: bounded work, equal time, slower after failures.
//!
//! Deriving a key takes 19 to 64 MiB and up to 300 ms of a core, so it is rationed before anything is computed: an
//! address and a mailbox name that failed get their turns one by one (`Turns`), as many derivations run at once as
//! there are cores but one (which is left to the mail), some wait, the rest is told to come back. No mailbox is ever
//! locked, since that would let a stranger stop the collecting: turns of a mailbox delay a new address by
//! `LONGEST_FOR_NAME` at most and an address that has logged in to it not at all.

use super::{Credentials, LoginFailure, turns::Turns};
use crate::{
    mailbox::{Identity, MailboxError, Mailboxes, UnlockError},
    server::network,
    spool::{Maildrop, Spool, SpoolError},
};
use postkeep_shared::mail::{Digest, MailboxId};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Logins that may wait for a core.
pub const QUEUE: usize = 16;
/// Of [`QUEUE`], places for addresses that failed lately: the others find room whatever those do.
const SUSPECTS: usize = 4;
/// Places beside [`QUEUE`] for addresses that have logged in within a day.
const FRIENDS: usize = 8;
/// Milliseconds between attempts of an address after one, two, three, and more failures.
const ADDRESS_GAPS: &[u64] = &[2_000, 4_000, 8_000, 15_000];
/// An address with a longer queue of its own is told to come back.
const LONGEST_FOR_ADDRESS: Duration = Duration::from_secs(20);
/// Milliseconds between attempts at a mailbox name after failures from anywhere.
const NAME_GAPS: &[u64] = &[0, 0, 0, 250, 500, 1_000];
/// Longest wait for the sake of a mailbox name.
const LONGEST_FOR_NAME: Duration = Duration::from_secs(2);
/// How long an address that logged in is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Such addresses.
const REMEMBERED: usize = 1_000;

/// Lets logins through, one by one.
pub struct Gate {
    cores: Arc<Semaphore>,
    workers: mpsc::Sender<Job>,
    waiting: AtomicUsize,
    addresses: Turns<IpAddr>,
    names: Turns<Name>,
    /// Who logged in to what, and when last.
    friends: Mutex<HashMap<(IpAddr, Name), Instant>>,
}

/// A key derivation with what follows it.
type Job = Box<dyn FnOnce() + Send>;

/// A user name as it was typed, whether there is such a mailbox or not.
type Name = Digest;

/// A mailbox that is open for one session.
pub struct Opened {
    /// Its messages, held exclusively.
    pub maildrop: Arc<Maildrop>,
    /// The key that opens them.
    pub identity: Arc<Identity>,
    /// Its name.
    pub mailbox: MailboxId,
}

impl Default for Gate {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.saturating_sub(1).max(1))
    }
}

impl Gate {
    /// A gate that lets `cores` key derivations run at once.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            workers: workers(cores),
            waiting: AtomicUsize::new(0),
            addresses: Turns::new(ADDRESS_GAPS, LONGEST_FOR_ADDRESS),
            names: Turns::new(NAME_GAPS, LONGEST_FOR_NAME),
            friends: Mutex::default(),
        }
    }

    /// Whether an address has logged in within a day.
    #[must_use]
    pub fn knows(&self, peer: IpAddr) -> bool {
        let peer = network(peer);
        self.friends().iter().any(|((address, _), since)| *address == peer && since.elapsed() < REMEMBERED_FOR)
    }

    /// Checks credentials and takes the mailbox. An unknown name costs the same time and gives the same answer as a
    /// wrong password.
    ///
    /// # Errors
    /// [`LoginFailure`]; the cause is in the log.
    pub async fn login(&self, peer: IpAddr, credentials: Credentials, spool: &Spool) -> Result<Opened, LoginFailure> {
        let (address, name) = (network(peer), name_of(&credentials.user));
        let (wait, places) = self.turn(address, name)?;
        tokio::time::sleep(wait).await;
        let place = Place::take(&self.waiting, places).ok_or(LoginFailure::Busy)?;
        let permit = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| LoginFailure::Busy)?;
        drop(place);
        let spool = spool.clone();
        let (answer, result) = tokio::sync::oneshot::channel();
        let job = Box::new(move || {
            // Moved in: a session that goes away does not make room for work that is still running.
            let _permit = permit;
            // A mailbox that nobody waits for any more is given back by this.
            let _ = answer.send(open(&credentials, &spool));
        });
        self.workers.send(job).map_err(|_| LoginFailure::Busy)?;
        let result = result.await.unwrap_or(Err(LoginFailure::Busy));
        match &result {
            // Another session holds the mailbox, but the password was right.
            Ok(_) | Err(LoginFailure::InUse) => {
                self.addresses.forgive(address);
                self.befriend(address, name);
            }
            Err(LoginFailure::Wrong) => {
                let now = Instant::now();
                self.addresses.failed(address, now);
                self.names.failed(name, now);
            }
            Err(_) => {}
        }
        result
    }

    /// How long to wait before the attempt, and how many places of the queue it may find taken.
    fn turn(&self, address: IpAddr, name: Name) -> Result<(Duration, usize), LoginFailure> {
        let now = Instant::now();
        let for_address = self.addresses.take(address, now).map_err(|_| LoginFailure::Busy)?;
        if self.friends().get(&(address, name)).is_some_and(|since| since.elapsed() < REMEMBERED_FOR) {
            return Ok((for_address, QUEUE + FRIENDS));
        }
        let suspect = self.addresses.has_failed(address, now);
        let for_name = match self.names.take(name, now) {
            Ok(wait) => wait,
            Err(_) if suspect => return Err(LoginFailure::Busy),
            Err(_) => LONGEST_FOR_NAME,
        };
        Ok((for_address.max(for_name), if suspect { SUSPECTS } else { QUEUE }))
    }

    fn befriend(&self, address: IpAddr, name: Name) {
        let mut friends = self.friends();
        if friends.len() >= REMEMBERED {
            friends.retain(|_, since| since.elapsed() < REMEMBERED_FOR);
            let oldest = friends.iter().min_by_key(|(_, since)| **since).map(|(friend, _)| *friend);
            if let Some(oldest) = oldest.filter(|_| friends.len() >= REMEMBERED) {
                friends.remove(&oldest);
            }
        }
        friends.insert((address, name), Instant::now());
    }

    fn friends(&self) -> MutexGuard<'_, HashMap<(IpAddr, Name), Instant>> {
        // No panic can happen while it is held; a poisoned table is as good as a whole one.
        self.friends.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Threads that derive keys and do nothing else; they end with the sender. The allocator may keep a derivation's memory
/// for its thread, so these must be few and always the same.
fn workers(count: usize) -> mpsc::Sender<Job> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..count {
        let jobs = Arc::clone(&jobs);
        std::thread::spawn(move || {
            loop {
                let job = jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
                let Ok(job) = job else { return };
                // Its session sees the answer missing; the thread is needed for the next one.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                    tracing::error!("ALARM: a login panicked; the others go on");
                }
            }
        });
    }
    sender
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    /// One of the first `places`.
    fn take(waiting: &'a AtomicUsize, places: usize) -> Option<Self> {
        let place = Self(waiting);
        // The place gives itself back when it is one too many.
        (waiting.fetch_add(1, Ordering::AcqRel) < places).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One key for all spellings of a mailbox; any other text has its own.
fn name_of(user: &[u8]) -> Name {
    mailbox_name(user).map_or_else(|| Digest::of(user), |id| Digest::of(id.to_string().as_bytes()))
}

/// `mbx-…` or `mbx-…@domain`: the 128 random digits are the name, whatever the domain.
fn mailbox_name(user: &[u8]) -> Option<MailboxId> {
    let text = std::str::from_utf8(user).ok()?;
    text.split_once('@').map_or(text, |(name, _)| name).parse().ok()
}

fn open(credentials: &Credentials, spool: &Spool) -> Result<Opened, LoginFailure> {
    let claim = spool.mailboxes().claim(mailbox_name(&credentials.user), &credentials.user).map_err(|error| {
        tracing::error!(%error, "ALARM: a mailbox definition cannot be read");
        match error {
            MailboxError::Disk(_) => LoginFailure::Busy,
            _ => LoginFailure::Damaged,
        }
    })?;
    let Some(claim) = claim else {
        Mailboxes::pretend_unlock(&credentials.password);
        return Err(LoginFailure::Wrong);
    };
    let identity = claim.unlock(&credentials.password).map_err(|error| match error {
        UnlockError::WrongPassword => LoginFailure::Wrong,
        UnlockError::Memory => LoginFailure::Busy,
        error => {
            tracing::error!(%error, "ALARM: a mailbox cannot be unlocked");
            LoginFailure::Damaged
        }
    })?;
    let Some(mailbox) = claim.mailbox() else { return Err(LoginFailure::Wrong) };
    let maildrop = spool.open_session(mailbox).map_err(|error| match error {
        SpoolError::InUse => LoginFailure::InUse,
        error => {
            tracing::error!(%error, mailbox = %mailbox.id, "ALARM: a mailbox cannot be opened");
            LoginFailure::Busy
        }
    })?;
    Ok(Opened { maildrop: Arc::new(maildrop), identity: Arc::new(identity), mailbox: mailbox.id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_domain() {
        let id = "mbx-000102030405060708090a0b0c0d0e0f";
        assert_eq!(mailbox_name(id.as_bytes()), id.parse().ok());
        assert_eq!(mailbox_name(format!("{id}@any.example").as_bytes()), id.parse().ok());
        for bad in [b"".as_slice(), b"root", b"../../x", b"\xff", b"mbx-00"] {
            assert_eq!(mailbox_name(bad), None);
        }
    }

    fn address(text: &str) -> IpAddr {
        network(text.parse().expect("address"))
    }

    #[test]
    fn failures_slow_an_address_and_a_name_but_never_for_long() {
        let (gate, name) = (Gate::new(1), name_of(b"root"));
        let bad = |address| {
            gate.addresses.failed(address, Instant::now());
            gate.names.failed(name, Instant::now());
        };
        // Twenty strangers at the same name: each has one free attempt, and the name is asked for again and again.
        for n in 0..20 {
            bad(address(&format!("192.0.2.{n}")));
        }
        let (wait, places) = gate.turn(address("198.51.100.1"), name).expect("a turn");
        assert!(wait <= LONGEST_FOR_NAME && wait > Duration::from_millis(500), "{wait:?}");
        assert_eq!(places, QUEUE);
        // One that failed waits for its own sake, and gets the smaller queue.
        let (wait, places) = gate.turn(address("192.0.2.1"), name_of(b"other")).expect("a turn");
        assert!(wait > Duration::from_millis(1_500), "{wait:?}");
        assert_eq!(places, SUSPECTS);
        // Who logged in before does not wait for what strangers do.
        let friend = address("2001:db8:7::1");
        gate.befriend(friend, name);
        assert_eq!(gate.turn(friend, name), Ok((Duration::ZERO, QUEUE + FRIENDS)));
        assert!(gate.knows("2001:db8:7:1::2".parse().expect("address")) && !gate.knows(address("2001:db8:8::1")));
        // However many wait for the name, a new address waits no longer than that.
        while gate.names.take(name, Instant::now()).is_ok() {}
        assert_eq!(gate.turn(address("198.51.100.2"), name), Ok((LONGEST_FOR_NAME, QUEUE)));
        assert_eq!(gate.turn(address("192.0.2.2"), name), Err(LoginFailure::Busy));
    }

    #[test]
    fn those_who_logged_in_are_remembered_up_to_a_number() {
        let gate = Gate::new(1);
        for n in 0..REMEMBERED as u32 + 5 {
            gate.befriend(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), name_of(b"x"));
        }
        assert!(gate.friends().len() <= REMEMBERED);
    }

    #[test]
    fn the_queue_is_bounded() {
        let waiting = AtomicUsize::new(0);
        let places: Vec<_> = (0..QUEUE).map(|_| Place::take(&waiting, QUEUE).expect("room")).collect();
        assert!(Place::take(&waiting, QUEUE).is_none());
        assert!(Place::take(&waiting, QUEUE + FRIENDS).is_some());
        drop(places);
        assert_eq!(waiting.load(Ordering::Acquire), 0);
    }
}
