//! One section for each line of what has to be shown; each can be run alone.

pub(crate) mod accept;
pub(crate) mod archive;
pub(crate) mod drain;
pub(crate) mod growth;
pub(crate) mod large;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod profile;

use crate::client::smtp::stuffed;
use postkeep_bench::corpus;
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

/// What every section works with.
pub(crate) struct Bench {
    /// Where servers live; made anew for each.
    pub(crate) folder: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    /// The corpus.
    pub(crate) reports: Arc<Vec<Vec<u8>>>,
    /// The same, ready to be sent.
    pub(crate) wire: Arc<Vec<Arc<Vec<u8>>>>,
    /// Messages waiting, or stored, at most in `growth`.
    pub(crate) most: usize,
    /// Cells of `accept` whose names contain this.
    pub(crate) only: String,
    /// Whether the slow peers get the whole corpus too.
    pub(crate) whole: bool,
}

impl Bench {
    pub(crate) fn new(folder: PathBuf, rounds: usize, count: usize, seed: u64) -> Self {
        let reports: Vec<Vec<u8>> = corpus::reports(seed, count).map(|report| report.octets).collect();
        let wire = reports.iter().map(|report| Arc::new(stuffed(report))).collect();
        let (reports, wire) = (Arc::new(reports), Arc::new(wire));
        Self { folder, rounds, seed, reports, wire, most: 0, only: String::new(), whole: false }
    }

    /// Every fourth report, for peers that would need minutes for all. The three largest are not among them, which
    /// is to the peer's advantage.
    pub(crate) fn fourth(&self) -> Arc<Vec<Arc<Vec<u8>>>> {
        if self.whole {
            return Arc::clone(&self.wire);
        }
        Arc::new(self.wire.iter().skip(1).step_by(4).cloned().collect())
    }

    /// One report for each mailbox, to warm a server up.
    pub(crate) fn first(&self) -> Arc<Vec<Arc<Vec<u8>>>> {
        Arc::new(self.wire.iter().take(crate::peers::MAILBOXES).cloned().collect())
    }

    /// The company's people that the envelopes name.
    pub(crate) fn owners(&self) -> BTreeSet<String> {
        let mut owners = BTreeSet::new();
        for report in self.reports.iter() {
            let envelope = report.get(..report.len().min(16 * 1024)).unwrap_or_default();
            for line in envelope.split(|octet| *octet == b'\n') {
                let line = String::from_utf8_lossy(line);
                for word in ["Sender: ", "To: ", "Cc: ", "Bcc: "] {
                    let address = line.strip_prefix(word).and_then(|rest| rest.split([',', '\r']).next());
                    if let Some(address) = address.filter(|address| !address.contains(['<', ' '])) {
                        let domain = address.rsplit('@').next().unwrap_or_default();
                        if ["aurora.example", "borealis.example", "cobalt.example"].contains(&domain) {
                            owners.insert(address.to_owned());
                        }
                    }
                }
            }
        }
        owners
    }
}
