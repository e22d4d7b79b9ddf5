//! What `status` tells of proofs: the last reconcile, the last green one, the highest entries seen, the last checkpoint.

use crate::{
    checkpoint,
    config::ArchiverConfig,
    reconcile::{Memory, SourceMemory},
    store::rfc3339_ms,
};
use postkeep_shared::{disk::Disk, receipt::NodeKey, run::Failure};
use serde::Serialize;

/// The proofs of an archive.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    /// When anything was reconciled last.
    last_reconcile: Option<String>,
    /// When every source was green last, in one run.
    last_green: Option<String>,
    /// When a checkpoint was made last.
    last_checkpoint: Option<String>,
    sources: Vec<SourceProof>,
}

#[derive(Debug, Serialize)]
struct SourceProof {
    source: String,
    last_reconcile: Option<String>,
    last_green: Option<String>,
    /// What the last reconcile said; `None` before the first one.
    ok: Option<bool>,
    ledgers: Vec<LedgerProof>,
}

#[derive(Debug, Serialize)]
struct LedgerProof {
    mailbox: String,
    /// The node's short name.
    node: Option<String>,
    /// The highest entry that was ever seen.
    highest: u64,
    /// When it was seen.
    seen: String,
}

impl Proof {
    /// Reads what is remembered.
    pub(super) fn load(config: &ArchiverConfig, disk: &dyn Disk) -> Result<Self, Failure> {
        let memory = Memory::load(&config.data_dir, disk)?;
        let last = checkpoint::last(&config.checkpoint.dir, disk)?;
        let checkpoint = last.and_then(|last| u64::try_from(last.time).ok()).map(|time| rfc3339_ms(time * 1000));
        let sources = config.sources.iter().map(|source| {
            let memory = memory.sources.get(&source.name).cloned().unwrap_or_default();
            SourceProof::new(&source.name, &memory)
        });
        Ok(Self {
            last_reconcile: memory.last_run_ms.map(rfc3339_ms),
            last_green: memory.last_green_ms.map(rfc3339_ms),
            last_checkpoint: checkpoint,
            sources: sources.collect(),
        })
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        let never = |time: &Option<String>| time.clone().unwrap_or_else(|| "never".to_owned());
        format!(
            "proof: reconciled {}, all green {}, checkpoint {}",
            never(&self.last_reconcile),
            never(&self.last_green),
            never(&self.last_checkpoint)
        )
    }
}

impl SourceProof {
    fn new(name: &str, memory: &SourceMemory) -> Self {
        let ledgers = memory.heads.iter().map(|head| LedgerProof {
            mailbox: head.mailbox.clone(),
            node: head.node().as_ref().map(NodeKey::id),
            highest: head.seq,
            seen: rfc3339_ms(head.seen_ms),
        });
        Self {
            source: name.to_owned(),
            last_reconcile: memory.last_run_ms.map(rfc3339_ms),
            last_green: memory.last_green_ms.map(rfc3339_ms),
            ok: memory.last_run_ms.map(|_| memory.rows.iter().all(|row| row.ok)),
            ledgers: ledgers.collect(),
        }
    }
}
