//! One connection to one host: the machine, TLS and the deadlines. Knows no rule of POP3 and none of Postkeep.

use super::{
    listing::{Collector, Listed, Listing},
    machine::{Asked, Capabilities, Client, ClientError, Event},
    tls::Connector,
};
use crate::{
    config::{Host, Timeouts},
    octets::{Staged, Stager},
    store::StoreReceipt,
};
use postkeep_shared::{
    crypt::Password,
    drive::{DriveError, Driven, Driver, Stream},
    mail::Digest,
    pop3::Code,
    receipt::{Entry, EntryError, NodeKey},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};

/// After [`Patience::grace`] a long answer must have come at this speed, octets per second.
const FLOOR: u64 = 500;

/// How long a server may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Connecting, TLS and greeting together.
    pub(super) opening: Duration,
    /// One answer, or one more piece of it.
    pub(super) answer: Duration,
    /// QUIT: the server may have a great many files to remove.
    pub(super) removal: Duration,
    /// How long the speed of an answer does not matter.
    pub(super) grace: Duration,
}

impl Patience {
    /// Where nothing else is asked for.
    pub(super) const USUAL: Self = Self::of(&Timeouts::USUAL);

    /// As a source asks for.
    #[must_use]
    pub const fn of(timeouts: &Timeouts) -> Self {
        let Timeouts { connect, answer, quit } = *timeouts;
        Self { opening: connect, answer, removal: quit, grace: Duration::from_secs(60) }
    }
}

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Name, route, port or TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The server refused mailbox or password.
    #[error("the server refuses this mailbox or password: {0}")]
    Login(String),
    /// The server cannot serve the mailbox now.
    #[error("the server asks to come later: {0}")]
    Later(String),
    /// The server refused a command that every server must answer.
    #[error("the server refuses {0}: {1}")]
    Refused(&'static str, String),
    /// The connection or the protocol failed.
    #[error(transparent)]
    Drive(#[from] DriveError<ClientError>),
    /// Deadline or floor.
    #[error("the server is too slow: {0}")]
    Slow(&'static str),
    /// The machine and this session disagree: a mistake in this program.
    #[error("an answer came that this program did not ask for")]
    Order,
    /// Staging failed on this side.
    #[error("cannot keep a message for the moment: {0}")]
    Staging(#[from] std::io::Error),
}

impl SessionError {
    /// Whether name or password is the problem, so that trying again does not help.
    #[must_use]
    pub fn is_login(&self) -> bool {
        matches!(self, Self::Login(_))
    }

    /// Whether the trouble is on this side, so that the host is asked again as usual.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Staging(_) | Self::Order)
    }
}

/// A connection; dropping it removes nothing at the server.
pub struct Session {
    driver: Driver<Client>,
    capabilities: Capabilities,
    floor: Option<(Instant, u64)>,
    patience: Patience,
}

/// A message that was fetched whole, or why the server does not give it.
pub enum Fetched {
    /// All octets; for XRETR with the digest that the server named.
    Message(Staged, Option<Digest>),
    /// The server's answer.
    Refused(String),
}

impl Session {
    /// Connects and reads the greeting, inside TLS.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn open(host: &Host, connector: &Connector) -> Result<Self, SessionError> {
        Self::open_within(host, connector, Patience::USUAL).await
    }

    /// Connects and opens the mailbox with the first of `passwords` that is taken, beginning with number `first`; gives
    /// its number too. Each is tried on a connection of its own.
    ///
    /// # Errors
    /// [`SessionError`]; of refused passwords the first one's.
    pub async fn enter(
        host: &Host,
        connector: &Connector,
        mailbox: &str,
        passwords: &[Password],
        first: usize,
        patience: Patience,
    ) -> Result<(Self, usize), SessionError> {
        let first = if first < passwords.len() { first } else { 0 };
        let order = std::iter::once(first).chain((0..passwords.len()).filter(|n| *n != first));
        let mut refused = None;
        for (number, password) in order.filter_map(|n| Some((n, passwords.get(n)?))) {
            let mut session = Self::open_within(host, connector, patience).await?;
            match session.login(mailbox, password.clone()).await {
                Ok(()) => return Ok((session, number)),
                Err(error) if error.is_login() => drop(refused.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(SessionError::Order))
    }

    /// As [`Self::open`], with other deadlines.
    pub(super) async fn open_within(
        host: &Host,
        connector: &Connector,
        patience: Patience,
    ) -> Result<Self, SessionError> {
        let opening = async {
            let tcp = if host.addresses.is_empty() {
                TcpStream::connect((host.name.as_str(), host.port)).await
            } else {
                let addresses: Vec<SocketAddr> = host.addresses.iter().map(|ip| (*ip, host.port).into()).collect();
                TcpStream::connect(addresses.as_slice()).await
            };
            let tcp = tcp.map_err(|e| SessionError::Connect(e.to_string()))?;
            // Commands are short and waited for.
            tcp.set_nodelay(true).map_err(|e| SessionError::Connect(e.to_string()))?;
            Self::on_stream(Box::new(tcp), host, connector, patience).await
        };
        timeout(patience.opening, opening).await.map_err(|_| SessionError::Slow("no greeting in time"))?
    }

    pub(super) async fn on_stream(
        clear: Box<dyn Stream>,
        host: &Host,
        connector: &Connector,
        patience: Patience,
    ) -> Result<Self, SessionError> {
        let connect = |e: std::io::Error| SessionError::Connect(e.to_string());
        let secure = !host.uses_stls();
        let stream = if secure { connector.connect(host, clear).await.map_err(connect)? } else { clear };
        let mut driver = Driver::new(Client::new(secure), stream, patience.answer, patience.answer);
        loop {
            match driver.next().await? {
                Driven::StartTls(proof) => {
                    let handshake = async |clear| connector.connect(host, clear).await;
                    driver = driver.upgrade(proof, handshake).await.map_err(connect)?;
                    driver.machine.secured();
                }
                Driven::Event(Event::Ready(capabilities)) => {
                    return Ok(Self { driver, capabilities, floor: None, patience });
                }
                _ => return Err(SessionError::Order),
            }
        }
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Octets received so far, TLS not counted.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.driver.received()
    }

    /// Opens the mailbox.
    ///
    /// # Errors
    /// [`SessionError::Login`] or [`SessionError::Later`] by what the server says.
    pub async fn login(&mut self, mailbox: &str, password: Password) -> Result<(), SessionError> {
        self.driver.machine.login(mailbox, password);
        match self.event().await? {
            Event::LoggedIn => Ok(()),
            Event::Refused(_, Some(Code::InUse | Code::SysTemp | Code::SysPerm | Code::LoginDelay), text) => {
                Err(SessionError::Later(text))
            }
            Event::Refused(_, _, text) => Err(SessionError::Login(text)),
            _ => Err(SessionError::Order),
        }
    }

    /// Reads the ledger from entry `from` on; `each` gets every entry and may end the session by an error.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn ledger<E: From<SessionError>>(
        &mut self,
        from: u64,
        each: impl FnMut(NodeKey, Result<Entry, EntryError>) -> Result<(), E>,
    ) -> Result<NodeKey, E> {
        self.driver.machine.ledger(from);
        self.entries(each).await
    }

    /// As [`Self::ledger`], of a node whose messages were moved there.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn origin<E: From<SessionError>>(
        &mut self,
        node: NodeKey,
        from: u64,
        each: impl FnMut(NodeKey, Result<Entry, EntryError>) -> Result<(), E>,
    ) -> Result<NodeKey, E> {
        self.driver.machine.origin(node, from);
        self.entries(each).await
    }

    /// The nodes whose messages were moved there, and how many entries of each are kept.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn origins(&mut self) -> Result<Vec<(NodeKey, u64)>, SessionError> {
        self.driver.machine.origins();
        self.begin_long();
        let mut origins = Vec::new();
        loop {
            match self.event().await? {
                Event::Origin(node, entries) => origins.push((node, entries)),
                Event::Complete(Asked::Origins) => return Ok(origins),
                Event::Refused(_, _, text) => return Err(SessionError::Refused("XORIGIN", text)),
                _ => return Err(SessionError::Order),
            }
        }
    }

    async fn entries<E: From<SessionError>>(
        &mut self,
        mut each: impl FnMut(NodeKey, Result<Entry, EntryError>) -> Result<(), E>,
    ) -> Result<NodeKey, E> {
        self.begin_long();
        let node = match self.event().await? {
            Event::Node(node) => node,
            Event::Refused(_, _, text) => return Err(SessionError::Refused("XLEDGER", text).into()),
            _ => return Err(SessionError::Order.into()),
        };
        loop {
            match self.event().await? {
                Event::Entry(entry) => each(node, entry)?,
                Event::Complete(Asked::Ledger) => return Ok(node),
                _ => return Err(SessionError::Order.into()),
            }
        }
    }

    /// What waits: STAT, LIST and UIDL.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn listing(&mut self) -> Result<Listing, SessionError> {
        let mut collector = Collector::default();
        self.driver.machine.stat();
        match self.event().await? {
            Event::Counted(messages, _) => collector.counted = Some(messages),
            Event::Refused(_, _, text) => return Err(SessionError::Refused("STAT", text)),
            _ => return Err(SessionError::Order),
        }
        self.driver.machine.list();
        self.begin_long();
        loop {
            match self.event().await? {
                Event::Size(number, size) => collector.size(number, size),
                Event::Complete(Asked::List) => break,
                Event::Refused(_, _, text) => return Err(SessionError::Refused("LIST", text)),
                _ => return Err(SessionError::Order),
            }
        }
        self.driver.machine.uidl();
        self.begin_long();
        loop {
            match self.event().await? {
                Event::Name(number, name) => collector.name(number, name),
                Event::Complete(Asked::Uidl) => return Ok(collector.finish(true)),
                Event::Refused(Asked::Uidl, _, _) => return Ok(collector.finish(false)),
                _ => return Err(SessionError::Order),
            }
        }
    }

    /// Asks for a message; several may be asked for before the first is read, where the server can take that.
    pub fn request(&mut self, message: &Listed, limit: u64) {
        self.driver.machine.retrieve(message.number(), limit, self.capabilities.xretr);
    }

    /// Reads the next message that was asked for.
    ///
    /// # Errors
    /// [`SessionError`]; nothing of the message is kept then.
    pub async fn fetch(&mut self, mut stager: Stager) -> Result<Fetched, SessionError> {
        self.begin_long();
        let announced = match self.event().await? {
            Event::Begins(announced) => announced,
            Event::Refused(Asked::Retrieve, _, text) => return Ok(Fetched::Refused(text)),
            _ => return Err(SessionError::Order),
        };
        loop {
            match self.event().await? {
                Event::Content(octets) => stager.write(&octets)?,
                Event::Ends => break,
                _ => return Err(SessionError::Order),
            }
        }
        Ok(Fetched::Message(stager.finish()?, announced.map(|(_, digest)| digest)))
    }

    /// Marks messages for removal; the answer tells how many the server marked and what it said of the others.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn delete(&mut self, messages: Vec<(&Listed, StoreReceipt)>) -> Result<Deleted, SessionError> {
        let mut done = Deleted::default();
        let at_once = if self.capabilities.pipelining { 64 } else { 1 };
        let mut waiting = messages.into_iter().peekable();
        while waiting.peek().is_some() {
            let mut asked = Vec::new();
            for (message, receipt) in waiting.by_ref().take(at_once) {
                self.driver.machine.delete(message, receipt).map_err(DriveError::Machine)?;
                asked.push(message);
            }
            for message in asked {
                match self.event().await? {
                    Event::Marked => done.marked.push(message.uidl().to_vec()),
                    Event::Refused(Asked::Delete, _, text) => done.refused.push(text),
                    _ => return Err(SessionError::Order),
                }
            }
        }
        Ok(done)
    }

    /// QUIT. Only `Ok` means that the marked messages are gone.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn quit(mut self) -> Result<(), SessionError> {
        self.driver.set_read_deadline(self.patience.removal);
        self.driver.machine.quit();
        self.floor = None;
        let event = timeout(self.patience.removal, self.next())
            .await
            .map_err(|_| SessionError::Slow("no answer to QUIT"))??;
        match event {
            Event::Quit => {
                self.driver.shutdown().await;
                Ok(())
            }
            Event::Refused(_, _, text) => Err(SessionError::Refused("QUIT", text)),
            _ => Err(SessionError::Order),
        }
    }

    fn begin_long(&mut self) {
        self.floor = Some((Instant::now(), self.driver.received()));
    }

    async fn event(&mut self) -> Result<Event, SessionError> {
        let event = timeout(self.patience.answer, self.next()).await;
        let event = event.map_err(|_| SessionError::Slow("no answer in time"))??;
        if let Some((since, received)) = self.floor {
            let (elapsed, octets) = (since.elapsed(), self.driver.received().saturating_sub(received));
            if elapsed > self.patience.grace && u128::from(octets) * 1000 < elapsed.as_millis() * u128::from(FLOOR) {
                return Err(SessionError::Slow("less than 500 octets per second"));
            }
        }
        Ok(event)
    }

    async fn next(&mut self) -> Result<Event, SessionError> {
        match self.driver.next().await? {
            Driven::Event(event) => Ok(event),
            Driven::StartTls(_) | Driven::Close => Err(SessionError::Order),
        }
    }
}

/// What became of deletions.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Names of messages marked for removal.
    pub marked: Vec<Vec<u8>>,
    /// Sentences of the server.
    pub refused: Vec<String>,
}
