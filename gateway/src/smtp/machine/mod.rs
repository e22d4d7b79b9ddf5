//! The SMTP server without a socket (RFC 5321, RFC 3030, RFC 3207): octets in, replies and events out.
//!
//! A state is named for what it waits for. Invariants: `250` for a message is written by [`Smtp::accepted`] and
//! nowhere else; what follows STARTTLS in clear is never read; every event that wants an answer stops the machine
//! until it has one, so pipelined commands run strictly one after the other. What it does not do: lookups, files,
//! clocks, TLS.

mod command;
mod receive;

use super::{
    accepted::{Accepted, Trouble},
    policy::{self, Found},
    replies::{self, Reply, Then},
    transaction::{Recipient, Transaction},
};
use postkeep_shared::{
    mail::MailboxId,
    wire::{Input, Machine, Step},
};
use receive::Way;
use std::{collections::VecDeque, convert::Infallible};

/// Longest reply line with its CRLF (RFC 5321 §4.5.3.1.5).
const MAX_REPLY_LINE: usize = 512;
/// Recipients that do not exist before the session ends: nobody may try addresses out.
const MAX_UNKNOWN: u32 = 10;

/// What the machine has to know of its surroundings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name in greetings.
    pub hostname: String,
    /// Domains mail is accepted for.
    pub domains: Vec<String>,
    /// Octets, announced in SIZE.
    pub max_message_size: u64,
    /// Whether STARTTLS is announced.
    pub offer_tls: bool,
    /// Whether MAIL in clear is put off.
    pub require_tls: bool,
    /// The connection is a TLS one from its first octet.
    pub tls: bool,
}

/// What the session has to do or decide. All but [`Event::Discard`] and [`Event::Refused`] want an answer.
#[derive(Debug)]
pub enum Event {
    /// MAIL came, with this SIZE where declared: is there room? Answer: [`Smtp::room`].
    Room(Option<u64>),
    /// Look the mailbox up. Answer: [`Smtp::found`].
    Lookup(MailboxId),
    /// Begin a sealed file for every recipient of [`Smtp::transaction`]. Answer: [`Smtp::begun`].
    Begin,
    /// Octets of the message, at most 64 KiB. Answer: [`Smtp::written`].
    Content(Vec<u8>),
    /// The message is whole: bring it to stable storage. Answer: [`Smtp::accepted`] or [`Smtp::failed`].
    Commit,
    /// What was begun will not be completed: remove it.
    Discard,
    /// This reply refused something: for the log.
    Refused {
        /// The reply.
        reply: Reply,
        /// The path or message concerned, as received.
        about: String,
    },
}

/// The server side of one SMTP connection.
pub struct Smtp {
    config: Config,
    input: Input,
    steps: VecDeque<Step<Event>>,
    state: State,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    /// MAIL was put off with a 4xx, so what is pipelined behind it is put off too.
    deferred: bool,
    tls: bool,
    first_line: bool,
    bad: u32,
    idle_talk: u32,
    unknown: u32,
    messages: u64,
    last: Option<Reply>,
}

/// What the machine waits for.
enum State {
    /// Its first turn.
    Greeting,
    /// A command line.
    Command,
    /// The answer to [`Event::Room`].
    Room,
    /// The answer to [`Event::Lookup`].
    Lookup { mailbox: MailboxId, path: String },
    /// The answer to [`Event::Begin`].
    Begin(Way),
    /// Octets of the message.
    Content(Way),
    /// The answer to [`Event::Content`]; `ended` when it was the last block of DATA or of a chunk.
    Written { way: Way, ended: bool },
    /// The answer to [`Event::Commit`].
    Commit,
    /// The rest of a chunk nobody wants, then this reply.
    Skip { left: u64, reply: Reply },
    /// The TLS handshake: [`Smtp::tls_started`].
    Tls,
    /// Nothing.
    Closed,
}

