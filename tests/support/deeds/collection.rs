//! Two messages are collected and removed in one POP3 session: no `+OK` to QUIT that the disk does not honour, nothing
//! gone that the ledger does not call removed, and nothing removed without QUIT.

use super::{BACKGROUND, Deed, Done, Promised, Scene, numbered};
use crate::support::{
    pop3,
    strike::{Blow, Watch},
};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

pub struct Collection {
    scene: Scene,
    confirmed: usize,
    found: usize,
}

/// How far a session came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    NotToQuit,
    ToQuit,
    Refused,
    Confirmed,
}

impl Collection {
    /// The session; what is read must be what was sent, whatever happens.
    fn session(&self, expected: &BTreeMap<String, usize>, came: &mut Came) -> Result<()> {
        let mut collector = self.scene.gateway.pop3(&self.scene.access)?;
        let mut taken = 0;
        for (number, uidl) in collector.uidl()? {
            let Some(n) = expected.get(&uidl) else { continue };
            let Ok((message, _)) = collector.xretr(number) else { continue };
            pop3::same(&uidl, pop3::without_trace(&message)?, &numbered(*n).0)?;
            collector.command(&format!("DELE {number}"))?;
            taken += 1;
        }
        ensure!(taken == expected.len(), "{taken} of {} could be read", expected.len());
        *came = Came::ToQuit;
        match collector.quit() {
            Ok(()) => *came = Came::Confirmed,
            Err(error) if error.to_string().starts_with("-ERR") => *came = Came::Refused,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Deed for Collection {
    const NAME: &'static str = "two messages collected and removed";

    fn prepare() -> Result<Self> {
        Ok(Self { scene: Scene::new()?, confirmed: 0, found: 0 })
    }

    fn once(&mut self, watch: Watch) -> Result<Done> {
        let mut expected = BTreeMap::new();
        for _ in 0..2 {
            let (n, uidl) = self.scene.send()?;
            expected.insert(uidl, n);
        }
        let tracer = self.scene.attach(watch)?;
        let mut came = Came::NotToQuit;
        if self.session(&expected, &mut came).is_ok() {
            tracer.linger(BACKGROUND);
        }
        let seen = tracer.end()?;
        if matches!(watch.blow, Blow::Fail(..)) {
            self.scene.goes_on_or_stopped()?;
        }
        self.scene.restart()?;
        let (waiting, removed) = (self.scene.waiting()?, self.scene.removed()?);
        let mut gone = 0;
        for uidl in expected.keys() {
            let (waits, is_removed) = (waiting.contains(uidl), removed.contains(uidl));
            ensure!(waits != is_removed, "{uidl}: waiting {waits}, removed {is_removed} ({came:?})");
            gone += usize::from(is_removed);
        }
        ensure!(gone == 0 || gone == 2, "{gone} of 2 removed ({came:?})");
        ensure!(gone == 0 || came != Came::NotToQuit, "removed without QUIT");
        ensure!(gone == 2 || came != Came::Confirmed, "+OK to QUIT, but both are there again");
        let failed = seen.struck.as_ref().filter(|call| matches!(watch.blow, Blow::Fail(..)) && call.puts_on_disk());
        let failed = failed.filter(|call| call.path.contains("/data/ledger/"));
        ensure!(failed.is_none() || came != Came::Confirmed, "+OK to QUIT although {failed:?} failed");
        if came == Came::Confirmed {
            (self.confirmed, self.found) = (self.confirmed + 2, self.found + gone);
        }
        // What was not removed must still come out.
        for (uidl, message) in self.scene.collect()? {
            if let Some(n) = expected.get(&uidl) {
                pop3::same(&uidl, &message, &numbered(*n).0)?;
            }
        }
        let stage = match came {
            Came::NotToQuit => "before QUIT",
            Came::ToQuit | Came::Refused => "between QUIT and its answer",
            Came::Confirmed => "after +OK to QUIT",
        };
        let heard = match came {
            Came::NotToQuit => "no QUIT",
            Came::ToQuit => "no answer",
            Came::Refused => "-ERR",
            Came::Confirmed => "+OK",
        };
        Ok(Done { seen, stage, heard: heard.into() })
    }

    fn finish(mut self) -> Result<Promised> {
        ensure!(self.scene.gateway.stop()? == 0);
        self.scene.verify()?;
        Ok(Promised { acknowledged: self.confirmed, found: self.found })
    }
}
