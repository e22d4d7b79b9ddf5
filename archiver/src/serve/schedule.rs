//! When which source is asked: one loop that starts rounds, waits for them, and never waits for one of them alone.
//!
//! A source is due one interval and some jitter after its last round ended; at once when that round left something by
//! `max_per_round`. In maintenance hours none begins, and one that runs ends with its batch. How many hosts are visited
//! at once, and which are spared, is decided in the rounds ([`crate::collect::slots`], [`crate::collect::backoff`]).

use super::board::Board;
use crate::{collect::report::Report, config::Rhythm};
use postkeep_shared::run::{Exit, Failure, Shutdown, ShutdownTrigger, manager};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

/// How soon a pause or its end is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the schedule is for.
pub trait Work: Send + Sync + 'static {
    /// A source and what is needed to connect.
    type Source: Send + Sync + 'static;

    /// Its name and its rhythm.
    fn rhythm(source: &Self::Source) -> (&str, &Rhythm);

    /// Whether somebody paused it by command.
    fn is_paused(&self, source: &Self::Source) -> bool;

    /// One round, which ends with the batch in work when `stop` fires.
    fn round(
        self: Arc<Self>,
        source: Arc<Self::Source>,
        stop: Shutdown,
    ) -> impl Future<Output = Result<Report, Failure>> + Send;

    /// The sources as the files say now.
    ///
    /// # Errors
    /// What is wrong with them; then nothing has changed.
    fn reload(&self) -> Result<Vec<Arc<Self::Source>>, Failure>;

    /// Lets go of store and lock. No round is under way.
    fn close(&self);

    /// Takes them again.
    ///
    /// # Errors
    /// They cannot be had.
    fn open(&self) -> Result<(), Failure>;

    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;

    /// From 0 to 1, by chance.
    fn chance(&self) -> f64;
}

/// What the service is told while it runs.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Let a command have the store for a while.
    Lend {
        /// Who asks, for people.
        to: String,
        /// Told when the store is free.
        ready: oneshot::Sender<Result<(), String>>,
        /// Ends when it is given back.
        back: oneshot::Receiver<()>,
    },
}

struct Entry<S> {
    source: Arc<S>,
    due: Instant,
    running: Option<Running>,
}

struct Running {
    task: Id,
    /// Ends the round with its batch.
    stop: ShutdownTrigger,
    since: Instant,
}

/// A source's name, and what came of its round.
type Ended = (String, Result<Report, Failure>);

/// The loop.
pub struct Service<W: Work> {
    work: Arc<W>,
    board: Arc<Board>,
    entries: Vec<Entry<W::Source>>,
    rounds: JoinSet<Ended>,
    shutdown: Shutdown,
}

impl<W: Work> Service<W> {
    /// Everything is due at once.
    #[must_use]
    pub fn new(work: Arc<W>, board: Arc<Board>, sources: Vec<Arc<W::Source>>, shutdown: Shutdown) -> Self {
        let mut service = Self { work, board, entries: Vec::new(), rounds: JoinSet::new(), shutdown };
        service.replace(sources);
        service
    }