/// How the client introduced itself.
struct Hello {
    name: String,
    extended: bool,
}

impl Smtp {
    /// A new connection. It greets first.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            tls: config.tls,
            config,
            input: Input::default(),
            steps: VecDeque::new(),
            state: State::Greeting,
            hello: None,
            transaction: None,
            deferred: false,
            first_line: true,
            bad: 0,
            idle_talk: 0,
            unknown: 0,
            messages: 0,
            last: None,
        }
    }

    /// The transaction under way.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Whether it waits for a command: nothing is lost by ending the session now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Greeting | State::Command)
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The reply given last.
    #[must_use]
    pub fn last_reply(&self) -> Option<Reply> {
        self.last
    }

    /// HELO or EHLO argument, as received.
    #[must_use]
    pub fn helo(&self) -> Option<&str> {
        self.hello.as_ref().map(|hello| hello.name.as_str())
    }

    /// Answers [`Event::Room`].
    pub fn room(&mut self, room: Result<(), Trouble>) {
        if !matches!(self.state, State::Room) {
            return;
        }
        self.state = State::Command;
        match room {
            Ok(()) => self.answer(replies::SENDER),
            Err(trouble) => {
                let reply = if trouble == Trouble::Stopped { replies::STOPPED } else { refusal_for(trouble) };
                self.defer_mail(reply);
            }
        }
    }

    /// Answers [`Event::Lookup`].
    pub fn found(&mut self, found: Found) {
        let State::Lookup { mailbox, path } = std::mem::replace(&mut self.state, State::Command) else { return };
        match policy::refusal(found) {
            None => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.recipients.push(Recipient { mailbox, path });
                }
                self.answer(replies::RECIPIENT);
            }
            Some(reply) => self.refuse_recipient(reply, path),
        }
    }

    /// Answers [`Event::Begin`].
    pub fn begun(&mut self, begun: Result<(), Trouble>) {
        let State::Begin(way) = std::mem::replace(&mut self.state, State::Command) else { return };
        if let Err(trouble) = begun {
            self.give_up(refusal_for(trouble));
        }
        match way {
            Way::Data(_) if begun.is_err() => self.end_of_message(),
            Way::Data(_) => {
                self.answer(replies::START);
                self.state = State::Content(way);
            }
            Way::Chunk { .. } => self.state = State::Content(way),
        }
    }

    /// Answers [`Event::Content`]. After an error the rest of the message is read and not kept.
    pub fn written(&mut self, written: Result<(), Trouble>) {
        let State::Written { way, ended } = std::mem::replace(&mut self.state, State::Command) else { return };
        if let Err(trouble) = written {
            self.give_up(refusal_for(trouble));
        }
        if ended {
            self.end_of(way);
        } else {
            self.state = State::Content(way);
        }
    }

    /// Answers [`Event::Commit`]: the message is on stable storage for every recipient. The only way to its `250`.
    pub fn accepted(&mut self, accepted: &[Accepted]) {
        if !matches!(self.state, State::Commit) {
            return;
        }
        let Some(transaction) = self.transaction.take() else { return };
        self.state = State::Command;
        if accepted.is_empty() || accepted.len() != transaction.recipients.len() {
            // Stored, but not for everybody who was promised: the sender must keep it.
            return self.refused(replies::TROUBLE, "message".into());
        }
        self.messages += 1;
        (self.bad, self.idle_talk) = (0, 0);
        self.last = Some(replies::ACCEPTED);
        self.send(replies::ACCEPTED.lines(&groups(accepted)));
    }

    /// Answers [`Event::Commit`]: nothing was stored.
    pub fn failed(&mut self, trouble: Trouble) {
        if matches!(self.state, State::Commit) {
            self.transaction = None;
            self.state = State::Command;
            self.refused(refusal_for(trouble), "message".into());
        }
    }

    /// TLS is up: everything that was said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.first_line = true;
        self.reset();
        self.hello = None;
        self.state = State::Command;
    }

    /// Ends the session from outside with one last reply: shutdown, a deadline.
    pub fn stop(&mut self, reply: Reply) {
        if !matches!(self.state, State::Closed) {
            self.reset();
            self.answer(Reply { then: Then::Close, ..reply });
        }
    }

    fn send(&mut self, octets: Vec<u8>) {
        self.steps.push_back(Step::Send(octets));
    }

    fn event(&mut self, event: Event) {
        self.steps.push_back(Step::Event(event));
    }

    fn answer(&mut self, reply: Reply) {
        self.answer_with(reply, reply.line());
    }

    fn answer_with(&mut self, reply: Reply, octets: Vec<u8>) {
        self.last = Some(reply);
        self.send(octets);
        if reply.then == Then::Close {
            self.close();
        }
    }

    fn refused(&mut self, reply: Reply, about: String) {
        self.event(Event::Refused { reply, about });
        self.answer(reply);
    }

    fn close(&mut self) {
        self.steps.push_back(Step::Close);
        self.state = State::Closed;
    }

    /// A reply to a command that should not have come; too many of them end the session.
    fn answer_bad(&mut self, reply: Reply) {
        const MAX_BAD: u32 = 20;
        self.bad += 1;
        if self.bad > MAX_BAD {
            return self.stop(replies::TOO_MANY_ERRORS);
        }
        self.answer(reply);
    }

    /// Forgets the transaction.
    fn reset(&mut self) {
        if self.transaction.take().is_some_and(|t| t.content.is_some()) {
            self.event(Event::Discard);
        }
        self.deferred = false;
    }

    fn defer_mail(&mut self, reply: Reply) {
        let from = self.transaction.take().map(|t| t.mail.from).unwrap_or_default();
        self.deferred = reply.is_temporary();
        self.refused(reply, from);
    }

    fn refuse_recipient(&mut self, reply: Reply, path: String) {
        if let Some(transaction) = &mut self.transaction {
            transaction.deferred |= reply.is_temporary();
        }
        self.unknown += u32::from(!reply.is_temporary());
        if self.unknown >= MAX_UNKNOWN {
            self.event(Event::Refused { reply, about: path });
            return self.stop(replies::TOO_MANY_ERRORS);
        }
        self.refused(reply, path);
    }
}

