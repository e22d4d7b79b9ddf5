//! One round of one source: every host once, side by side; a host that is down or slow does not stop the others.
//!
//! Rounds of several sources may run at once: they share one store ([`StoreLock`]) and so many slots ([`Pace`]).

use super::{
    backoff::Backoff,
    collected::CollectedList,
    hosts::{self, Remembered},
    password,
    report::{HostReport, Report},
    shared::StoreLock,
    slots::Slots,
    staging_and_state,
    state::{Seen, State},
    tls::Connector,
    visit::{Tools, Visit, VisitError},
};
use crate::{
    archive::Archive,
    config::{ArchiverConfig, Host, Source},
    filing::{Owners, Rules},
    octets::Staging,
    probe::Probes,
    refile::{Reach, Refiled, refile},
};
use futures_util::future::join_all;
use postkeep_shared::{
    crypt::Password,
    disk::Disk,
    mail::Digest,
    receipt::NodeKey,
    run::{Failure, Shutdown, now_ms},
};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How rounds share the machine, and whether hosts that fail are spared.
#[derive(Debug, Clone)]
pub struct Pace {
    slots: Slots,
    /// `None`: everybody is asked, whatever was before.
    backoff: Option<Arc<Backoff>>,
}

impl Pace {
    /// So many visits at once.
    #[must_use]
    pub fn new(visits: usize, backoff: Option<Arc<Backoff>>) -> Self {
        Self { slots: Slots::new(visits), backoff }
    }
}

/// What rounds work with: store, state, staging. One per data folder, for any number of rounds at once.
pub struct Rounds {
    config: RwLock<Arc<ArchiverConfig>>,
    store: StoreLock,
    state: State,
    staging: Staging,
    disk: Arc<dyn Disk>,
    shutdown: Shutdown,
    pace: RwLock<Pace>,
    probes: RwLock<Arc<Probes>>,
    /// As they were read last without a mistake.
    owners: Mutex<Option<Arc<Owners>>>,
    /// Why they could not be read since.
    owners_error: Mutex<Option<String>>,
}

/// A source with everything it needs to connect, so that a missing password is told before any round begins.
pub struct Prepared {
    /// The source.
    pub source: Source,
    passwords: Vec<Password>,
    connector: Connector,
}

impl Prepared {
    /// Reads the password file and sets up TLS.
    ///
    /// # Errors
    /// Exit 2 with a sentence.
    pub fn new(source: &Source, disk: &dyn Disk) -> Result<Self, Failure> {
        let passwords = password::read(&source.password_file, disk)?;
        let connector = Connector::new(&source.tls)
            .map_err(|text| Failure::usage(format!("source {}, tls: {text}", source.name)))?;
        Ok(Self { source: source.clone(), passwords, connector })
    }

    /// The passwords to try, the present one first.
    #[must_use]
    pub fn passwords(&self) -> &[Password] {
        &self.passwords
    }

    /// How its servers prove themselves.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.connector
    }
}

/// Refuses a source of one owner whose owner is not in the owners file.
///
/// # Errors
/// Exit 2.
pub fn check_owner(source: &Source, owners: &Owners) -> Result<(), Failure> {
    match source.reading.owner.as_deref().filter(|name| owners.named(name).is_none()) {
        Some(name) => Err(Failure::usage(format!(
            "source {}: there is no owner `{name}`; add it with `owner add`, or change `owner` of the source",
            source.name
        ))),
        None => Ok(()),
    }
}

/// What all visits of one round share.
struct Common<'a> {
    prepared: &'a Prepared,
    owners: &'a Owners,
    rules: Rules,
    rules_digest: Digest,
    stop: &'a Shutdown,
    pace: Pace,
}

impl Rounds {
    /// Opens store and state for rounds that somebody asked for; the caller holds the writer's lock.
    ///
    /// # Errors
    /// The store's, or a folder that cannot be used.
    pub fn open(config: ArchiverConfig, disk: &Arc<dyn Disk>, shutdown: Shutdown) -> Result<Self, Failure> {
        let pace = Pace::new(config.serve.parallel_sources, None);
        Self::open_at(Arc::new(config), disk, shutdown, pace)
    }

