//! The states of a POP3 connection: AUTHORIZATION, TRANSACTION, UPDATE (RFC 1939 §3 to §6).

use super::{
    Fetch, Item, Listing,
    content::Content,
    listing::{Column, Messages, line},
    sasl,
};
use data_encoding::BASE64;
use postkeep_shared::{
    crypt::Password,
    pop3::{Code, Command, CommandError, MAX_LINE, Reply},
    receipt::{Entry, NodeKey},
    wire::{Input, Machine, Step},
};
use zeroize::Zeroizing;

/// Wrong commands before the connection is closed: nobody types that many by mistake.
const MAX_MISTAKES: u32 = 20;
/// Wrong logins before the connection is closed.
const MAX_LOGINS: u32 = 3;

/// Who wants in. Octets as received.
pub struct Credentials {
    /// Login name.
    pub user: Vec<u8>,
    /// Password.
    pub password: Password,
}

/// What the session has to do.
pub enum Event {
    /// Check the credentials and take the mailbox: [`Pop3::logged_in`] or [`Pop3::login_failed`].
    Login(Credentials),
    /// Open the message at this position: [`Pop3::opened`] or [`Pop3::refuse`].
    Open(usize, Fetch),
    /// The next block of the open message: [`Pop3::content`], or [`Pop3::content_end`] behind its last octet.
    Content,
    /// Open the ledger from this sequence number on: [`Pop3::ledger_opened`] or [`Pop3::refuse`].
    Ledger(u64),
    /// List the ledgers of other nodes: [`Pop3::origins`] or [`Pop3::refuse`].
    Origins,
    /// Open the ledger of another node from this sequence number on: [`Pop3::ledger_opened`] or [`Pop3::refuse`].
    Origin(NodeKey, u64),
    /// The next ledger entries: [`Pop3::entries`], with none at the end.
    Entries,
    /// QUIT after a login: remove the messages at these positions for good (there may be none), give the mailbox
    /// back, then [`Pop3::updated`].
    Update(Vec<usize>),
}

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginFailure {
    /// Name or password; which of them is not told.
    Wrong,
    /// Another session holds the mailbox.
    InUse,
    /// Too many logins wait, or storage cannot be read now.
    Busy,
    /// A person has to look at this mailbox.
    Damaged,
}

/// Why the connection must be dropped without another octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pop3Error {
    /// Clear text behind STLS (RFC 2595 §4; CVE-2011-0411).
    #[error("data in clear behind STLS")]
    DataAfterStls,
    /// A message or the session gave other octets than announced.
    #[error("a message is not as long as its receipt says")]
    WrongLength,
    /// The session asked for a step before it answered an event.
    #[error("an event was not answered")]
    Unanswered,
}

/// The server's side of one connection.
pub struct Pop3 {
    input: Input,
    output: Vec<u8>,
    tls: Tls,
    state: State,
    doing: Doing,
    mistakes: u32,
    failed_logins: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    /// In clear; STLS is possible.
    Clear,
    /// STLS was accepted, the proof is taken when the output is out.
    Starting,
    /// Everything is encrypted.
    On,
}

enum State {
    Authorization {
        user: Option<Vec<u8>>,
    },
    /// AUTH PLAIN was answered with a continuation.
    Response,
    Transaction(Messages),
    /// Nothing more is read.
    Ended,
}

/// What stands between one command and the next.
enum Doing {
    /// Nothing: the next command may be read.
    Nothing,
    /// A list is sent from this position on.
    Listing(Column, usize),
    /// A message is wanted.
    Opening(Item, Fetch),
    /// A message is sent.
    Sending(Content),
    /// The ledger is wanted.
    OpeningLedger,
    /// The ledger is sent.
    Ledger,
    /// The session checks a login or removes messages.
    Waiting,
    /// It went wrong.
    Broken(Pop3Error),
}

impl Pop3 {
    /// A new connection; `tls` says whether it is encrypted already. The greeting is the first thing sent.
    #[must_use]
    pub fn new(hostname: &str, tls: bool) -> Self {
        let mut machine = Self {
            input: Input::default(),
            output: Vec::new(),
            tls: if tls { Tls::On } else { Tls::Clear },
            state: State::Authorization { user: None },
            doing: Doing::Nothing,
            mistakes: 0,
            failed_logins: 0,
        };
        machine.ok(format!("{hostname} Postkeep POP3 ready"));
        machine
    }

