//! Probes: a marked message goes through the mail system at an interval, and its journal copy must come back
//! (`docs/alarms.md`). That proves the journal rule, the connector, the MX record, gateway and archiver in one.
//!
//! The mark is a Message-ID with a keyed hash ([`Marker`]) over name, time, chance, sender and recipient; the key never
//! leaves the data folder. A report is taken for a probe only if the hash is right, it is younger than a week, and its
//! envelope names exactly the probe's sender and recipient: so nothing that concerns a person can be hidden as one, not
//! even by somebody who copies a mark. What is taken for a probe is filed to the archive [`ARCHIVE`], a folder for each
//! probe, and counts as filed everywhere.

mod marker;
mod send;
mod state;

pub use marker::{Key, Marker};
pub use send::{run, send};
pub use state::{Arrival, ProbeState, Sent};

use crate::{
    filing::{Instance, Plan},
    journal::{Handling, Verdict},
};
use postkeep_shared::{
    config::{Config, Section},
    disk::Disk,
    mailer::{Relay, address},
    run::Failure,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The archive of probes: nobody's.
pub const ARCHIVE: &str = "@probe";

/// `[[probe]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Who takes the message.
    pub server: Relay,
    /// Who it is from.
    pub from: String,
    /// Who it is to: an address of its own.
    pub to: String,
    /// Time between two.
    pub interval: Duration,
}

impl Probe {
    /// Takes every `[[probe]]`.
    #[must_use]
    pub fn take_all(config: &Config, root: &Section) -> Vec<Self> {
        let (mut probes, mut names) = (Vec::new(), BTreeSet::new());
        for table in root.tables("probe") {
            let name = table.required("name").unwrap_or_default();
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) || name.len() > 32 {
                table.mistake("name", "must be 1 to 32 letters, digits, `-` or `_`");
            }
            if !names.insert(name.clone()) {
                table.mistake("name", "names a probe before this one; choose another");
            }
            let server = Relay::take(config, &table, "server");
            if server.is_none() && !table.has("server") {
                table.mistake(
                    "server",
                    "missing; name the mail server it is given to, for example \"smtp.aurora.example:587\"",
                );
            }
            let from = table.required("from").and_then(|text| address(&table, "from", &text));
            let to = table.required("to").and_then(|text| address(&table, "to", &text));
            let interval = table.duration("interval").unwrap_or(Duration::from_hours(1));
            if interval < Duration::from_secs(1) {
                table.mistake("interval", "shorter than a second; write for example \"1h\"");
            }
            if let (Some(server), Some(from), Some(to)) = (server, from, to) {
                probes.push(Self { name, server, from, to, interval });
            }
        }
        probes
    }
}

/// Recognises what comes back.
#[derive(Clone)]
pub struct Probes {
    probes: Vec<Probe>,
    key: Option<Arc<Key>>,
    data_dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Probes {
    /// Reads the key, or makes it, where there are probes.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(probes: &[Probe], data_dir: &Path, disk: &Arc<dyn Disk>) -> Result<Self, Failure> {
        let key = if probes.is_empty() { None } else { Some(Arc::new(Key::load_or_create(data_dir, &**disk)?)) };
        Ok(Self { probes: probes.to_vec(), key, data_dir: data_dir.to_owned(), disk: Arc::clone(disk) })
    }

    /// The plan for a report that brings a probe back; `None` for every other report. Notes when it came.
    #[must_use]
    pub fn recognise(&self, verdict: &Verdict, now_ms: u64) -> Option<Plan> {
        let key = self.key.as_ref().filter(|_| verdict.handling != Handling::Quarantine)?;
        let marker = Marker::parse(verdict.message_id.as_deref()?)?;
        let probe = self.probes.iter().find(|probe| probe.name == marker.name)?;
        let sender = verdict.sender.as_deref()?;
        let is_ours = sender.eq_ignore_ascii_case(&probe.from)
            && !verdict.recipients.is_empty()
            && verdict.recipients.iter().all(|recipient| recipient.address.eq_ignore_ascii_case(&probe.to))
            && marker.holds(key, probe, now_ms);
        if !is_ours {
            return None;
        }
        if let Err(error) = state::arrived(&*self.disk, &self.data_dir, &marker, now_ms) {
            tracing::warn!("probe {}: that it came is not kept: {error}", probe.name);
        }
        let instances = vec![Instance::new(ARCHIVE, format!("Probe {}", probe.name))];
        Some(Plan { instances, ..Plan::default() })
    }
}
