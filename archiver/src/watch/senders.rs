//! The tasks that send probes: one for each `[[probe]]`, kept equal to the configuration while the service runs.

use crate::{
    config::ArchiverConfig,
    probe::{self, Key, Probe},
};
use postkeep_shared::{
    disk::Disk,
    run::{Failure, ShutdownTrigger},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio::task::JoinSet;

/// Whoever sends.
pub(super) struct Senders {
    disk: Arc<dyn Disk>,
    running: BTreeMap<String, (Probe, ShutdownTrigger)>,
    tasks: JoinSet<()>,
}

impl Senders {
    /// Nobody yet.
    pub(super) fn new(disk: &Arc<dyn Disk>) -> Self {
        Self { disk: Arc::clone(disk), running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Begins what is new or another one, ends what is gone, and leaves the rest to its interval.
    ///
    /// # Errors
    /// The key of probes cannot be had; then nobody is begun.
    pub(super) fn follow(&mut self, config: &ArchiverConfig) -> Result<(), Failure> {
        self.running.retain(|_, (probe, stop)| {
            let stays = config.probes.contains(probe);
            if !stays {
                stop.fire();
            }
            stays
        });
        if config.probes.is_empty() {
            return Ok(());
        }
        let key = Arc::new(Key::load_or_create(&config.data_dir, &*self.disk)?);
        let data_dir: Arc<Path> = Arc::from(config.data_dir.as_path());
        for one in &config.probes {
            if self.running.contains_key(&one.name) {
                continue;
            }
            let (stop, stopping) = ShutdownTrigger::new();
            let (key, data_dir, disk) = (Arc::clone(&key), Arc::clone(&data_dir), Arc::clone(&self.disk));
            self.tasks.spawn(probe::run(one.clone(), key, data_dir, disk, stopping));
            self.running.insert(one.name.clone(), (one.clone(), stop));
        }
        Ok(())
    }

    /// Ends them all.
    pub(super) async fn end(mut self) {
        self.running.values().for_each(|(_, stop)| stop.fire());
        while self.tasks.join_next().await.is_some() {}
    }
}
