//! One round of one source: every host once; a host that is down does not stop the others.

use super::{
    hosts::{self, Remembered},
    password,
    report::{HostReport, Report},
    staging_and_state,
    state::{Seen, State},
    tls::Connector,
    visit::{Tools, Visit, VisitError},
};
use crate::{
    archive::Archive,
    config::{ArchiverConfig, Source},
    filing::Owners,
    octets::Staging,
    refile::{Reach, Refiled, refile},
};
use postkeep_shared::{
    crypt::Password,
    disk::Disk,
    mail::Digest,
    run::{Failure, Shutdown, now_ms},
};
use std::sync::Arc;

/// What rounds work with: store, state, staging. One at a time per data folder.
pub struct Rounds {
    config: ArchiverConfig,
    store: Archive,
    state: State,
    staging: Staging,
    shutdown: Shutdown,
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

impl Rounds {
    /// Opens store and state; the caller holds the writer's lock.
    ///
    /// # Errors
    /// The store's, or a folder that cannot be used.
    pub fn open(config: ArchiverConfig, disk: &Arc<dyn Disk>, shutdown: Shutdown) -> Result<Self, Failure> {
        let store = Archive::open(&config, disk)?;
        for note in store.notes() {
            tracing::warn!("found while opening the store: {note}");
        }
        let (staging, state) = staging_and_state(&config, disk)?;
        // What a start took ends here: `archiver/tests/kill.rs` waits for this line.
        tracing::info!("store is open");
        Ok(Self { config, store, state, staging, shutdown })
    }

    /// One round.
    ///
    /// # Errors
    /// What stops everything: owners file, store, state, disk. Trouble of a host is in the report.
    pub async fn round(&mut self, prepared: &Prepared) -> Result<Report, Failure> {
        let source = &prepared.source;
        let owners = Owners::load(&self.config.owners_file)?;
        check_owner(source, &owners)?;
        let refiled = self.refile(&owners)?;
        let rules = self.config.rules(&source.name);
        let rules_digest = Digest::of(format!("{}\n{rules:?}\n{:?}", owners.to_toml(), source.reading).as_bytes());
        let mut report = Report::new(&source.name);
        report.refiled = refiled.instances;
        let before = self.state.hosts(&source.name)?;
        let hosts::Round { hosts, mut left, problem } = hosts::find(source, &before).await;
        let asked_as_left = left.clone();
        if let Some(problem) = problem {
            let mut here = HostReport::new(source.mx.as_ref().map_or_else(String::new, |mx| format!("MX {}", mx.name)));
            here.problem(&source.name, problem);
            report.hosts.push(here);
        }
        for host in &hosts {
            if self.shutdown.is_fired() {
                break;
            }
            let mut here = HostReport::new(host.to_string());
            let tools = Tools {
                store: &mut self.store,
                state: &self.state,
                staging: &self.staging,
                owners: &owners,
                rules: &rules,
                rules_digest,
                shutdown: &self.shutdown,
            };
            let visit = Visit::new(tools, source, host, &mut report, &mut here)?;
            match visit.run(&prepared.connector, prepared.passwords()).await {
                Ok(()) => {}
                Err(VisitError::Session(error)) => {
                    here.login_refused = error.is_login();
                    let text = error.to_string();
                    here.problem(&source.name, text.clone());
                    here.error = Some(text);
                }
                Err(VisitError::Fatal(failure)) => return Err(failure),
            }
            here.finish();
            self.see(source, &here)?;
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
        Ok(report)
    }

    /// Files what waits for owners who are there now; does nothing when nothing changed since the last time.
    fn refile(&mut self, owners: &Owners) -> Result<Refiled, Failure> {
        let config = &self.config;
        let sources = config.sources.iter().map(|source| config.rules(&source.name)).collect::<Vec<_>>();
        // A store that takes decisions again has reports that were passed over before.
        let stores: Vec<_> = self.store.members().iter().filter(|m| m.is_writable()).map(|m| m.store().dir()).collect();
        let stores = if self.store.members().len() > 1 { format!("{stores:?}") } else { String::new() };
        let rules = config.rules("");
        let digest = Digest::of(format!("{}\n{rules:?}\n{sources:?}{stores}", owners.to_toml()).as_bytes());
        if self.state.is_refiled(digest)? {
            return Ok(Refiled::default());
        }
        let (store, shutdown) = (&mut self.store, &self.shutdown);
        let work = || refile(store, owners, &|source| config.rules(source), Reach::Waiting, &|| shutdown.is_fired());
        let done = tokio::task::block_in_place(work)?;
        if done.instances > 0 {
            tracing::info!(
                "{} appearances of {} older reports were filed to owners who are there now",
                done.instances,
                done.changed
            );
        }
        if !self.shutdown.is_fired() {
            self.state.set_refiled(digest)?;
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
        };
        self.state.see(&source.name, &here.host, &seen)
    }
}
