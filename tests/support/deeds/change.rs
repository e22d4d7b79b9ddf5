//! A password is changed: afterwards the old one opens the mailbox or the new one, never neither and never both; a
//! change that was confirmed holds, and what waits stays readable.

use super::{Deed, Done, Promised, Scene, numbered};
use crate::support::{
    pop3,
    strike::{Blow, Call, Seen, Watch},
};
use anyhow::{Result, ensure};
use std::path::PathBuf;

const NEW: &str = "the other password";

pub struct Change {
    scene: Scene,
    definition: PathBuf,
    before: Vec<u8>,
    waiting: (usize, String),
    confirmed: usize,
    found: usize,
}

impl Change {
    fn opens(&self, password: &str) -> Result<bool> {
        let input = format!("{password}\n");
        let output = self.scene.gateway.run(&["mailbox", "identity", &self.scene.access.id], input.as_bytes())?;
        ensure!([0, 4].contains(&output.code), "mailbox identity: {} {}", output.code, output.err);
        Ok(output.code == 0)
    }
}

impl Deed for Change {
    const NAME: &'static str = "a password change";

    fn prepare() -> Result<Self> {
        let mut scene = Scene::new()?;
        let waiting = scene.send()?;
        let definition = scene.gateway.data().join("mailboxes").join(format!("{}.toml", scene.access.id));
        let before = std::fs::read(&definition)?;
        Ok(Self { scene, definition, before, waiting, confirmed: 0, found: 0 })
    }

    fn once(&mut self, watch: Watch) -> Result<Done> {
        // The password that was made opens faster than a chosen one.
        std::fs::write(&self.definition, &self.before)?;
        let command = self.scene.gateway.command(&["mailbox", "passwd", &self.scene.access.id, "--stdin"])?;
        let input = format!("{}\n{NEW}\n", self.scene.access.password);
        let output = watch.run(&command, &self.scene.gateway.folder, &self.scene.log, input.as_bytes())?;
        ensure!([0, 2, 3, 137].contains(&output.code), "exit {}: {}", output.code, output.err);
        let seen = Seen::read(&self.scene.log)?;
        // Unchanged to the octet it opens with the old password and with no other.
        let is_old = std::fs::read(&self.definition)? == self.before;
        ensure!(is_old || self.opens(NEW)?, "neither password opens the mailbox");
        let confirmed = output.code == 0;
        ensure!(!confirmed || !is_old, "the change was confirmed but does not hold");
        // A lock needs no right to write: where its file does not open for writing it is taken by one that reads.
        let read_lock = matches!(watch.blow, Blow::Fail("EROFS", _));
        let matters = |call: &&Call| {
            call.path.contains("/data/mailboxes") && !(read_lock && call.path.ends_with("/data/mailboxes.lock"))
        };
        let failed = seen.struck.as_ref().filter(matters);
        ensure!(failed.is_none() || !confirmed, "confirmed although {failed:?} failed");
        (self.confirmed, self.found) = (self.confirmed + usize::from(confirmed), self.found + usize::from(confirmed));
        let stage = if is_old { "the old password holds" } else { "the new password holds" };
        Ok(Done { seen, stage, heard: format!("exit {}", output.code) })
    }

    fn finish(mut self) -> Result<Promised> {
        let command = ["mailbox", "passwd", &self.scene.access.id, "--stdin"];
        std::fs::write(&self.definition, &self.before)?;
        let input = format!("{}\n{NEW}\n", self.scene.access.password);
        self.scene.gateway.run(&command, input.as_bytes())?.expect(0)?;
        ensure!(!self.opens(&self.scene.access.password)?, "the old password opens it still");
        self.scene.access.password = NEW.into();
        let found = self.scene.collect()?;
        let [(uidl, message)] = found.as_slice() else { anyhow::bail!("{} messages instead of one", found.len()) };
        ensure!(*uidl == self.waiting.1);
        pop3::same(uidl, message, &numbered(self.waiting.0).0)?;
        ensure!(self.scene.gateway.stop()? == 0);
        self.scene.verify()?;
        Ok(Promised { acknowledged: self.confirmed, found: self.found })
    }
}
