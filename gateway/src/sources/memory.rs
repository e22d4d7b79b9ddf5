//! Answers that were good once, for when the DNS cannot be asked: trouble there must not make good mail look bad.
//!
//! The resolver below caches for the TTL; this one asks it every time and falls back to what it knows, however long
//! the TTL is over, for [`Times::keep`]. After trouble it does not ask for names it knows for [`Times::pause`], so
//! that an outage costs one wait and not one per message. "No such records" is an answer, not trouble.

use super::resolver::{Answer, Family, Resolver, Trouble};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Names of each kind remembered at most. Rules name a few domains and their records a few more.
const MOST: usize = 1000;

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Longest wait for one answer.
    pub query: Duration,
    /// How long nothing known is asked again after trouble.
    pub pause: Duration,
    /// How long an answer may be used while there is trouble.
    pub keep: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { query: Duration::from_secs(2), pause: Duration::from_secs(30), keep: 7 * day }
    }
}

/// A resolver that remembers. Reverse names are passed through: clients decide how many there are.
pub struct Memory {
    inner: Arc<dyn Resolver>,
    times: Times,
    state: Mutex<State>,
}

/// What a [`Memory`] knows, without asking anybody.
pub struct OnlyKnown<'a>(&'a Memory);

#[derive(Default)]
struct State {
    trouble: Option<Instant>,
    txt: Shelf<String>,
    addresses: Shelf<IpAddr>,
    mx: Shelf<String>,
}

type Shelf<T> = BTreeMap<String, (Instant, Vec<T>)>;

impl Memory {
    /// Remembers what `inner` answers.
    #[must_use]
    pub fn new(inner: Arc<dyn Resolver>, times: Times) -> Self {
        Self { inner, times, state: Mutex::default() }
    }

    /// The same without asking anybody: every answer is there at once, or is [`Trouble`].
    #[must_use]
    pub fn only_known(&self) -> OnlyKnown<'_> {
        OnlyKnown(self)
    }

    /// Begins the pause, for a caller that gave up waiting.
    pub fn gave_up(&self) {
        self.state().trouble = Some(Instant::now());
    }

    async fn ask<T: Clone>(
        &self,
        shelf: fn(&mut State) -> &mut Shelf<T>,
        name: String,
        question: Answer<'_, T>,
    ) -> Result<Vec<T>, Trouble> {
        let known = self.known(shelf, &name);
        let pausing = self.state().trouble.is_some_and(|since| since.elapsed() < self.times.pause);
        if let (Ok(answer), true) = (&known, pausing) {
            return Ok(answer.clone());
        }
        let trouble = match tokio::time::timeout(self.times.query, question).await {
            Ok(Ok(fresh)) => {
                self.learn(shelf, name, &fresh);
                return Ok(fresh);
            }
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble(format!("{name}: no answer in time")),
        };
        tracing::warn!(%trouble, known = known.is_ok(), "the DNS cannot be asked");
        self.gave_up();
        known.map_err(|_| trouble)
    }

    fn known<T: Clone>(&self, shelf: fn(&mut State) -> &mut Shelf<T>, name: &str) -> Result<Vec<T>, Trouble> {
        match shelf(&mut self.state()).get(name) {
            Some((since, answer)) if since.elapsed() < self.times.keep => Ok(answer.clone()),
            _ => Err(Trouble(format!("{name}: nothing is known"))),
        }
    }

    fn learn<T: Clone>(&self, shelf: fn(&mut State) -> &mut Shelf<T>, name: String, answer: &[T]) {
        let mut state = self.state();
        let shelf = shelf(&mut state);
        if shelf.len() >= MOST {
            shelf.retain(|_, (since, _)| since.elapsed() < self.times.pause);
        }
        if shelf.len() < MOST {
            shelf.insert(name, (Instant::now(), answer.to_vec()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Memory {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(self.ask(|state| &mut state.txt, name.to_owned(), self.inner.txt(name)))
    }

    fn addresses<'a>(&'a self, name: &'a str, family: Family) -> Answer<'a, IpAddr> {
        let question = self.inner.addresses(name, family);
        Box::pin(self.ask(|state| &mut state.addresses, address_key(name, family), question))
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(self.ask(|state| &mut state.mx, name.to_owned(), self.inner.mx(name)))
    }

    fn reverse(&self, ip: IpAddr) -> Answer<'_, String> {
        self.inner.reverse(ip)
    }
}

impl Resolver for OnlyKnown<'_> {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(async move { self.0.known(|state| &mut state.txt, name) })
    }

    fn addresses<'a>(&'a self, name: &'a str, family: Family) -> Answer<'a, IpAddr> {
        Box::pin(async move { self.0.known(|state| &mut state.addresses, &address_key(name, family)) })
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(async move { self.0.known(|state| &mut state.mx, name) })
    }

    fn reverse(&self, ip: IpAddr) -> Answer<'_, String> {
        Box::pin(async move { Err(Trouble(format!("{ip}: nothing is known"))) })
    }
}

fn address_key(name: &str, family: Family) -> String {
    format!("{name} {family:?}")
}
