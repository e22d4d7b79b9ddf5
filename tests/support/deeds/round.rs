//! The archiver takes two messages in one round: nothing leaves the gateway that is not in the archive, byte for byte,
//! and in the end everything is there once.

use super::{Deed, Done, Promised, Scene, numbered};
use crate::support::{
    Archiver, sha256,
    strike::{Blow, Seen, Watch},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

pub struct Round {
    scene: Scene,
    archiver: Archiver,
    /// Digest of the message in each report, by the report's uidl.
    sent: BTreeMap<String, String>,
}

impl Round {
    /// Digests of what is archived, and how often.
    fn archived(&self) -> Result<BTreeMap<String, usize>> {
        let mut found = BTreeMap::new();
        for entry in self.archiver.list("bob")? {
            let sum = entry.get("sha256").and_then(Value::as_str).context("list --json")?.to_owned();
            *found.entry(sum).or_insert(0) += 1;
        }
        Ok(found)
    }
}

impl Deed for Round {
    const NAME: &'static str = "a round of the archiver with two messages";

    fn prepare() -> Result<Self> {
        let scene = Scene::new()?;
        let archiver = Archiver::collecting(scene.folder.path(), &scene.gateway, &scene.access)?;
        Ok(Self { scene, archiver, sent: BTreeMap::new() })
    }

    fn once(&mut self, watch: Watch) -> Result<Done> {
        let mut new = Vec::new();
        for _ in 0..2 {
            let (n, uidl) = self.scene.send()?;
            self.sent.insert(uidl.clone(), sha256(&numbered(n).1));
            new.push(uidl);
        }
        let command = self.archiver.command(&["run", "--once"])?;
        let output = watch.run(&command, &self.archiver.folder, &self.scene.log, b"")?;
        ensure!([0, 1, 2, 3, 137].contains(&output.code), "exit {}: {}", output.code, output.err);
        ensure!(!output.err.contains("panicked"), "{}", output.err);
        let seen = Seen::read(&self.scene.log)?;
        let (waiting, archived) = (self.scene.waiting()?, self.archived()?);
        for (uidl, sum) in &self.sent {
            ensure!(
                waiting.contains(uidl) || archived.contains_key(sum),
                "{uidl} left the gateway and is not archived"
            );
        }
        let failed = seen.struck.as_ref().filter(|call| matches!(watch.blow, Blow::Fail(..)) && call.puts_on_disk());
        let failed = failed.filter(|call| call.path.contains("/packs") || call.path.contains("/records"));
        ensure!(
            failed.is_none() || new.iter().all(|uidl| waiting.contains(uidl)),
            "removed although {failed:?} failed"
        );
        let stored = self.sent.iter().filter(|(u, sum)| waiting.contains(u) && archived.contains_key(*sum)).count();
        let stage = match (waiting.len(), stored) {
            (0, _) => "after the removal at the gateway",
            (_, 0) => "before the commit",
            _ => "between commit and removal",
        };
        Ok(Done { seen, stage, heard: format!("exit {}", output.code) })
    }

    fn finish(mut self) -> Result<Promised> {
        self.archiver.run(&["run", "--once"], b"")?.expect(0)?;
        ensure!(self.scene.waiting()?.is_empty(), "messages stay at the gateway");
        let archived = self.archived()?;
        let lost = self.sent.values().filter(|sum| !archived.contains_key(*sum)).count();
        ensure!(lost == 0, "{lost} of {} lost", self.sent.len());
        ensure!(archived.values().all(|count| *count == 1), "something is archived twice");
        ensure!(archived.len() == self.sent.len(), "{} archived of {}", archived.len(), self.sent.len());
        let (balance, numbers) = self.archiver.reconcile()?;
        // The first message of the scene was taken by hand, as a removal without an archiver.
        ensure!(balance <= 1, "{numbers:?}");
        let (verified, verdict) = self.archiver.verify()?;
        ensure!(verified == 0, "{verdict}");
        ensure!(self.scene.gateway.stop()? == 0);
        self.scene.verify()?;
        Ok(Promised { acknowledged: self.sent.len(), found: archived.len() })
    }
}
