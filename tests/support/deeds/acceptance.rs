//! Two messages are accepted in one SMTP session: no `250` that the disk does not honour.

use super::{BACKGROUND, Deed, Done, Promised, Scene, numbered};
use crate::support::{
    Smtp, pop3,
    strike::{Blow, Watch},
};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};

pub struct Acceptance {
    scene: Scene,
    /// Numbers by uidl.
    acknowledged: BTreeMap<String, usize>,
}

impl Acceptance {
    /// Sends two messages; the uidl of each `250`, and what was heard.
    fn session(&mut self, heard: &mut Vec<String>) -> Result<()> {
        let mut sender = Smtp::connect(self.scene.gateway.address("smtp")?)?;
        for _ in 0..2 {
            let (n, message) = self.scene.message();
            let reply = sender.send("", &[&self.scene.access.address], &message)?;
            heard.push(reply.code.to_string());
            if reply.code == 250 {
                let (uidl, ..) = reply.receipts()?.into_iter().next().context("a receipt")?;
                self.acknowledged.insert(uidl, n);
            } else {
                ensure!(matches!(reply.code, 421 | 451 | 452), "{reply:?}");
            }
        }
        // It may be told "421" here: what was promised was promised before.
        let _ = sender.command("QUIT");
        Ok(())
    }
}

impl Deed for Acceptance {
    const NAME: &'static str = "two messages accepted";

    fn prepare() -> Result<Self> {
        Ok(Self { scene: Scene::new()?, acknowledged: BTreeMap::new() })
    }

    fn once(&mut self, watch: Watch) -> Result<Done> {
        let tracer = self.scene.attach(watch)?;
        let mut heard = Vec::new();
        // The connection may end instead of a reply: then nothing was promised.
        let ended = self.session(&mut heard);
        if ended.is_ok() {
            tracer.linger(BACKGROUND);
        }
        let seen = tracer.end()?;
        if matches!(watch.blow, Blow::Fail(..)) {
            match self.scene.goes_on_or_stopped()? {
                Some((n, uidl)) => {
                    self.acknowledged.insert(uidl, n);
                }
                None => heard.push("exit 3".into()),
            }
        }
        self.scene.restart()?;
        let waiting: BTreeSet<String> = self.scene.waiting()?.into_iter().collect();
        for uidl in self.acknowledged.keys() {
            ensure!(waiting.contains(uidl), "250 for {uidl}, which is gone");
        }
        let promised = heard.iter().filter(|code| *code == "250").count();
        // Every write and sync there belongs to one of the two.
        let failed = seen.struck.as_ref().filter(|call| matches!(watch.blow, Blow::Fail(..)) && call.puts_on_disk());
        let failed = failed.filter(|call| call.path.contains("/data/spool/") || call.path.contains("/data/ledger/"));
        ensure!(failed.is_none() || promised < 2, "two times 250 although {failed:?} failed");
        let stage = match promised {
            0 => "before the first 250",
            1 => "between the two",
            _ => "after the last 250",
        };
        Ok(Done { seen, stage, heard: heard.join(" ") })
    }

    fn finish(mut self) -> Result<Promised> {
        let mut seen = BTreeSet::new();
        let mut found = 0;
        for (uidl, message) in self.scene.collect()? {
            match self.acknowledged.get(&uidl) {
                Some(n) => {
                    pop3::same(&uidl, &message, &numbered(*n).0)?;
                    found += 1;
                }
                // Whole and not acknowledged: adopted.
                None => ensure!((1..=self.scene.next).any(|n| numbered(n).0 == message), "{uidl} was never sent"),
            }
            ensure!(seen.insert(uidl), "listed twice");
        }
        ensure!(found == self.acknowledged.len(), "{found} found of {} acknowledged", self.acknowledged.len());
        ensure!(self.scene.gateway.stop()? == 0);
        self.scene.verify()?;
        Ok(Promised { acknowledged: self.acknowledged.len(), found })
    }
}