    /// Whether no command is being worked on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Nothing)
    }

    /// The connection is encrypted now; everything said before is forgotten (RFC 2595 §4).
    pub fn tls_started(&mut self) {
        self.tls = Tls::On;
        self.state = State::Authorization { user: None };
    }

    /// The credentials are right and the mailbox is held.
    pub fn logged_in(&mut self, listing: Box<dyn Listing>) {
        let messages = Messages::new(listing);
        let (count, octets) = messages.left();
        self.state = State::Transaction(messages);
        self.doing = Doing::Nothing;
        self.ok(format!("{count} messages, {octets} octets"));
    }

    /// The login is refused.
    pub fn login_failed(&mut self, failure: LoginFailure) {
        self.state = State::Authorization { user: None };
        self.doing = Doing::Nothing;
        let (code, text) = match failure {
            LoginFailure::Wrong => (Code::Auth, "wrong name or password"),
            LoginFailure::InUse => (Code::InUse, "another session holds this mailbox; try again later"),
            LoginFailure::Busy => (Code::SysTemp, "cannot check logins now; try again later"),
            LoginFailure::Damaged => (Code::SysPerm, "this mailbox needs its administrator"),
        };
        self.err(Some(code), text);
        self.failed_logins += u32::from(failure == LoginFailure::Wrong);
        if self.failed_logins >= MAX_LOGINS {
            self.state = State::Ended;
        }
    }

    /// The message is open: its first line goes out.
    pub fn opened(&mut self) {
        if let Doing::Opening(item, fetch) = std::mem::replace(&mut self.doing, Doing::Nothing) {
            self.ok(Content::opening(fetch, &item));
            self.doing = Doing::Sending(Content::new(fetch, &item));
        }
    }

    /// The message or the ledger cannot be had; `code` says whether waiting helps.
    pub fn refuse(&mut self, code: Code, text: &str) {
        self.doing = Doing::Nothing;
        self.err(Some(code), text);
    }

    /// The next octets of the open message. `false`: no more are wanted, the answer is complete.
    pub fn content(&mut self, block: &[u8]) -> bool {
        let Doing::Sending(content) = &mut self.doing else { return false };
        match content.push(block, &mut self.output) {
            Ok(true) => true,
            Ok(false) => {
                self.content_end();
                false
            }
            Err(_) => {
                self.doing = Doing::Broken(Pop3Error::WrongLength);
                false
            }
        }
    }

    /// The open message has no more octets, and all of them were genuine.
    pub fn content_end(&mut self) {
        if let Doing::Sending(content) = std::mem::replace(&mut self.doing, Doing::Nothing)
            && content.finish(&mut self.output).is_err()
        {
            self.doing = Doing::Broken(Pop3Error::WrongLength);
        }
    }

    /// The ledger is open.
    pub fn ledger_opened(&mut self, node: &NodeKey) {
        self.ok(format!("node={} entries follow", data_encoding::HEXLOWER.encode(&node.0)));
        self.doing = Doing::Ledger;
    }

    /// The nodes whose ledgers are kept here, with how many entries each has.
    pub fn origins(&mut self, origins: &[(NodeKey, u64)]) {
        self.doing = Doing::Nothing;
        self.ok("ledgers of other nodes follow");
        for (node, entries) in origins {
            let line = format!("{} {entries}\r\n", data_encoding::HEXLOWER.encode(&node.0));
            self.output.extend_from_slice(line.as_bytes());
        }
        self.output.extend_from_slice(b".\r\n");
    }

    /// The next entries; none at the end.
    pub fn entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.output.extend_from_slice(BASE64.encode(&entry.encode()).as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
        if entries.is_empty() {
            self.output.extend_from_slice(b".\r\n");
            self.doing = Doing::Nothing;
        }
    }

    /// The end of UPDATE: all marked messages are removed, or none.
    pub fn updated(&mut self, removed: bool) {
        self.doing = Doing::Nothing;
        self.state = State::Ended;
        if removed {
            self.ok("bye");
        } else {
            self.err(Some(Code::SysTemp), "nothing removed; try again later");
        }
    }

    fn reply(&mut self, reply: &Reply) {
        self.output.extend_from_slice(&reply.to_line());
    }

    fn ok(&mut self, text: impl Into<String>) {
        self.reply(&Reply::Ok(text.into()));
    }

    fn err(&mut self, code: Option<Code>, text: &str) {
        self.reply(&Reply::Err(code, text.into()));
    }

    /// An answer after which the connection is closed.
    fn end(&mut self, text: &str) {
        self.err(None, text);
        self.state = State::Ended;
    }

    fn mistake(&mut self, text: &str) {
        self.mistakes += 1;
        if self.mistakes > MAX_MISTAKES {
            self.end("too many wrong commands");
        } else {
            self.err(None, text);
        }
    }

    /// Works on what is being done; `None` when the next command may be read.
    fn go_on(&mut self) -> Result<Option<Event>, Pop3Error> {
        match &self.doing {
            Doing::Sending(_) => Ok(Some(Event::Content)),
            Doing::Ledger => Ok(Some(Event::Entries)),
            &Doing::Listing(column, from) => {
                let State::Transaction(messages) = &self.state else { return Ok(None) };
                self.doing = match messages.lines(column, from, &mut self.output) {
                    Some(next) => Doing::Listing(column, next),
                    None => Doing::Nothing,
                };
                if self.is_idle() {
                    self.output.extend_from_slice(b".\r\n");
                }
                Ok(None)
            }
            Doing::Opening(..) | Doing::OpeningLedger | Doing::Waiting => Err(Pop3Error::Unanswered),
            Doing::Broken(error) => Err(*error),
            Doing::Nothing => Ok(None),
        }
    }

    /// Reads one line and acts on it. `None`: no whole line is there.
    fn line(&mut self) -> Result<Option<Option<Event>>, Pop3Error> {
        // A TLS handshake or HTTP on a port for POP3: not a client that answers would help (ALPACA).
        if self.tls == Tls::Clear && self.input.bytes().first() == Some(&0x16) {
            self.state = State::Ended;
            return Ok(Some(None));
        }
        let line = match self.input.line(MAX_LINE) {
            Ok(Some(line)) => Zeroizing::new(line),
            Ok(None) => return Ok(None),
            Err(error) => {
                self.end(&error.to_string());
                return Ok(Some(None));
            }
        };
        if matches!(self.state, State::Response) {
            return Ok(Some(self.response(&line)));
        }
        match Command::parse(&line) {
            Ok(command) => self.command(command).map(Some),
            Err(CommandError::Character) => {
                self.end("invalid character");
                Ok(Some(None))
            }
            Err(_) if line.ends_with(b"HTTP/1.1") || line.ends_with(b"HTTP/1.0") => {
                self.end("this is POP3");
                Ok(Some(None))
            }
            Err(error) => {
                self.mistake(&error.to_string());
                Ok(Some(None))
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<Option<Event>, Pop3Error> {
        match command {
            Command::Capa => self.capa(),
            Command::Quit => return Ok(self.quit()),
            Command::Stls => return self.stls().map(|()| None),
            other => {
                return Ok(match self.state {
                    State::Transaction(_) => self.transaction(other),
                    _ => self.authorization(other),
                });
            }
        }
        Ok(None)
    }

    fn capa(&mut self) {
        self.ok("capabilities follow");
        let mut lines = vec!["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8 USER"];
        match (self.tls, &self.state) {
            (Tls::On, _) => lines.extend(["USER", "SASL PLAIN"]),
            (_, State::Transaction(_)) => {}
            _ => lines.push("STLS"),
        }
        lines.extend(["EXPIRE NEVER", "XLEDGER", "XORIGIN", "XRETR", "IMPLEMENTATION Postkeep", "."]);
        for line in lines {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    fn stls(&mut self) -> Result<(), Pop3Error> {
        if self.tls != Tls::Clear || !matches!(self.state, State::Authorization { .. }) {
            self.mistake("TLS is on already");
            return Ok(());
        }
        if !self.input.is_empty() {
            return Err(Pop3Error::DataAfterStls);
        }
        self.ok("begin TLS");
        self.tls = Tls::Starting;
        Ok(())
    }

    fn quit(&mut self) -> Option<Event> {
        if let State::Transaction(messages) = &self.state {
            self.doing = Doing::Waiting;
            return Some(Event::Update(messages.marked()));
        }
        self.state = State::Ended;
        self.ok("bye");
        None
    }

    fn authorization(&mut self, command: Command) -> Option<Event> {
        let clear = self.tls != Tls::On;
        match command {
            Command::Utf8 => self.ok("UTF8 on"),
            Command::User(_) | Command::Pass(_) | Command::Auth(_) if clear => {
                // RFC 2595 §2.1; what was sent is not looked at.
                self.mistake("not without TLS: send STLS first");
            }
            Command::User(user) => {
                // Every name is answered alike; only PASS decides.
                self.state = State::Authorization { user: Some(user) };
                self.ok("send PASS");
            }
            Command::Pass(password) => {
                if let State::Authorization { user } = &mut self.state {
                    return match user.take() {
                        Some(user) => self.login(Some(Credentials { user, password })),
                        None => {
                            self.mistake("send USER first");
                            None
                        }
                    };
                }
            }
            Command::Auth(None) => {
                self.ok("mechanisms follow");
                self.output.extend_from_slice(b"PLAIN\r\n.\r\n");
            }
            Command::Auth(Some((mechanism, initial))) if mechanism == "PLAIN" => match initial {
                Some(response) => return self.login(sasl::plain(response.expose())),
                None => {
                    self.state = State::Response;
                    self.reply(&Reply::Continue(String::new()));
                }
            },
            Command::Auth(_) | Command::Apop => self.mistake("this way to log in is not offered"),
            _ => self.mistake("log in first"),
        }
        None
    }

    /// The line after `+ ` (RFC 5034 §4).
    fn response(&mut self, line: &[u8]) -> Option<Event> {
        self.state = State::Authorization { user: None };
        if line == b"*" {
            self.err(None, "login cancelled");
            return None;
        }
        self.login(sasl::plain(line))
    }

    fn login(&mut self, credentials: Option<Credentials>) -> Option<Event> {
        match credentials {
            Some(credentials) if !credentials.password.expose().is_empty() => {
                self.doing = Doing::Waiting;
                Some(Event::Login(credentials))
            }
            // No mailbox has an empty password: nothing to compute, and nothing is told by not doing so.
            Some(_) => {
                self.login_failed(LoginFailure::Wrong);
                None
            }
            None => {
                self.mistake("not a PLAIN response");
                None
            }
        }
    }

    fn transaction(&mut self, command: Command) -> Option<Event> {
        let State::Transaction(messages) = &mut self.state else { return None };
        match command {
            Command::Noop => self.ok(""),
            Command::Stat => {
                let (count, octets) = messages.left();
                self.ok(format!("{count} {octets}"));
            }
            Command::Rset => {
                messages.reset();
                let (count, octets) = messages.left();
                self.ok(format!("{count} messages, {octets} octets"));
            }
            Command::Dele(number) => {
                if messages.mark(number) {
                    self.ok("marked");
                } else {
                    self.no_such_message();
                }
            }
            Command::List(number) => self.list(Column::Sizes, number),
            Command::Uidl(number) => self.list(Column::Names, number),
            Command::Retr(number) => return self.fetch(number, Fetch::Whole),
            Command::Top(number, lines) => return self.fetch(number, Fetch::Top(lines)),
            Command::Xretr(number) => return self.fetch(number, Fetch::Counted),
            Command::Xledger(from) => {
                self.doing = Doing::OpeningLedger;
                return Some(Event::Ledger(from.unwrap_or(0)));
            }
            Command::Xorigin(wanted) => {
                self.doing = Doing::OpeningLedger;
                return Some(wanted.map_or(Event::Origins, |(node, from)| Event::Origin(node, from)));
            }
            _ => self.mistake("not after login"),
        }
        None
    }

    fn list(&mut self, column: Column, number: Option<u32>) {
        let State::Transaction(messages) = &self.state else { return };
        match number.map(|n| messages.get(n)) {
            None => {
                let (count, octets) = messages.left();
                self.ok(format!("{count} messages, {octets} octets"));
                self.doing = Doing::Listing(column, 0);
            }
            Some(Some((position, item))) => self.ok(line(column, position, &item).trim_end()),
            Some(None) => self.no_such_message(),
        }
    }

    fn fetch(&mut self, number: u32, fetch: Fetch) -> Option<Event> {
        let State::Transaction(messages) = &self.state else { return None };
        let Some((position, item)) = messages.get(number) else {
            self.no_such_message();
            return None;
        };
        self.doing = Doing::Opening(item, fetch);
        Some(Event::Open(position, fetch))
    }

    /// Not counted as a mistake: a client may ask for what another one took.
    fn no_such_message(&mut self) {
        self.err(None, "no such message");
    }
}

impl Machine for Pop3 {
    type Event = Event;
    type Error = Pop3Error;

    fn input(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    fn next(&mut self) -> Result<Step<Event>, Pop3Error> {
        loop {
            if let Doing::Broken(error) = &self.doing {
                // Before any output: it might look like the end of a message.
                return Err(*error);
            }
            if !self.output.is_empty() {
                return Ok(Step::Send(std::mem::take(&mut self.output)));
            }
            if matches!(self.doing, Doing::Nothing) {
                if matches!(self.state, State::Ended) {
                    return Ok(Step::Close);
                }
                if self.tls == Tls::Starting {
                    let proof = self.input.drained().map_err(|_| Pop3Error::DataAfterStls)?;
                    return Ok(Step::StartTls(proof));
                }
                match self.line()? {
                    None => return Ok(Step::NeedInput),
                    Some(Some(event)) => return Ok(Step::Event(event)),
                    Some(None) => {}
                }
            } else if let Some(event) = self.go_on()? {
                return Ok(Step::Event(event));
            }
        }
    }
}
