//! Holds what rounds need (configuration, passwords, store, lock) and replaces it while the service runs.

use super::{
    board::{Board, StoreStanding},
    pause::is_paused,
    reconciled::Reconciled,
    schedule::Work,
};
use crate::{
    collect::{Pace, Prepared, Rounds, backoff::Backoff, report::Report, turns::Turns},
    config::{ArchiverConfig, Rhythm},
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskLock, DiskResult, Space},
    run::{Failure, Shutdown, now_ms},
};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A command that ends gives the lock back a moment after it said so.
const PATIENCE: Duration = Duration::from_secs(15);
/// The store's figures are not older than this, unless it is busy for longer.
const FIGURES: Duration = Duration::from_secs(60);

/// What the rounds of the service work with.
pub struct Keeper {
    disk: Arc<dyn Disk>,
    board: Arc<Board>,
    backoff: Arc<Backoff>,
    shutdown: Shutdown,
    config: watch::Sender<Arc<ArchiverConfig>>,
    turns: Arc<Turns>,
    /// `None` while the store is lent.
    open: Mutex<Option<Open>>,
    looked: Mutex<Option<Instant>>,
}

struct Open {
    rounds: Arc<Rounds>,
    /// Dropped last: until then nobody else may open the store.
    _lock: Box<dyn DiskLock>,
}

impl Keeper {
    /// Opens the store; the caller has taken the writer's lock.
    ///
    /// # Errors
    /// The store's, or a folder that cannot be used.
    pub fn new(
        config: ArchiverConfig,
        lock: Box<dyn DiskLock>,
        disk: Arc<dyn Disk>,
        board: Arc<Board>,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let backoff = Arc::new(Backoff::new(config.serve.backoff_max));
        let keeper = Self {
            disk,
            board,
            backoff,
            shutdown,
            config: watch::Sender::new(Arc::new(config)),
            turns: Arc::default(),
            open: Mutex::default(),
            looked: Mutex::default(),
        };
        keeper.open_with(lock)?;
        Ok(keeper)
    }

    /// The sources of a configuration, with their passwords.
    ///
    /// # Errors
    /// Exit 2 with a sentence.
    pub fn prepare(config: &ArchiverConfig, disk: &dyn Disk) -> Result<Vec<Arc<Prepared>>, Failure> {
        config.sources.iter().map(|source| Prepared::new(source, disk).map(Arc::new)).collect()
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> Arc<ArchiverConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// The configuration in use, and every later one.
    #[must_use]
    pub fn configs(&self) -> watch::Receiver<Arc<ArchiverConfig>> {
        self.config.subscribe()
    }

    /// How long one piece of work has been going on with the store; `None`: none is, or it is lent.
    #[must_use]
    pub fn store_held_for(&self) -> Option<Duration> {
        self.rounds().and_then(|rounds| rounds.store().held_for())
    }

    /// Brings the figures of the store on the board, once a minute and where nobody works with it.
    ///
    /// # Errors
    /// The store's.
    pub fn look_at_store(&self) -> Result<(), Failure> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < FIGURES) {
            return Ok(());
        }
        let Some(rounds) = self.rounds() else { return Ok(()) };
        let seen = rounds.store().try_with(|store| {
            Ok::<_, Failure>(StoreStanding::new(&store.figures()?, store.count_held()?, store.unowned_count()?))
        });
        if let Some(standing) = seen {
            self.board.store(standing?);
            *looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Room on the file system of the data folder.
    ///
    /// # Errors
    /// The disk's.
    pub fn space(&self) -> DiskResult<Space> {
        self.disk.space(&self.config().data_dir)
    }

    /// Turns at the sources: a mailbox takes one client at a time.
    #[must_use]
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// What the last reconcile found.
    #[must_use]
    pub fn reconciled(&self) -> Option<Reconciled> {
        let last = Reconciled::read(&*self.disk, &self.config().data_dir);
        (!last.sources.is_empty()).then_some(last)
    }

    fn rounds(&self) -> Option<Arc<Rounds>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|open| Arc::clone(&open.rounds))
    }

    fn pace(&self, config: &ArchiverConfig) -> Pace {
        Pace::new(config.serve.parallel_sources, Some(Arc::clone(&self.backoff)))
    }

    fn open_with(&self, lock: Box<dyn DiskLock>) -> Result<(), Failure> {
        let config = self.config();
        let pace = self.pace(&config);
        let rounds = Arc::new(Rounds::open_at(config, &self.disk, self.shutdown.clone(), pace)?);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { rounds, _lock: lock });
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn paused_dir(&self) -> PathBuf {
        self.config().paused_dir()
    }
}

impl Work for Keeper {
    type Source = Prepared;

    fn rhythm(source: &Prepared) -> (&str, &Rhythm) {
        (&source.source.name, &source.source.rhythm)
    }

    fn is_paused(&self, source: &Prepared) -> bool {
        is_paused(&*self.disk, &self.paused_dir(), &source.source.name)
    }

    async fn round(self: Arc<Self>, source: Arc<Prepared>, stop: Shutdown) -> Result<Report, Failure> {
        let mut stopped = stop.clone();
        let _turn = tokio::select! {
            biased;
            () = stopped.fired() => return Ok(Report::new(&source.source.name)),
            turn = self.turns.take(&source.source.name) => turn,
        };
        let rounds = self.rounds().ok_or_else(|| Failure::cannot("a round began while the store is lent"))?;
        let done = rounds.round_until(&source, &stop).await;
        self.board.owners(rounds.owners_error());
        done
    }

    fn reload(&self) -> Result<Vec<Arc<Prepared>>, Failure> {
        let before = self.config();
        let config = ArchiverConfig::load(&before.file)?;
        if config.data_dir != before.data_dir {
            return Err(Failure::usage("data_dir cannot change while the service runs; restart it"));
        }
        if config.metrics != before.metrics {
            return Err(Failure::usage("metrics.listen cannot change while the service runs; restart it"));
        }
        let prepared = Self::prepare(&config, &*self.disk)?;
        crate::filing::Owners::load(&config.owners_file)?;
        if config.log != before.log {
            tracing::warn!("[log] has changed: that takes effect with the next start");
        }
        if (config.new_store_at, config.catalog_memory) != (before.new_store_at, before.catalog_memory) {
            tracing::warn!("[store] has changed: that takes effect with the next start");
        }
        let config = Arc::new(config);
        if let Some(rounds) = self.rounds() {
            rounds.reconfigure(Arc::clone(&config), self.pace(&config))?;
        }
        self.backoff.set_most(config.serve.backoff_max);
        // Whoever has mended a host, or a password, wants to see it.
        self.backoff.clear();
        // Watching and proving take theirs from here.
        self.config.send_replace(config);
        Ok(prepared)
    }

    fn close(&self) {
        let Some(Open { mut rounds, _lock }) = self.open.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        // Somebody may just be looking at its figures.
        tokio::task::block_in_place(|| {
            while let Err(looked_at) = Arc::try_unwrap(rounds) {
                rounds = looked_at;
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }

    fn open(&self) -> Result<(), Failure> {
        let path = self.config().lock_file();
        let until = Instant::now() + PATIENCE;
        let lock = loop {
            match self.disk.lock(&path) {
                Ok(lock) => break lock,
                Err(error) if error.source.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(50)));
                }
                Err(error) => return Err(error.into()),
            }
        };
        tokio::task::block_in_place(|| self.open_with(lock))
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn chance(&self) -> f64 {
        f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX)
    }
}
