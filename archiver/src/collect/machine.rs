//! The POP3 client without its socket (RFC 1939, 2449, 2595, 5034's codes by RFC 3206; our XLEDGER and XRETR).
//!
//! Invariants: no credential can be sent before TLS, because the machine reports [`Event::Ready`] only inside it; TLS
//! begins only with an empty buffer (RFC 2595 §4, "NO STARTTLS" response injection); capabilities learned in clear are
//! forgotten; a deletion needs the store's receipt. Commands may be queued; answers come in their order. Limits hold
//! for everything the server can make longer. It does not judge what a message or a ledger holds.

use super::listing::Listed;
use crate::store::StoreReceipt;
use data_encoding::BASE64;
use postkeep_shared::{
    crypt::Password,
    mail::Digest,
    pop3::{Code, Command, Reply, ReplyError},
    receipt::{Entry, EntryError, NodeKey},
    wire::{DotDecoder, Drained, Input, LineError, Machine, NotDrained, Step},
};
use std::collections::VecDeque;

/// Longest line that is taken from a server, banner included.
pub const MAX_LINE: usize = 4096;
/// Most lines of one LIST or UIDL.
pub const MAX_LISTED: usize = 1_000_000;
/// Most ledger entries of one XLEDGER.
pub const MAX_ENTRIES: usize = 20_000_000;
/// Most nodes whose messages were moved to one gateway.
pub const MAX_ORIGINS: usize = 1000;
/// Largest message.
pub const MAX_MESSAGE: u64 = 2 << 30;

const MAX_CAPABILITIES: usize = 256;
/// Content handed out at once.
const BLOCK: usize = 64 * 1024;

/// What the server announced inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Several commands may be sent at once (RFC 2449 §6.6).
    pub pipelining: bool,
    /// The ledger can be read.
    pub xledger: bool,
    /// The ledgers of nodes whose messages were moved there can be read.
    pub xorigin: bool,
    /// Length-prefixed retrieval.
    pub xretr: bool,
}

/// What happened; after each, ask for the next step again unless the event names something else.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "one event lives at a time; a box would cost an allocation per entry")]
pub enum Event {
    /// Greeted, inside TLS, capabilities known: call [`Client::login`].
    Ready(Capabilities),
    /// The mailbox is open: any command may follow.
    LoggedIn,
    /// A command was answered `-ERR`; text made safe for a log.
    Refused(Asked, Option<Code>, String),
    /// STAT: messages and octets.
    Counted(u64, u64),
    /// One line of LIST: number and octets.
    Size(u32, u64),
    /// One line of UIDL: number and name.
    Name(u32, Vec<u8>),
    /// XLEDGER or XORIGIN: whose ledger this is.
    Node(NodeKey),
    /// XORIGIN: a node whose ledger is kept there, and how many entries it has.
    Origin(NodeKey, u64),
    /// XLEDGER or XORIGIN: one entry, its signature not checked.
    Entry(Result<Entry, EntryError>),
    /// A LIST, UIDL or XLEDGER is complete.
    Complete(Asked),
    /// RETR or XRETR begins; XRETR names octets and digest.
    Begins(Option<(u64, Digest)>),
    /// Octets of the message, at most 64 KiB.
    Content(Vec<u8>),
    /// The message is complete.
    Ends,
    /// The message will be removed at QUIT.
    Marked,
    /// QUIT was answered `+OK`: what was marked is gone.
    Quit,
}

/// A command, for answers that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// USER or PASS.
    Login,
    /// STAT.
    Stat,
    /// LIST.
    List,
    /// UIDL.
    Uidl,
    /// XLEDGER, or XORIGIN with a node.
    Ledger,
    /// XORIGIN.
    Origins,
    /// RETR or XRETR.
    Retrieve,
    /// DELE.
    Delete,
    /// QUIT.
    Quit,
}

