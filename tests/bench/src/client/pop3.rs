//! Takes everything out of mailboxes over TLS and compares every octet with what was sent.

use super::Connection;
use anyhow::{Context as _, Result, ensure};
use postkeep_bench::corpus;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// How messages are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// RETR, by any server.
    Retr,
    /// XRETR, counted.
    Xretr,
}

/// A mailbox to be emptied.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// What to take from where.
pub(crate) struct Draining<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) accounts: &'a [Account],
    pub(crate) ask: Ask,
    /// Commands sent before the first answer is awaited.
    pub(crate) window: usize,
    /// Whether they are removed at the end.
    pub(crate) remove: bool,
    /// What was sent, by number.
    pub(crate) corpus: &'a Arc<Vec<Vec<u8>>>,
}

/// How it went.
#[derive(Debug, Clone)]
pub(crate) struct Drained {
    /// The reports that came, by number, each exact.
    pub(crate) numbers: BTreeSet<usize>,
    pub(crate) octets: usize,
    /// Time of fetching alone: from the first command to the last octet, over all mailboxes.
    pub(crate) wall: Duration,
}

impl Drained {
    pub(crate) fn rate(&self) -> f64 {
        self.numbers.len() as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn megabytes(&self) -> f64 {
        self.octets as f64 / 1e6 / self.wall.as_secs_f64()
    }
}

/// Empties the mailboxes one after the other.
pub(crate) fn drain(draining: &Draining<'_>) -> Result<Drained> {
    let mut all = Drained { numbers: BTreeSet::new(), octets: 0, wall: Duration::ZERO };
    for account in draining.accounts {
        one(draining, account, &mut all).with_context(|| format!("mailbox {}", account.name))?;
    }
    Ok(all)
}

fn one(draining: &Draining<'_>, account: &Account, all: &mut Drained) -> Result<()> {
    let mut session = login(draining.address, account)?;
    let count = session.stat()?;
    let began = Instant::now();
    let mut compare = Vec::new();
    for first in (1..=count).step_by(draining.window) {
        let window = first..(first + draining.window).min(count + 1);
        let word = if draining.ask == Ask::Retr { "RETR" } else { "XRETR" };
        let asked: String = window.clone().map(|number| format!("{word} {number}\r\n")).collect();
        session.0.send(asked.as_bytes())?;
        for number in window {
            compare.push(session.take(draining.ask).with_context(|| format!("message {number}"))?);
        }
        // Comparing waits until the clock stands still only as long as memory allows.
        if compare.iter().map(Vec::len).sum::<usize>() > 64 << 20 {
            let before = Instant::now();
            check(&mut compare, draining.corpus, all)?;
            all.wall = all.wall.saturating_sub(before.elapsed());
        }
    }
    all.wall += began.elapsed();
    check(&mut compare, draining.corpus, all)?;
    if draining.remove {
        for number in 1..=count {
            session.ask(&format!("DELE {number}"))?;
        }
    }
    session.ask("QUIT")?;
    Ok(())
}

/// Every octet that was sent has to be the end of what came; a server may put its trace in front.
fn check(messages: &mut Vec<Vec<u8>>, corpus: &[Vec<u8>], all: &mut Drained) -> Result<()> {
    for message in messages.drain(..) {
        let number = corpus::number_of(&message).context("no report of the corpus")?;
        let sent = corpus.get(number).context("no report of the corpus")?;
        ensure!(message.ends_with(sent), "report {number} came changed");
        all.numbers.insert(number);
        all.octets += message.len();
    }
    Ok(())
}

/// Logs in under implicit TLS.
pub(crate) fn login(address: SocketAddr, account: &Account) -> Result<Session> {
    let mut session = Session(Connection::open(address)?.start_tls()?);
    session.ok()?;
    session.ask(&format!("USER {}", account.name))?;
    session.ask(&format!("PASS {}", account.password))?;
    Ok(session)
}

/// A session after login.
pub(crate) struct Session(Connection);

impl Session {
    pub(crate) fn ask(&mut self, command: &str) -> Result<String> {
        self.0.send(format!("{command}\r\n").as_bytes())?;
        self.ok()
    }

    /// A command with an answer of many lines; its octets.
    pub(crate) fn ask_many(&mut self, command: &str) -> Result<Vec<u8>> {
        self.ask(command)?;
        self.0.dotted()
    }

    pub(crate) fn stat(&mut self) -> Result<usize> {
        let answer = self.ask("STAT")?;
        Ok(answer.split(' ').nth(1).context("STAT")?.parse()?)
    }

    fn take(&mut self, ask: Ask) -> Result<Vec<u8>> {
        let answer = self.ok()?;
        match ask {
            Ask::Retr => self.0.dotted(),
            Ask::Xretr => {
                let count = answer.split(' ').nth(1).context("XRETR")?.parse()?;
                self.0.counted(count)
            }
        }
    }

    fn ok(&mut self) -> Result<String> {
        let line = self.0.line()?;
        ensure!(line.starts_with("+OK"), "+OK expected, heard {line:?}");
        Ok(line)
    }
}