    /// Runs until `shutdown`; `orders` may come at any time.
    ///
    /// # Errors
    /// What stops everything: store, state, disk. Rounds under way have ended with their batch.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), Failure> {
        let mut shutdown = self.shutdown.clone();
        loop {
            self.begin_rounds();
            let next = self.entries.iter().filter(|entry| entry.running.is_none()).map(|entry| entry.due).min();
            let next = next.unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
            tokio::select! {
                biased;
                () = shutdown.fired() => break,
                Some(ended) = self.rounds.join_next_with_id(), if !self.rounds.is_empty() => {
                    if let Err(failure) = self.ended(ended) {
                        let _ = self.end_rounds().await;
                        return Err(failure);
                    }
                }
                Some(order) = orders.recv() => self.obey(order).await?,
                () = sleep_until(next) => {}
            }
        }
        self.end_rounds().await
    }

    /// Begins the rounds that are due.
    fn begin_rounds(&mut self) {
        let (now, now_ms) = (Instant::now(), self.work.now_ms());
        for entry in &mut self.entries {
            if entry.running.is_some() || entry.due > now {
                continue;
            }
            let (name, rhythm) = W::rhythm(&entry.source);
            let paused = rhythm.pause || self.work.is_paused(&entry.source);
            let rests = rhythm.rests_for(now_ms);
            self.board.rests(name, paused, rests.is_some());
            if paused || rests.is_some() {
                let wait = if paused { LOOK_AGAIN.min(rhythm.interval) } else { rests.unwrap_or(LOOK_AGAIN) };
                entry.due = now + wait;
                continue;
            }
            let (stop, stopping) = ShutdownTrigger::new();
            let (work, source, name) = (Arc::clone(&self.work), Arc::clone(&entry.source), name.to_owned());
            self.board.begins(&name);
            let ends = rhythm.rests_in(now_ms);
            let early = stop.clone();
            let task = self.rounds.spawn(async move {
                let round = work.round(source, stopping);
                tokio::pin!(round);
                let rest = async {
                    match ends {
                        Some(ends) => tokio::time::sleep(ends).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    done = &mut round => return (name, done),
                    () = rest => early.fire(),
                }
                (name, round.await)
            });
            entry.running = Some(Running { task: task.id(), stop, since: now });
        }
    }

    /// A round is over: its source is due again some time.
    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) -> Result<(), Failure> {
        let (task, (name, done)) =
            ended.map_err(|error| Failure::cannot(format!("a round broke off: {error}; nothing was deleted by it")))?;
        let chance = self.work.chance();
        let entry = self.entries.iter_mut().find(|e| e.running.as_ref().is_some_and(|running| running.task == task));
        let mut took = Duration::ZERO;
        if let Some(entry) = entry {
            let (_, rhythm) = W::rhythm(&entry.source);
            let more = done.as_ref().is_ok_and(|report| report.postponed > 0);
            let wait = if more { Duration::ZERO } else { rhythm.interval + rhythm.jitter.mul_f64(chance) };
            entry.due = Instant::now() + wait;
            took = entry.running.take().map(|running| running.since.elapsed()).unwrap_or_default();
        }
        match done {
            Ok(report) => {
                if report.needs_attention() {
                    tracing::warn!("{}", report.line());
                } else {
                    tracing::info!("{}", report.line());
                }
                self.board.ended(&report, took);
                Ok(())
            }
            // A mistake in the owners file: mended while we run, the next round goes on.
            Err(failure) if failure.exit == Exit::Usage => {
                tracing::error!("{failure}");
                self.board.failed(&name, &failure.text, took);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Stops every round with its batch, and waits for them.
    async fn end_rounds(&mut self) -> Result<(), Failure> {
        for running in self.entries.iter().filter_map(|entry| entry.running.as_ref()) {
            running.stop.fire();
        }
        let mut result = Ok(());
        while let Some(ended) = self.rounds.join_next_with_id().await {
            result = result.and(self.ended(ended));
        }
        result
    }

    async fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Reload => {
                manager::reloading();
                self.reload();
                manager::ready();
            }
            Order::Lend { to, ready, back } => self.lend(&to, ready, back).await?,
        }
        Ok(())
    }

    fn reload(&mut self) {
        match self.work.reload() {
            Ok(sources) => {
                self.replace(sources);
                self.board.reloaded(None);
                tracing::info!("the configuration was read again: {} sources", self.entries.len());
            }
            Err(failure) => {
                tracing::error!("ALARM: the old configuration stays in use: {failure}");
                self.board.reloaded(Some(failure.text));
            }
        }
    }

    /// Rounds under way go on with what they began with; a source that was there keeps its place in time, as far as its
    /// new interval is not over sooner.
    fn replace(&mut self, sources: Vec<Arc<W::Source>>) {
        let now = Instant::now();
        let names: Vec<String> = sources.iter().map(|source| W::rhythm(source).0.to_owned()).collect();
        let mut before: Vec<Entry<W::Source>> = std::mem::take(&mut self.entries);
        self.entries = sources
            .into_iter()
            .map(|source| {
                let (name, rhythm) = W::rhythm(&source);
                let known = before.iter().position(|entry| W::rhythm(&entry.source).0 == name);
                let (due, running) = match known.map(|at| before.swap_remove(at)) {
                    Some(old) => (old.due.min(now + rhythm.interval), old.running),
                    None => (now, None),
                };
                Entry { source, due, running }
            })
            .collect();
        for running in before.iter().filter_map(|entry| entry.running.as_ref()) {
            // It is not wanted any more.
            running.stop.fire();
        }
        self.board.sources(&names);
    }

    async fn lend(
        &mut self,
        to: &str,
        ready: oneshot::Sender<Result<(), String>>,
        back: oneshot::Receiver<()>,
    ) -> Result<(), Failure> {
        // What stops the service is told to whoever asked, too: the log may be somewhere else.
        if let Err(failure) = self.end_rounds().await {
            let _ = ready.send(Err(failure.text.clone()));
            return Err(failure);
        }
        self.work.close();
        self.board.lent(Some(to));
        tracing::info!("the store is lent to {to}; rounds go on when it is given back");
        if ready.send(Ok(())).is_ok() {
            let mut shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.fired() => return Ok(()),
                // Dropped is given back as well: the command has ended, however.
                _ = back => {}
            }
        }
        self.work.open()?;
        self.board.lent(None);
        tracing::info!("{to} gave the store back");
        let now = Instant::now();
        self.entries.iter_mut().for_each(|entry| entry.due = entry.due.min(now));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