/// Why the session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A line longer than [`MAX_LINE`], or one with a bare CR or LF.
    #[error("the server sent an impossible line: {0}")]
    Line(#[from] LineError),
    /// Neither `+OK` nor `-ERR`.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The greeting was `-ERR`.
    #[error("the server turned the connection away: {0}")]
    Turned(String),
    /// No STLS announced, or STLS refused.
    #[error("the server does not offer TLS (STLS) on this port; no password is sent in clear, use port 995")]
    NoTls,
    /// Something followed the answer to STLS in clear.
    #[error("the server sent data between its answer to STLS and TLS: somebody may be tampering with the connection")]
    Injected,
    /// An answer without a question.
    #[error("the server sent something that was not asked for")]
    Unasked,
    /// A line of a list, or an `+OK`, that is not what the command's definition says.
    #[error("the server's answer to {0} cannot be read")]
    Malformed(&'static str),
    /// More than the limit.
    #[error("the server's answer to {0} is longer than any honest one")]
    Endless(&'static str),
    /// More octets than LIST announced, plus what is allowed for inexact servers.
    #[error("a message is longer than the server announced")]
    TooLong,
    /// DELE for another message than the store's receipt is for: a mistake in this program.
    #[error("a deletion without a fitting receipt was stopped")]
    WrongReceipt,
}

impl From<NotDrained> for ClientError {
    fn from(_: NotDrained) -> Self {
        Self::Injected
    }
}

/// What the next octets answer.
enum Awaited {
    Greeting,
    ClearCapa,
    Stls,
    Capa,
    User(Password),
    Pass,
    Stat,
    List,
    Uidl,
    Ledger,
    Origins,
    Retrieve { limit: u64, prefixed: bool },
    Delete,
    Quit,
}

/// An answer of more than one line that is being read.
enum Body {
    None,
    Capa { clear: bool, stls: bool, found: Capabilities, lines: usize },
    Lines { what: Asked, lines: usize },
    Dotted { decoder: DotDecoder, left: u64 },
    Counted { left: u64 },
}

/// A POP3 client.
pub struct Client {
    input: Input,
    output: VecDeque<Vec<u8>>,
    awaited: VecDeque<Awaited>,
    body: Body,
    secure: bool,
    /// TLS is being negotiated: nothing may be read until [`Self::secured`].
    handshake: bool,
    closing: bool,
}

impl Client {
    /// A client at the start of a connection; `secure` tells whether TLS is there already.
    #[must_use]
    pub fn new(secure: bool) -> Self {
        Self {
            input: Input::default(),
            output: VecDeque::new(),
            awaited: VecDeque::from([Awaited::Greeting]),
            body: Body::None,
            secure,
            handshake: false,
            closing: false,
        }
    }

    /// TLS is there now: the answer to [`Step::StartTls`].
    pub fn secured(&mut self) {
        self.handshake = false;
        self.secure = true;
        self.ask(&Command::Capa, Awaited::Capa);
    }

    /// Logs in: the answer to [`Event::Ready`].
    pub fn login(&mut self, mailbox: &str, password: Password) {
        self.ask(&Command::User(mailbox.as_bytes().to_vec()), Awaited::User(password));
    }

    /// STAT.
    pub fn stat(&mut self) {
        self.ask(&Command::Stat, Awaited::Stat);
    }

    /// LIST.
    pub fn list(&mut self) {
        self.ask(&Command::List(None), Awaited::List);
    }

    /// UIDL.
    pub fn uidl(&mut self) {
        self.ask(&Command::Uidl(None), Awaited::Uidl);
    }

    /// XLEDGER from this entry on.
    pub fn ledger(&mut self, from: u64) {
        self.ask(&Command::Xledger(Some(from)), Awaited::Ledger);
    }

    /// XORIGIN: which nodes' ledgers are kept there.
    pub fn origins(&mut self) {
        self.ask(&Command::Xorigin(None), Awaited::Origins);
    }

    /// XORIGIN of one node from this entry on.
    pub fn origin(&mut self, node: NodeKey, from: u64) {
        self.ask(&Command::Xorigin(Some((node, from))), Awaited::Ledger);
    }

    /// RETR, or XRETR where `prefixed`. More than `limit` octets end the session.
    pub fn retrieve(&mut self, number: u32, limit: u64, prefixed: bool) {
        let command = if prefixed { Command::Xretr(number) } else { Command::Retr(number) };
        self.ask(&command, Awaited::Retrieve { limit: limit.min(MAX_MESSAGE), prefixed });
    }

    /// DELE of a message that the store has proved to hold. The receipt is used up.
    ///
    /// # Errors
    /// [`ClientError::WrongReceipt`] when it is for another message.
    pub fn delete(&mut self, message: &Listed, receipt: StoreReceipt) -> Result<(), ClientError> {
        if message.uidl() != receipt.uidl().as_bytes() || !message.is_distinct() {
            return Err(ClientError::WrongReceipt);
        }
        self.ask(&Command::Dele(message.number()), Awaited::Delete);
        Ok(())
    }

    /// QUIT: what was marked is removed by the server.
    pub fn quit(&mut self) {
        self.ask(&Command::Quit, Awaited::Quit);
    }

    fn ask(&mut self, command: &Command, answer: Awaited) {
        self.output.push_back(command.to_line());
        self.awaited.push_back(answer);
    }

    fn advance(&mut self) -> Result<Option<Step<Event>>, ClientError> {
        match std::mem::replace(&mut self.body, Body::None) {
            Body::None => self.status(),
            Body::Capa { clear, stls, found, lines } => self.capability(clear, stls, found, lines),
            Body::Lines { what, lines } => self.listed(what, lines),
            Body::Dotted { decoder, left } => self.dotted(decoder, left),
            Body::Counted { left } => Ok(self.counted(left)),
        }
    }

    /// Reads the status line of the oldest open question.
    fn status(&mut self) -> Result<Option<Step<Event>>, ClientError> {
        if self.awaited.is_empty() {
            return if self.input.is_empty() { Ok(None) } else { Err(ClientError::Unasked) };
        }
        let Some(line) = self.input.line(MAX_LINE)? else { return Ok(None) };
        let reply = Reply::parse(&line)?;
        let Some(awaited) = self.awaited.pop_front() else { return Err(ClientError::Unasked) };
        let text = match reply {
            Reply::Ok(text) => text,
            Reply::Err(code, text) => return self.refused(awaited, code, &text),
            Reply::Continue(_) => return Err(ReplyError.into()),
        };
        self.answered(awaited, &text)
    }

    fn refused(
        &mut self,
        awaited: Awaited,
        code: Option<Code>,
        text: &str,
    ) -> Result<Option<Step<Event>>, ClientError> {
        let asked = match awaited {
            Awaited::Greeting => return Err(ClientError::Turned(shown(text))),
            Awaited::ClearCapa | Awaited::Stls => return Err(ClientError::NoTls),
            // A server without CAPA is an old one; it may still serve.
            Awaited::Capa => return Ok(event(Event::Ready(Capabilities::default()))),
            Awaited::User(_) | Awaited::Pass => Asked::Login,
            Awaited::Stat => Asked::Stat,
            Awaited::List => Asked::List,
            Awaited::Uidl => Asked::Uidl,
            Awaited::Ledger => Asked::Ledger,
            Awaited::Origins => Asked::Origins,
            Awaited::Retrieve { .. } => Asked::Retrieve,
            Awaited::Delete => Asked::Delete,
            Awaited::Quit => {
                self.closing = true;
                Asked::Quit
            }
        };
        Ok(event(Event::Refused(asked, code, shown(text))))
    }

    fn answered(&mut self, awaited: Awaited, text: &str) -> Result<Option<Step<Event>>, ClientError> {
        let lines = |what| Body::Lines { what, lines: 0 };
        let found = Capabilities::default();
        match awaited {
            Awaited::Greeting => {
                let answer = if self.secure { Awaited::Capa } else { Awaited::ClearCapa };
                self.ask(&Command::Capa, answer);
            }
            Awaited::ClearCapa => self.body = Body::Capa { clear: true, stls: false, found, lines: 0 },
            Awaited::Capa => self.body = Body::Capa { clear: false, stls: false, found, lines: 0 },
            Awaited::Stls => {
                let proof: Drained = self.input.drained()?;
                self.handshake = true;
                return Ok(Some(Step::StartTls(proof)));
            }
            Awaited::User(password) => self.ask(&Command::Pass(password), Awaited::Pass),
            Awaited::Pass => return Ok(event(Event::LoggedIn)),
            Awaited::Stat => return two_numbers(text).map(|(n, o)| event(Event::Counted(n, o))),
            Awaited::List => self.body = lines(Asked::List),
            Awaited::Uidl => self.body = lines(Asked::Uidl),
            Awaited::Origins => self.body = lines(Asked::Origins),
            Awaited::Ledger => {
                self.body = lines(Asked::Ledger);
                return Ok(event(Event::Node(node(text)?)));
            }
            Awaited::Retrieve { limit, prefixed: false } => {
                self.body = Body::Dotted { decoder: DotDecoder::default(), left: limit };
                return Ok(event(Event::Begins(None)));
            }
            Awaited::Retrieve { limit, prefixed: true } => {
                let (octets, digest) = announced(text)?;
                if octets > limit {
                    return Err(ClientError::TooLong);
                }
                self.body = Body::Counted { left: octets };
                return Ok(event(Event::Begins(Some((octets, digest)))));
            }
            Awaited::Delete => return Ok(event(Event::Marked)),
            Awaited::Quit => {
                self.closing = true;
                return Ok(event(Event::Quit));
            }
        }
        self.advance()
    }

    fn capability(
        &mut self,
        clear: bool,
        mut stls: bool,
        mut found: Capabilities,
        mut lines: usize,
    ) -> Result<Option<Step<Event>>, ClientError> {
        while let Some(line) = self.input.line(MAX_LINE)? {
            if line == b"." {
                if !clear {
                    return Ok(event(Event::Ready(found)));
                }
                if !stls {
                    return Err(ClientError::NoTls);
                }
                self.ask(&Command::Stls, Awaited::Stls);
                return self.advance();
            }
            lines += 1;
            if lines > MAX_CAPABILITIES {
                return Err(ClientError::Endless("CAPA"));
            }
            let word = line.split(|b| *b == b' ').next().unwrap_or_default().to_ascii_uppercase();
            match word.as_slice() {
                b"STLS" => stls = true,
                b"PIPELINING" => found.pipelining = true,
                b"XLEDGER" => found.xledger = true,
                b"XORIGIN" => found.xorigin = true,
                b"XRETR" => found.xretr = true,
                _ => {}
            }
        }
        self.body = Body::Capa { clear, stls, found, lines };
        Ok(None)
    }

    fn listed(&mut self, what: Asked, lines: usize) -> Result<Option<Step<Event>>, ClientError> {
        let Some(line) = self.input.line(MAX_LINE)? else {
            self.body = Body::Lines { what, lines };
            return Ok(None);
        };
        if line == b"." {
            return Ok(event(Event::Complete(what)));
        }
        let (name, limit) = match what {
            Asked::List => ("LIST", MAX_LISTED),
            Asked::Uidl => ("UIDL", MAX_LISTED),
            Asked::Origins => ("XORIGIN", MAX_ORIGINS),
            _ => ("XLEDGER", MAX_ENTRIES),
        };
        if lines >= limit {
            return Err(ClientError::Endless(name));
        }
        self.body = Body::Lines { what, lines: lines + 1 };
        // RFC 1939 §3: a line that begins with the termination octet is stuffed.
        let line = line.strip_prefix(b".").unwrap_or(&line);
        let malformed = || ClientError::Malformed(name);
        if what == Asked::Ledger {
            let octets = BASE64.decode(line).map_err(|_| malformed())?;
            return Ok(event(Event::Entry(Entry::decode(&octets))));
        }
        let at = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        if what == Asked::Origins {
            let node = std::str::from_utf8(line.get(..at).unwrap_or_default()).ok().and_then(Digest::from_hex);
            let entries = self::number(line.get(at + 1..).unwrap_or_default());
            let (node, entries) = node.zip(entries).ok_or_else(malformed)?;
            return Ok(event(Event::Origin(NodeKey(node.0), entries)));
        }
        let number = number(line.get(..at).unwrap_or_default()).and_then(|n| u32::try_from(n).ok());
        let number = number.filter(|n| *n > 0).ok_or_else(malformed)?;
        let rest = line.get(at + 1..).unwrap_or_default();
        if what == Asked::Uidl {
            return Ok(event(Event::Name(number, rest.to_vec())));
        }
        let size = rest.split(|b| *b == b' ').next().and_then(self::number).ok_or_else(malformed)?;
        Ok(event(Event::Size(number, size)))
    }

    fn dotted(&mut self, mut decoder: DotDecoder, left: u64) -> Result<Option<Step<Event>>, ClientError> {
        let input = self.input.bytes();
        if input.is_empty() {
            self.body = Body::Dotted { decoder, left };
            return Ok(None);
        }
        let mut content = Vec::with_capacity(input.len().min(BLOCK));
        let decoded = decoder.decode(input.get(..input.len().min(BLOCK)).unwrap_or_default(), &mut content);
        self.input.consume(decoded.consumed);
        let left = left.checked_sub(content.len() as u64).ok_or(ClientError::TooLong)?;
        if decoded.done {
            if content.is_empty() {
                return Ok(event(Event::Ends));
            }
            self.body = Body::Counted { left: 0 };
        } else {
            self.body = Body::Dotted { decoder, left };
        }
        if content.is_empty() { self.advance() } else { Ok(event(Event::Content(content))) }
    }

    fn counted(&mut self, left: u64) -> Option<Step<Event>> {
        if left == 0 {
            return event(Event::Ends);
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK).min(self.input.len());
        self.body = Body::Counted { left: left - count as u64 };
        if count == 0 {
            return None;
        }
        event(Event::Content(self.input.take(count)))
    }
}

impl Machine for Client {
    type Event = Event;
    type Error = ClientError;

    fn input(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    fn next(&mut self) -> Result<Step<Event>, ClientError> {
        if self.handshake {
            self.input.drained()?;
            return Ok(Step::NeedInput);
        }
        if let Some(line) = self.output.pop_front() {
            return Ok(Step::Send(line));
        }
        if self.closing {
            return Ok(Step::Close);
        }
        match self.advance()? {
            Some(step) => Ok(step),
            // Reading one answer may have made the next question.
            None => Ok(self.output.pop_front().map_or(Step::NeedInput, Step::Send)),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form every caller returns")]
fn event(event: Event) -> Option<Step<Event>> {
    Some(Step::Event(event))
}

/// Text of a server for a log or a terminal: one line, no control characters, at most 200 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn two_numbers(text: &str) -> Result<(u64, u64), ClientError> {
    let mut words = text.split(' ').map(|word| number(word.as_bytes()));
    match (words.next().flatten(), words.next().flatten()) {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => Err(ClientError::Malformed("STAT")),
    }
}

/// `node=<64 hex digits> …`.
fn node(text: &str) -> Result<NodeKey, ClientError> {
    let mut words = text.split(' ');
    let key = words.find_map(|word| word.strip_prefix("node=")).and_then(Digest::from_hex);
    key.map(|key| NodeKey(key.0)).ok_or(ClientError::Malformed("XLEDGER"))
}

/// `<octets> <64 hex digits>`.
fn announced(text: &str) -> Result<(u64, Digest), ClientError> {
    let mut words = text.split(' ');
    let octets = words.next().and_then(|word| number(word.as_bytes()));
    let digest = words.next().and_then(Digest::from_hex);
    octets.zip(digest).ok_or(ClientError::Malformed("XRETR"))
}
