//! Looks at everything, again and again, for as long as the service runs.

use super::{
    Activity, ArchiverAlarms, Found, judge,
    senders::Senders,
    status_mail::{self, Page},
};
use crate::{
    archive::Archive,
    checkpoint,
    collect::look::look_at_validity,
    config::ArchiverConfig,
    probe::ProbeState,
    serve::{Board, Snapshot},
};
use postkeep_shared::{
    alarm::{Active, Alarms, Condition, Kind},
    disk::Disk,
    run::{Failure, LocalTime, Shutdown, ShutdownTrigger, now_ms},
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Longest wait for the alarm that storage has failed to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How often the certificates of hosts are looked at.
const CERTIFICATES: Duration = Duration::from_hours(6);
/// When they are looked at first.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// How often what is learnt is written.
const KEEP: Duration = Duration::from_mins(10);
/// A status mail that is later than this by the clock is not made up for: the next one comes.
const LATE: u64 = 12 * 3_600_000;

/// Everything that watches a running service.
pub struct Watcher {
    alarms: Alarms,
    /// Fired last of all.
    trigger: ShutdownTrigger,
    desk: JoinHandle<()>,
    tasks: JoinSet<()>,
    place: String,
}

impl Watcher {
    /// Starts watching by the configuration in use and every later one; the caller holds the writer's lock.
    ///
    /// # Errors
    /// The key of probes cannot be had.
    pub fn start(
        mut configs: watch::Receiver<Arc<ArchiverConfig>>,
        board: &Arc<Board>,
        disk: &Arc<dyn Disk>,
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let config = Arc::clone(&configs.borrow_and_update());
        let settings = &config.alarms;
        let (trigger, stopping) = ShutdownTrigger::new();
        let (alarms, desk) = Alarms::start(
            settings.shared.clone(),
            settings.mailer(&config.dns),
            &also(&config),
            ArchiverAlarms::who(),
            &config.data_dir,
            Arc::clone(disk),
            stopping,
        );
        let mut senders = Senders::new(disk);
        senders.follow(&config)?;
        let (mut tasks, place) = (JoinSet::new(), config.data_dir.display().to_string());
        let looker = Looker {
            config,
            configs,
            board: Arc::clone(board),
            disk: Arc::clone(disk),
            alarms: alarms.clone(),
            senders,
            activity: BTreeMap::new(),
            collected: BTreeMap::new(),
            certificates: BTreeMap::new(),
        };
        tasks.spawn(looker.run(shutdown.clone()));
        Ok(Self { alarms, trigger, desk, tasks, place })
    }

    /// Where trouble is told.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The service has ended, with this failure if with one: told before the program ends.
    pub async fn end(mut self, failure: Option<&Failure>) {
        match failure {
            Some(failure) => {
                let detail = format!("The archiver has stopped: {}.", failure.text);
                self.alarms.raise(Condition::new(Kind::Storage, &self.place, &detail));
                self.alarms.last_words(LAST_WORDS).await;
                self.tasks.abort_all();
            }
            // Looking ends by itself; what it learnt is written.
            None => drop(
                tokio::time::timeout(Duration::from_secs(5), async { while self.tasks.join_next().await.is_some() {} })
                    .await,
            ),
        }
        self.tasks.shutdown().await;
        self.trigger.fire();
        if let Err(error) = self.desk.await {
            tracing::error!("alarms ended before: {error}");
        }
    }
}

/// Addresses beside those of `[alarms]` that get letters.
fn also(config: &ArchiverConfig) -> Vec<String> {
    [config.alarms.also(), config.checkpoint.mail.clone()].concat()
}

struct Looker {
    config: Arc<ArchiverConfig>,
    configs: watch::Receiver<Arc<ArchiverConfig>>,
    board: Arc<Board>,
    disk: Arc<dyn Disk>,
    alarms: Alarms,
    senders: Senders,
    activity: BTreeMap<String, Activity>,
    /// What the board had counted at the last look.
    collected: BTreeMap<String, u64>,
    certificates: BTreeMap<String, (i64, i64)>,
}

impl Looker {
    async fn run(mut self, mut shutdown: Shutdown) {
        // The service runs: whatever stopped storage before is mended.
        self.alarms.replace(Kind::Storage, Vec::new());
        self.learn().await;
        // Not at once: whoever starts a service wants its rounds first.
        let (mut kept, mut next_look) = (Instant::now(), Instant::now() + FIRST_LOOK);
        loop {
            if Instant::now() >= next_look {
                let at_work = tokio::select! {
                    () = shutdown.fired() => None,
                    found = certificates(&self.config) => Some(found),
                };
                self.certificates = at_work.unwrap_or_default();
                next_look = Instant::now() + CERTIFICATES;
            }
            let board = self.board.snapshot();
            self.count(&board);
            self.look(board).await;
            self.status_mail().await;
            if kept.elapsed() >= KEEP {
                self.keep().await;
                kept = Instant::now();
            }
            tokio::select! {
                () = shutdown.fired() => break,
                () = tokio::time::sleep(self.config.alarms.look) => {}
                // Its end is that of the service, which ends this as well.
                Ok(()) = self.configs.changed() => {
                    self.follow().await;
                    next_look = next_look.min(Instant::now() + FIRST_LOOK);
                }
            }
        }
        self.keep().await;
        self.senders.end().await;
    }

    /// Goes on by the configuration that is in use now.
    async fn follow(&mut self) {
        let before = std::mem::replace(&mut self.config, Arc::clone(&self.configs.borrow_and_update()));
        let config = Arc::clone(&self.config);
        let settings = &config.alarms;
        self.alarms.reconfigure(settings.shared.clone(), settings.mailer(&config.dns), also(&config));
        if let Err(failure) = self.senders.follow(&config) {
            tracing::error!("ALARM: probes are not sent: {failure}");
        }
        let names = |config: &ArchiverConfig| config.sources.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        if names(&before) != names(&config) {
            // What was learnt since the last time is not in the file yet.
            self.keep().await;
            self.learn().await;
        }
    }

    /// What was learnt before; a source of which nothing is known is counted from the archive.
    async fn learn(&mut self) {
        let (config, disk) = (Arc::clone(&self.config), Arc::clone(&self.disk));
        let learnt = tokio::task::spawn_blocking(move || {
            let mut all = Activity::read(&*disk, &config.data_dir);
            all.retain(|name, _| config.sources.iter().any(|source| source.name == *name));
            let new: Vec<&str> =
                config.sources.iter().map(|s| s.name.as_str()).filter(|name| !all.contains_key(*name)).collect();
            if !new.is_empty() {
                match from_archive(&config, &disk, &new) {
                    Ok(counted) => all.extend(counted),
                    Err(error) => tracing::warn!("the usual hours of sources are learnt from now on only: {error}"),
                }
            }
            all
        });
        self.activity = learnt.await.unwrap_or_default();
    }

    fn count(&mut self, board: &Snapshot) {
        let now = now_ms();
        for source in &board.sources {
            let before = self.collected.insert(source.name.clone(), source.totals.collected).unwrap_or_default();
            let new = source.totals.collected.saturating_sub(before);
            if new > 0 {
                self.activity.entry(source.name.clone()).or_default().add(now, new);
            }
        }
    }

    async fn look(&self, board: Snapshot) {
        let (config, disk) = (Arc::clone(&self.config), Arc::clone(&self.disk));
        let (activity, certificates) = (self.activity.clone(), self.certificates.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let found = Found { board, activity, certificates, ..found(&config, &*disk) };
            judge(&found, &config.sources, &config.alarms, now_ms())
        });
        match looked.await {
            Ok(all) => all
                .into_iter()
                .for_each(|(kind, conditions, unknown)| self.alarms.replace_but(kind, conditions, unknown)),
            Err(error) => tracing::error!("ALARM: the look at sources, archive and disk broke off: {error}"),
        }
    }

    /// Writes the status mail when its time has come since the last one.
    async fn status_mail(&self) {
        let Some(status) = &self.config.alarms.status else { return };
        let now = now_ms();
        let Some(last) = self.alarms.last_status() else {
            // The first one comes at its time, not at once.
            self.alarms.status_written(now);
            return;
        };
        let due = LocalTime::of(last).next(status.at, status.weekday);
        if due > now || now.saturating_sub(last) < 1000 {
            return;
        }
        self.alarms.status_written(now);
        if now - due > LATE {
            return;
        }
        let (config, disk, board) = (Arc::clone(&self.config), Arc::clone(&self.disk), self.board.snapshot());
        let active = self.alarms.active();
        let certificates = self.certificates.clone();
        let page = tokio::task::spawn_blocking(move || {
            let found = Found { board, certificates, ..found(&config, &*disk) };
            status_mail::page(&found, active, now)
        });
        match page.await {
            Ok(page) => self.alarms.mail(status.to.clone(), page.letter()),
            Err(error) => tracing::error!("the status mail broke off: {error}"),
        }
    }

    async fn keep(&mut self) {
        let now = now_ms();
        self.activity.values_mut().for_each(|activity| activity.forget(now));
        let (all, disk, config) = (self.activity.clone(), Arc::clone(&self.disk), Arc::clone(&self.config));
        let kept = tokio::task::spawn_blocking(move || Activity::write(&all, &*disk, &config.data_dir)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("the usual hours of sources are not kept: {error}");
        }
    }
}