impl Machine for Smtp {
    type Event = Event;
    type Error = Infallible;

    fn input(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    fn next(&mut self) -> Result<Step<Event>, Infallible> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(step);
            }
            let moved = match self.state {
                State::Greeting => self.greet(),
                State::Command => self.command(),
                State::Content(_) => self.content(),
                State::Skip { .. } => self.skip(),
                State::Closed => return Ok(Step::Close),
                // The session owes an answer.
                _ => false,
            };
            if !moved {
                return Ok(Step::NeedInput);
            }
        }
    }
}

/// The reply for trouble with a message.
fn refusal_for(trouble: Trouble) -> Reply {
    match trouble {
        Trouble::Full => replies::FULL,
        Trouble::Stopped | Trouble::Other => replies::TROUBLE,
    }
}

/// The text of the `250`: a group per mailbox, as many on a line as RFC 5321 §4.5.3.1.5 allows.
fn groups(accepted: &[Accepted]) -> Vec<String> {
    let frame = "250 2.6.0  accepted\r\n".len();
    let mut lines: Vec<String> = Vec::new();
    for group in accepted {
        match lines.last_mut() {
            Some(line) if line.len() + "; ;".len() + group.text().len() + frame <= MAX_REPLY_LINE => {
                line.push_str("; ");
                line.push_str(group.text());
            }
            Some(line) => {
                line.push(';');
                lines.push(group.text().to_owned());
            }
            None => lines.push(group.text().to_owned()),
        }
    }
    if let Some(line) = lines.last_mut() {
        line.push_str(" accepted");
    }
    lines
}

#[cfg(test)]
mod tests;