    /// As [`Self::open`], at a pace of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(
        config: Arc<ArchiverConfig>,
        disk: &Arc<dyn Disk>,
        shutdown: Shutdown,
        pace: Pace,
    ) -> Result<Self, Failure> {
        let store = Archive::open(&config, disk)?;
        for note in store.notes() {
            tracing::warn!("found while opening the store: {note}");
        }
        let (staging, state) = staging_and_state(&config, disk)?;
        let probes = Probes::open(&config.probes, &config.data_dir, disk)?;
        // What a start took ends here: `archiver/tests/kill.rs` waits for this line.
        tracing::info!("store is open");
        Ok(Self {
            config: RwLock::new(config),
            store: StoreLock::new(store),
            state,
            staging,
            disk: Arc::clone(disk),
            shutdown,
            pace: RwLock::new(pace),
            probes: RwLock::new(Arc::new(probes)),
            owners: Mutex::default(),
            owners_error: Mutex::default(),
        })
    }

    /// Goes on with another configuration of the same data folder; rounds under way end with the one they began with.
    ///
    /// # Errors
    /// The key of probes cannot be had; then nothing has changed.
    pub fn reconfigure(&self, config: Arc<ArchiverConfig>, pace: Pace) -> Result<(), Failure> {
        let probes = Arc::new(Probes::open(&config.probes, &config.data_dir, &self.disk)?);
        *self.probes.write().unwrap_or_else(PoisonError::into_inner) = probes;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *self.pace.write().unwrap_or_else(PoisonError::into_inner) = pace;
        Ok(())
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &StoreLock {
        &self.store
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Why the owners file could not be read the last time; rounds went on with the owners of before.
    #[must_use]
    pub fn owners_error(&self) -> Option<String> {
        self.owners_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn config(&self) -> Arc<ArchiverConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn pace(&self) -> Pace {
        self.pace.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The owners as the file names them now; those of before while it has a mistake.
    fn owners(&self, config: &ArchiverConfig) -> Result<Arc<Owners>, Failure> {
        let mut last = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = self.owners_error.lock().unwrap_or_else(PoisonError::into_inner);
        match (Owners::load(&config.owners_file).map_err(Failure::from), &*last) {
            (Ok(owners), _) => {
                if told.take().is_some() {
                    tracing::info!("{} is right again", config.owners_file.display());
                }
                Ok(Arc::clone(last.insert(Arc::new(owners))))
            }
            (Err(failure), Some(before)) => {
                let text = failure.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::error!("ALARM: {text}; the owners of before stay in use");
                    *told = Some(text);
                }
                Ok(Arc::clone(before))
            }
            (Err(failure), None) => Err(failure),
        }
    }

    /// One round.
    ///
    /// # Errors
    /// What stops everything: owners file, store, state, disk. Trouble of a host is in the report.
    pub async fn round(&self, prepared: &Prepared) -> Result<Report, Failure> {
        self.round_until(prepared, &self.shutdown).await
    }

    /// One round that ends with the batch in work when `stop` fires.
    ///
    /// # Errors
    /// As [`Self::round`].
    pub async fn round_until(&self, prepared: &Prepared, stop: &Shutdown) -> Result<Report, Failure> {
        let config = self.config();
        let source = &prepared.source;
        let owners = self.owners(&config)?;
        check_owner(source, &owners)?;
        let mut report = Report::new(&source.name);
        report.refiled = self.refile(&config, &owners, stop)?.instances;
        let rules = config.rules(&source.name);
        let rules_digest = Digest::of(format!("{}\n{rules:?}\n{:?}", owners.to_toml(), source.reading).as_bytes());
        let before = self.state.hosts(&source.name)?;
        let hosts::Round { hosts, mut left, problem } = hosts::find(source, &before).await;
        let asked_as_left = left.clone();
        if let Some(problem) = problem {
            let mut here = HostReport::new(source.mx.as_ref().map_or_else(String::new, |mx| format!("MX {}", mx.name)));
            here.problem(&source.name, problem);
            report.hosts.push(here);
        }
        let common = Common { prepared, owners: &owners, rules, rules_digest, stop, pace: self.pace() };
        let visits = join_all(hosts.iter().map(|host| self.visit(&common, host))).await;
        for (host, visited) in hosts.iter().zip(visits) {
            let Some((of_host, mut here)) = visited? else { continue };
            report.merge(of_host);
            if here.ok && here.waiting == Some(0) {
                left.retain(|gone| gone != host);
            } else if let (false, true, Some(mx)) = (here.ok, left.contains(host), &source.mx) {
                // Its name leads elsewhere by now; what may wait there is why it is asked at all.
                here.problem(&source.name, format!("it is not behind {} any more and not known to be empty", mx.name));
            }
            report.hosts.push(here);
        }
        if source.mx.is_some() {
            // Those behind the MX, and those that left it with something on them.
            let current = hosts.iter().filter(|host| !asked_as_left.contains(host) || left.contains(host));
            let keep: Vec<Remembered> = current.map(Remembered::from).collect();
            self.state.set_hosts(&source.name, &keep)?;
        }
        self.state.flush()?;
        self.list(&config, source, std::mem::take(&mut report.numbers));
        Ok(report)
    }

    /// Puts what was collected on the list of collected messages. It proves nothing, so a full disk is no reason to stop.
    fn list(&self, config: &ArchiverConfig, source: &Source, numbers: Vec<(NodeKey, u64)>) {
        let (Some(mailbox), false) = (source.gateway_mailbox(), numbers.is_empty()) else { return };
        let listed = tokio::task::block_in_place(|| {
            let (mut list, mailbox) = (CollectedList::new(&config.data_dir), mailbox.to_string());
            for (node, number) in numbers {
                list.add(&*self.disk, &source.name, &mailbox, node, std::iter::once(number));
            }
            list.save(&*self.disk)
        });
        if let Err(error) = listed {
            tracing::warn!("the list of collected messages is not up to date: {error}");
        }
    }

    /// One host's part of a round. `None`: the program stops and it was not asked.
    async fn visit(&self, common: &Common<'_>, host: &Host) -> Result<Option<(Report, HostReport)>, Failure> {
        let source = &common.prepared.source;
        let (mut report, mut here) = (Report::new(&source.name), HostReport::new(host.to_string()));
        if let Some(wait) = common.pace.backoff.as_ref().and_then(|all| all.waits(&source.name, &here.host)) {
            here.spare(wait.failures, wait.until.saturating_duration_since(tokio::time::Instant::now()), &wait.error);
            return Ok(Some((report, here)));
        }
        let mut stop = common.stop.clone();
        let slot = tokio::select! {
            biased;
            () = stop.fired() => return Ok(None),
            slot = common.pace.slots.take() => slot,
        };
        let probes = Arc::clone(&self.probes.read().unwrap_or_else(PoisonError::into_inner));
        let tools = Tools {
            store: &self.store,
            state: &self.state,
            staging: &self.staging,
            owners: common.owners,
            rules: &common.rules,
            probes: &probes,
            rules_digest: common.rules_digest,
            stop: common.stop,
            slow: slot.given_back(),
        };
        let visit = Visit::new(tools, source, host, &mut report, &mut here)?;
        let visited = visit.run(&common.prepared.connector, &common.prepared.passwords).await;
        drop(slot);
        match visited {
            Ok(()) | Err(VisitError::Stopped) => {
                if let Some(backoff) = &common.pace.backoff {
                    backoff.well(&source.name, &here.host);
                }
            }
            Err(VisitError::Session(error)) => {
                here.login_refused = error.is_login();
                let text = error.to_string();
                if let Some(backoff) = common.pace.backoff.as_ref().filter(|_| !error.is_ours()) {
                    let wait = backoff.failed(&source.name, &here.host, source.rhythm.interval, &text);
                    here.fails(wait.failures, wait.until.saturating_duration_since(tokio::time::Instant::now()));
                }
                here.problem(&source.name, text.clone());
                here.error = Some(text);
            }
            Err(VisitError::Fatal(failure)) => return Err(failure),
        }
        here.finish();
        self.see(source, &here)?;
        Ok(Some((report, here)))
    }

    /// Files what waits for owners who are there now; does nothing when nothing changed since the last time.
    fn refile(&self, config: &ArchiverConfig, owners: &Owners, stop: &Shutdown) -> Result<Refiled, Failure> {
        let sources = config.sources.iter().map(|source| config.rules(&source.name)).collect::<Vec<_>>();
        let done = self.store.with(|store| {
            // A store that takes decisions again has reports that were passed over before.
            let stores: Vec<_> = store.members().iter().filter(|m| m.is_writable()).map(|m| m.store().dir()).collect();
            let stores = if store.members().len() > 1 { format!("{stores:?}") } else { String::new() };
            let rules = config.rules("");
            let digest = Digest::of(format!("{}\n{rules:?}\n{sources:?}{stores}", owners.to_toml()).as_bytes());
            // Asked while nobody else can be at it.
            if self.state.is_refiled(digest)? {
                return Ok(Refiled::default());
            }
            let stopped = || stop.is_fired() || self.shutdown.is_fired();
            let done = refile(store, owners, &|source| config.rules(source), Reach::Waiting, &stopped)?;
            if !stopped() {
                self.state.set_refiled(digest)?;
            }
            Ok::<_, Failure>(done)
        })?;
        if done.instances > 0 {
            tracing::info!(
                "{} appearances of {} older reports were filed to owners who are there now",
                done.instances,
                done.changed
            );
        }
        Ok(done)
    }

    fn see(&self, source: &Source, here: &HostReport) -> Result<(), Failure> {
        let before = self.state.seen(&source.name, &here.host)?.unwrap_or_default();
        let time_ms = now_ms();
        let seen = Seen {
            time_ms,
            error: here.error.clone(),
            well_ms: if here.ok { Some(time_ms) } else { before.well_ms },
            waiting: here.waiting.unwrap_or(before.waiting),
            failures: here.failures,
        };
        self.state.see(&source.name, &here.host, &seen)
    }
}