/// What stands in files and on the disk.
#[must_use]
pub(super) fn found(config: &ArchiverConfig, disk: &dyn Disk) -> Found {
    const MAX_RECONCILED: u64 = 64 * 1024 * 1024;
    let reconciled = disk.read(&config.data_dir.join("reconcile.json"), MAX_RECONCILED).ok();
    let fresh = config.alarms.fresh.iter().map(|fresh| (fresh.name.clone(), newest(disk, &fresh.path)));
    let probes = config.probes.iter().map(|one| (one.name.clone(), ProbeState::read(disk, &config.data_dir, one)));
    Found {
        space: disk.space(&config.data_dir).ok().map(|space| (config.data_dir.display().to_string(), space)),
        reconciled: reconciled.and_then(|octets| serde_json::from_slice(&octets).ok()),
        fresh: fresh.collect(),
        checkpoint_ms: checkpoint::last(&config.checkpoint.dir, disk)
            .ok()
            .flatten()
            .and_then(|last| u64::try_from(last.time).ok())
            .map(|seconds| seconds * 1000),
        checkpoint_interval: config.checkpoint.interval,
        probes: probes.collect(),
        ..Found::default()
    }
}

/// The status page, for a command.
#[must_use]
pub fn status_page(config: &ArchiverConfig, disk: &dyn Disk, board: Snapshot, active: Vec<Active>) -> Page {
    status_mail::page(&Found { board, ..found(config, disk) }, active, now_ms())
}

