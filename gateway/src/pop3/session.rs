//! One POP3 connection: gives the machine its messages and takes marked ones away. Knows no protocol rules.
//!
//! Memory per session is two blocks whatever the message: a block is read and checked, goes out, and only then the
//! next is read. Where a message turns out damaged the connection is dropped as it is, without a final dot and
//! without TLS close_notify, so that no client can take the part for the whole (reliability: RETR). Each session and
//! each message that was given whole is one line in the log, without a credential and without a word of the message.

use super::{
    Credentials, Event, Fetch, Item, Listing, Pop3,
    login::{Gate, Opened},
};
use crate::{
    metrics::Counters,
    spool::{Maildrop, MessageReader, Spool, SpoolError},
    tls::Acceptor,
};
use postkeep_shared::{
    drive::{DriveError, Driven, Driver, Stream},
    mail::MailboxId,
    pop3::Code,
    receipt::{Entry, NodeKey},
    run::{Shutdown, printable},
};
use std::{
    io::Read as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;

/// Octets read at once.
const BLOCK: usize = 64 * 1024;
/// Ledger entries read at once (about 70 KiB).
const ENTRIES: usize = 256;
/// How long a session may sit still once the program stops.
const GRACE: Duration = Duration::from_secs(1);

/// What every session shares.
pub struct Context {
    /// Name in the greeting.
    pub hostname: String,
    /// Where the messages are.
    pub spool: Spool,
    /// The way in.
    pub gate: Gate,
    /// For STLS.
    pub tls: Acceptor,
    /// How long a client may be silent after login, and how long one write may take.
    pub idle_timeout: Duration,
    /// How long a client may be silent before login.
    pub login_timeout: Duration,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Serves one connection to its end. `encrypted`: the handshake was done before.
pub async fn serve(
    stream: Box<dyn Stream>,
    peer: SocketAddr,
    context: Arc<Context>,
    encrypted: bool,
    shutdown: Shutdown,
) {
    let machine = Pop3::new(&context.hostname, encrypted);
    let mut driver = Driver::new(machine, stream, context.login_timeout, context.idle_timeout);
    driver.set_step_deadline(Some(context.login_timeout));
    let account = Account { tls: encrypted, ..Account::default() };
    let mut session = Session { peer, context, opened: None, reading: Reading::Nothing, shutdown, account };
    let started = Instant::now();
    let ended = session.run(driver).await;
    let Account { tls, mailbox, messages, octets, removed } = session.account;
    let end = ended.as_ref().err().map_or("closed", String::as_str);
    tracing::info!(
        peer = %peer.ip(),
        tls,
        mailbox = %mailbox.map(|id| id.to_string()).unwrap_or_default(),
        messages,
        octets,
        removed,
        end = %printable(end.as_bytes()),
        ms = millis(started),
        "pop3 session"
    );
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What a session did, for the log.
#[derive(Default)]
struct Account {
    tls: bool,
    mailbox: Option<MailboxId>,
    /// Given whole, by RETR or XRETR.
    messages: u64,
    /// Of those messages.
    octets: u64,
    removed: usize,
}

struct Session {
    peer: SocketAddr,
    context: Arc<Context>,
    opened: Option<Opened>,
    reading: Reading,
    shutdown: Shutdown,
    account: Account,
}

/// What is being sent.
enum Reading {
    Nothing,
    /// A message, with the block that was read ahead.
    Message(Box<Open>),
    Ledger(Entries),
}

type Entries = Box<dyn Iterator<Item = Result<Entry, SpoolError>> + Send>;

/// A message that is being read, by turns here and in a thread that may block.
struct Open {
    reader: MessageReader,
    block: Vec<u8>,
    fetch: Fetch,
    since: Instant,
}

impl Session {
    /// The error is why the connection was dropped, for the log.
    async fn run(&mut self, mut driver: Driver<Pop3>) -> Result<(), String> {
        loop {
            let event = match self.next(&mut driver).await? {
                None => return Ok(()),
                Some(Driven::Close) => {
                    driver.shutdown().await;
                    return Ok(());
                }
                Some(Driven::StartTls(proof)) => {
                    let acceptor = self.context.tls.clone();
                    let handshake = |stream| async move { acceptor.accept(stream).await.map(|(stream, _)| stream) };
                    // On the heap: an idle session must not carry the memory of a handshake.
                    driver = Box::pin(driver.upgrade(proof, handshake)).await.map_err(|e| format!("TLS: {e}"))?;
                    driver.machine.tls_started();
                    self.account.tls = true;
                    continue;
                }
                Some(Driven::Event(event)) => event,
            };
            match event {
                Event::Login(credentials) => self.login(&mut driver, credentials).await,
                Event::Open(position, fetch) => self.open(&mut driver.machine, position, fetch).await?,
                Event::Content => self.content(&mut driver.machine).await?,
                Event::Ledger(from) => self.ledger(&mut driver.machine, from).await?,
                Event::Origins => self.origins(&mut driver.machine).await?,
                Event::Origin(node, from) => self.origin(&mut driver.machine, node, from).await?,
                Event::Entries => self.entries(&mut driver.machine).await?,
                Event::Update(positions) => self.update(&mut driver.machine, &positions).await,
            }
        }
    }

    /// The next thing to do; `None` when the program stops and nothing is being worked on.
    async fn next(&mut self, driver: &mut Driver<Pop3>) -> Result<Option<Driven<Event>>, String> {
        let idle = driver.machine.is_idle();
        let next = driver.next();
        tokio::pin!(next);
        let stepped = tokio::select! {
            biased;
            stepped = &mut next => stepped,
            () = self.shutdown.fired() => {
                // A client in the middle of a message gets some time to take it; one that sits still gets little.
                let grace = if idle { GRACE } else { GRACE * 8 };
                match tokio::time::timeout(grace, next).await {
                    Ok(stepped) => stepped,
                    Err(_) => return Ok(None),
                }
            }
        };
        match stepped {
            Ok(driven) => Ok(Some(driven)),
            Err(DriveError::Closed) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn login(&mut self, driver: &mut Driver<Pop3>, credentials: Credentials) {
        let peer = self.peer;
        match self.context.gate.login(peer.ip(), credentials, &self.context.spool).await {
            Ok(opened) => {
                let waiting = opened.maildrop.list().len();
                self.context.counters.login(true);
                tracing::info!(%peer, mailbox = %opened.mailbox, waiting, "pop3 login");
                driver.set_read_deadline(self.context.idle_timeout);
                driver.set_step_deadline(Some(self.context.idle_timeout));
                driver.machine.logged_in(Box::new(Numbered(Arc::clone(&opened.maildrop))));
                self.account.mailbox = Some(opened.mailbox);
                self.opened = Some(opened);
            }
            Err(failure) => {
                self.context.counters.login(false);
                tracing::warn!(%peer, ?failure, "pop3 login refused");
                driver.machine.login_failed(failure);
            }
        }
    }

    /// Opens a message and reads its first block before anything is promised.
    async fn open(&mut self, machine: &mut Pop3, position: usize, fetch: Fetch) -> Result<(), String> {
        let Some(opened) = &self.opened else { return Err("no mailbox is open".into()) };
        let (maildrop, identity) = (Arc::clone(&opened.maildrop), Arc::clone(&opened.identity));
        let since = Instant::now();
        let work = spawn_blocking(move || {
            let reader = maildrop.open(position, &identity)?;
            let reader = if fetch == Fetch::Counted { reader } else { reader.with_line_end() };
            let mut open = Box::new(Open { reader, block: Vec::with_capacity(BLOCK), fetch, since });
            Ok::<_, SpoolError>(open.fill().map(|()| open))
        });
        match work.await.map_err(|e| e.to_string())? {
            Ok(read) => {
                self.reading = Reading::Message(read.map_err(|error| self.alarm(position, &error))?);
                machine.opened();
            }
            Err(error @ SpoolError::Missing { .. }) => {
                self.alarm(position, &error);
                machine.refuse(Code::SysPerm, "this message is gone from the disk; tell the administrator");
            }
            Err(error @ SpoolError::Disk(_)) => {
                self.alarm(position, &error);
                machine.refuse(Code::SysTemp, "this message cannot be read now; try again later");
            }
            Err(error) => return Err(self.alarm(position, &error)),
        }
        Ok(())
    }

    /// Gives the block that was read ahead and reads the next.
    async fn content(&mut self, machine: &mut Pop3) -> Result<(), String> {
        let Reading::Message(mut open) = std::mem::replace(&mut self.reading, Reading::Nothing) else {
            return Err("no message is open".into());
        };
        let last = open.block.len() < BLOCK;
        if !open.block.is_empty() && !machine.content(&open.block) {
            return Ok(());
        }
        if last {
            machine.content_end();
            self.given(&open);
            return Ok(());
        }
        let (open, read) = spawn_blocking(move || {
            let read = open.fill();
            (open, read)
        })
        .await
        .map_err(|e| e.to_string())?;
        read.map_err(|error| self.alarm_text(&error.to_string(), &open.reader.entry().body.uidl.to_string()))?;
        self.reading = Reading::Message(open);
        Ok(())
    }

    /// A message has gone out to its end.
    fn given(&mut self, open: &Open) {
        if matches!(open.fetch, Fetch::Top(_)) {
            return;
        }
        let entry = &open.reader.entry().body;
        self.account.messages += 1;
        self.account.octets += entry.size;
        self.context.counters.given(entry.size);
        tracing::info!(
            peer = %self.peer.ip(),
            mailbox = %entry.mailbox,
            uidl = %entry.uidl,
            seq = entry.seq,
            size = entry.size,
            ms = millis(open.since),
            "pop3 message given"
        );
    }

    async fn ledger(&mut self, machine: &mut Pop3, from: u64) -> Result<(), String> {
        let Some(opened) = &self.opened else { return Err("no mailbox is open".into()) };
        let maildrop = Arc::clone(&opened.maildrop);
        let work = spawn_blocking(move || maildrop.ledger(from).map(|entries| Box::new(entries) as Entries));
        match work.await.map_err(|e| e.to_string())? {
            Ok(entries) => {
                self.reading = Reading::Ledger(entries);
                machine.ledger_opened(&self.context.spool.node());
            }
            Err(error) => {
                tracing::error!(mailbox = %opened.mailbox, %error, "ALARM: the ledger cannot be read");
                machine.refuse(Code::SysTemp, "the ledger cannot be read now; try again later");
            }
        }
        Ok(())
    }

    /// The ledgers of other nodes whose messages were moved here.
    async fn origins(&mut self, machine: &mut Pop3) -> Result<(), String> {
        let Some(opened) = &self.opened else { return Err("no mailbox is open".into()) };
        let maildrop = Arc::clone(&opened.maildrop);
        match spawn_blocking(move || maildrop.origins()).await.map_err(|e| e.to_string())? {
            Ok(origins) => machine.origins(&origins),
            Err(error) => {
                tracing::error!(mailbox = %opened.mailbox, %error, "ALARM: the ledgers of other nodes cannot be read");
                machine.refuse(Code::SysTemp, "the ledgers cannot be read now; try again later");
            }
        }
        Ok(())
    }

    async fn origin(&mut self, machine: &mut Pop3, node: NodeKey, from: u64) -> Result<(), String> {
        let Some(opened) = &self.opened else { return Err("no mailbox is open".into()) };
        let maildrop = Arc::clone(&opened.maildrop);
        let work = spawn_blocking(move || maildrop.origin(&node, from));
        match work.await.map_err(|e| e.to_string())? {
            Ok(Some(entries)) => {
                self.reading = Reading::Ledger(Box::new(entries));
                machine.ledger_opened(&node);
            }
            Ok(None) => machine.refuse(Code::SysPerm, "no ledger of this node is kept here"),
            Err(error) => {
                tracing::error!(mailbox = %opened.mailbox, %error, "ALARM: the ledger of another node cannot be read");
                machine.refuse(Code::SysTemp, "the ledger cannot be read now; try again later");
            }
        }
        Ok(())
    }

    async fn entries(&mut self, machine: &mut Pop3) -> Result<(), String> {
        let Reading::Ledger(mut entries) = std::mem::replace(&mut self.reading, Reading::Nothing) else {
            return Err("no ledger is open".into());
        };
        let work = spawn_blocking(move || {
            let block: Result<Vec<Entry>, SpoolError> = entries.by_ref().take(ENTRIES).collect();
            (entries, block)
        });
        let (entries, block) = work.await.map_err(|e| e.to_string())?;
        // A list that ends early must not look complete, so there is no final dot.
        let block = block.map_err(|error| self.alarm_text(&error.to_string(), "ledger"))?;
        machine.entries(&block);
        if !block.is_empty() {
            self.reading = Reading::Ledger(entries);
        }
        Ok(())
    }

    /// Removes what was marked and gives the mailbox back before the client learns that it is out, so that its next
    /// session finds the mailbox free.
    async fn update(&mut self, machine: &mut Pop3, positions: &[usize]) {
        let Some(opened) = self.opened.take() else { return machine.updated(positions.is_empty()) };
        let (mailbox, count, peer) = (opened.mailbox, positions.len(), self.peer);
        let removed = if count == 0 { Ok(()) } else { opened.maildrop.remove(positions).await };
        drop(opened);
        match &removed {
            Ok(()) => {
                self.account.removed = count;
                self.context.counters.removed(count);
            }
            Err(error) => tracing::error!(%peer, %mailbox, count, %error, "ALARM: nothing could be removed"),
        }
        machine.updated(removed.is_ok());
    }

    fn alarm(&self, position: usize, error: &dyn std::error::Error) -> String {
        let maildrop = self.opened.as_ref().map(|opened| &opened.maildrop);
        let entry = maildrop.and_then(|maildrop| maildrop.list().get(position));
        self.alarm_text(&error.to_string(), &entry.map(|e| e.body.uidl.to_string()).unwrap_or_default())
    }

    fn alarm_text(&self, error: &str, what: &str) -> String {
        let mailbox = self.opened.as_ref().map(|opened| opened.mailbox.to_string()).unwrap_or_default();
        tracing::error!(peer = %self.peer, mailbox, what, error, "ALARM: damaged or missing");
        format!("{what}: {error}")
    }
}

impl Open {
    /// Reads until the block is full or the message ends; only then is it known to be genuine.
    fn fill(&mut self) -> std::io::Result<()> {
        self.block.clear();
        let mut reader = (&mut self.reader).take(BLOCK as u64);
        reader.read_to_end(&mut self.block).map(drop)
    }
}

/// The messages of a session by number.
struct Numbered(Arc<Maildrop>);

impl Listing for Numbered {
    fn count(&self) -> usize {
        self.0.list().len()
    }

    fn item(&self, position: usize) -> Option<Item> {
        self.0.list().get(position).map(|entry| Item {
            uidl: entry.body.uidl,
            retr_size: entry.retr_size(),
            xretr_size: entry.xretr_size(),
            digest: entry.body.digest,
        })
    }
}
