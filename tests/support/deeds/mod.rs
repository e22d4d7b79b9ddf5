//! Five things the programs do, each with what must be true afterwards whatever struck them: a message is accepted, a
//! mailbox is collected and emptied, the archiver makes a round, a password is changed, a store is merged into another.
//!
//! A deed is done over and over in the same folders. Its checks are its own: what was promised to a client is on the
//! disk after the next start, nothing is there twice, and spool and ledger agree.

pub mod acceptance;
pub mod change;
pub mod collection;
pub mod merge;
pub mod round;

use super::{
    Access, Gateway, message, numbered_report, pop3, report,
    strike::{Seen, Tracer, Watch},
};
use anyhow::{Context as _, Result, ensure};
use std::{path::PathBuf, time::Duration};

pub use acceptance::Acceptance;
pub use change::Change;
pub use collection::Collection;
pub use merge::Merge;
pub use round::Round;

/// The index writes behind the answers, once a second.
const BACKGROUND: Duration = Duration::from_millis(1500);

/// One of the five.
pub trait Deed: Sized {
    const NAME: &'static str;

    fn prepare() -> Result<Self>;

    /// Does it once, watched, and checks what is true afterwards.
    fn once(&mut self, watch: Watch) -> Result<Done>;

    /// The last check; how much was promised and found in all.
    fn finish(self) -> Result<Promised>;
}

/// How it went.
pub struct Done {
    pub seen: Seen,
    /// How far it had come.
    pub stage: &'static str,
    /// What the client heard, in short.
    pub heard: String,
}

/// Promises of all times a deed was done.
#[derive(Debug, Default)]
pub struct Promised {
    pub acknowledged: usize,
    pub found: usize,
}

/// A gateway with one mailbox.
pub struct Scene {
    pub gateway: Gateway,
    pub access: Access,
    next: usize,
    log: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Result<Self> {
        let folder = super::folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let log = folder.path().join("calls");
        let mut scene = Self { gateway, access, next: 0, log, folder };
        // The first message makes folders; the deeds are about an ordinary one.
        scene.send()?;
        scene.collect()?;
        Ok(scene)
    }

    /// A message that was not sent before: larger than a block where the number is even.
    pub fn message(&mut self) -> (usize, Vec<u8>) {
        self.next += 1;
        (self.next, numbered(self.next).0)
    }

    /// Sends one message that must be accepted; number and uidl.
    pub fn send(&mut self) -> Result<(usize, String)> {
        let (n, message) = self.message();
        let reply = super::Smtp::connect(self.gateway.address("smtp")?)?.send("", &[&self.access.address], &message)?;
        ensure!(reply.code == 250, "not accepted: {reply:?}");
        Ok((n, reply.receipts()?.into_iter().next().context("a receipt")?.0))
    }

    /// Takes and removes everything: uidl and message.
    pub fn collect(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut collector = self.gateway.pop3(&self.access)?;
        let mut all = Vec::new();
        for (number, uidl) in collector.uidl()? {
            let (message, _) = collector.xretr(number)?;
            all.push((uidl, pop3::without_trace(&message)?.to_vec()));
            collector.command(&format!("DELE {number}"))?;
        }
        collector.quit()?;
        Ok(all)
    }

    /// Names of the files that wait.
    pub fn waiting(&self) -> Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(self.gateway.waiting(&self.access.id)?.iter().filter_map(name).collect())
    }

    /// Uidls with a removal in the ledger.
    pub fn removed(&self) -> Result<Vec<String>> {
        let text = |entry: &serde_json::Value, key: &str| {
            entry.get(key).and_then(serde_json::Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let ledger = self.gateway.ledger(&self.access.id)?;
        Ok(ledger.iter().filter(|e| text(e, "event") == "removed").map(|e| text(e, "uidl")).collect())
    }

    pub fn attach(&self, watch: Watch) -> Result<Tracer> {
        watch.attach(self.gateway.server()?.pid(), &self.log, &self.gateway.folder)
    }

    /// A crash, whatever happened before, and the next start; then spool and ledger must agree.
    pub fn restart(&mut self) -> Result<()> {
        self.gateway.kill()?;
        self.gateway.start()?;
        self.verify()
    }

    /// After an error the gateway either goes on (then it takes a message) or has stopped with exit 3.
    pub fn goes_on_or_stopped(&mut self) -> Result<Option<(usize, String)>> {
        if let Ok(sent) = self.send() {
            return Ok(Some(sent));
        }
        let code = self.gateway.ended(Duration::from_secs(30))?;
        let log = self.gateway.server()?.log();
        ensure!(code == Some(3), "neither takes mail nor has stopped with exit 3 ({code:?}):\n{log}");
        Ok(None)
    }

    pub fn verify(&self) -> Result<()> {
        let verdict = self.gateway.run(&["verify", "--json"], b"")?;
        ensure!(verdict.code == 0, "verify: {} {}", verdict.text(), verdict.err);
        Ok(())
    }
}

/// Report number `n` and the message in it: 300,000 octets where it is even, else a small one.
pub fn numbered(n: usize) -> (Vec<u8>, Vec<u8>) {
    if n % 2 == 1 {
        return numbered_report(n);
    }
    let (from, to) = ("ann@aurora.example", "bob@aurora.example");
    let line = format!("{n:076}\r\n");
    let original =
        message(&format!("number-{n}"), from, to, &format!("Number {n}"), &line.repeat(300_000 / line.len()));
    (report(from, &[to], &format!("Number {n}"), &format!("<number-{n}@aurora.example>"), &original), original)
}