/// When a file was written, or the newest one of a folder.
fn newest(disk: &dyn Disk, path: &Path) -> Option<u64> {
    let entry = disk.entry(path).ok()?;
    let times = if entry.is_dir {
        disk.list(path).ok()?.into_iter().filter(|entry| entry.is_file).filter_map(|entry| entry.modified).max()
    } else {
        entry.modified
    };
    let since = times?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn from_archive(
    config: &ArchiverConfig,
    disk: &Arc<dyn Disk>,
    sources: &[&str],
) -> Result<BTreeMap<String, Activity>, Failure> {
    let archive = Archive::open_read(config, disk)?;
    let horizon = Activity::horizon(now_ms());
    let mut all = BTreeMap::new();
    for name in sources {
        let mut activity = Activity::default();
        for report in archive.collected(name) {
            let at = report?.collected_ms;
            if at >= horizon {
                activity.add(at, 1);
            }
        }
        all.insert((*name).to_owned(), activity);
    }
    Ok(all)
}

/// The certificates of all hosts that answer.
async fn certificates(config: &ArchiverConfig) -> BTreeMap<String, (i64, i64)> {
    let mut looks = JoinSet::new();
    for source in &config.sources {
        for host in source.hosts.clone() {
            looks.spawn(async move {
                let seen = tokio::time::timeout(Duration::from_secs(30), look_at_validity(&host)).await;
                (host.to_string(), seen)
            });
        }
    }
    let mut found = BTreeMap::new();
    while let Some(looked) = looks.join_next().await {
        // One that cannot be reached is another alarm.
        if let Ok((host, Ok(Ok(validity)))) = looked {
            found.insert(host, validity);
        }
    }
    found
}
