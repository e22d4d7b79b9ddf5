//! Commands: one method each, in the order RFC 5321 §4.1.1 has them.

use super::{Event, Hello, Smtp, State, receive::Way};
use crate::smtp::{
    command::{self, Command, Fault, Mail},
    content::Content,
    policy::{self, Judged},
    replies,
    transaction::{MAX_MAILBOXES, MAX_RCPT, Transaction},
};
use postkeep_shared::wire::{DotDecoder, Step};

/// Longest command line with its CRLF. RFC 5321 §4.5.3.1.4 and the extensions ask for less.
const MAX_LINE: usize = 4096;
/// First octet of a TLS record that holds a ClientHello (RFC 8446 §5.1); no command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// NOOP, RSET, VRFY and HELP between two messages.
const MAX_IDLE_TALK: u32 = 100;

impl Smtp {
    pub(super) fn greet(&mut self) -> bool {
        self.state = State::Command;
        let text = format!("{} ESMTP Postkeep", self.config.hostname);
        self.answer_with(replies::GREETING, replies::GREETING.line_with(&text));
        true
    }

    /// Takes one command line; `false` when none has arrived whole.
    pub(super) fn command(&mut self) -> bool {
        if self.input.bytes().first() == Some(&TLS_HANDSHAKE) {
            self.reset();
            self.close();
            return true;
        }
        match self.input.line(MAX_LINE) {
            Ok(None) => return false,
            Ok(Some(line)) => self.line(&line),
            Err(_) => self.stop(replies::BAD_LINE),
        }
        true
    }

    fn line(&mut self, line: &[u8]) {
        if std::mem::take(&mut self.first_line) && command::is_http(line) {
            return self.stop(replies::NOT_SMTP);
        }
        match command::parse(line) {
            Ok(command) => self.execute(command),
            Err(Fault::Unknown) => self.answer_bad(replies::UNKNOWN),
            Err(Fault::Octets) => self.answer_bad(replies::BAD_OCTETS),
            Err(Fault::Argument) => self.answer_bad(replies::BAD_ARGUMENT),
            Err(Fault::Parameter) => self.answer_bad(replies::UNKNOWN_PARAMETER),
            Err(Fault::Chunk) => self.stop(replies::BAD_CHUNK),
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Helo(name) => self.hello(name, false),
            Command::Ehlo(name) => self.hello(name, true),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Rset => {
                self.reset();
                self.idle_talk(replies::RESET);
            }
            Command::Noop => self.idle_talk(replies::NOTHING),
            Command::Vrfy => self.idle_talk(replies::CANNOT_VERIFY),
            Command::Help => self.idle_talk(replies::HELP),
            Command::Quit => self.stop(replies::BYE),
            Command::StartTls => self.starttls(),
            Command::NotOffered => self.answer_bad(replies::NOT_OFFERED),
        }
    }

    fn idle_talk(&mut self, reply: replies::Reply) {
        self.idle_talk += 1;
        if self.idle_talk > MAX_IDLE_TALK {
            return self.stop(replies::TOO_MUCH_TALK);
        }
        self.answer(reply);
    }

    /// Either one begins anew (RFC 5321 §4.1.4).
    fn hello(&mut self, name: String, extended: bool) {
        self.reset();
        self.hello = Some(Hello { name, extended });
        let mut lines = vec![self.config.hostname.clone()];
        if extended {
            let words = ["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"];
            lines.push(format!("SIZE {}", self.config.max_message_size));
            lines.extend(words.map(str::to_owned));
            if self.config.offer_tls && !self.tls {
                lines.push("STARTTLS".to_owned());
            }
        }
        self.answer_with(replies::HELLO, replies::HELLO.lines(&lines));
    }

    fn mail(&mut self, mail: Mail) {
        let Some(hello) = self.hello.as_ref().filter(|_| self.transaction.is_none()) else {
            return self.answer_bad(replies::SEQUENCE);
        };
        let (size, helo) = (mail.size, hello.name.clone());
        // RFC 3848 and RFC 6531 §4.3 name no TLS variant of plain SMTP.
        let protocol = match (hello.extended, mail.utf8, self.tls) {
            (false, _, _) => "SMTP",
            (true, false, false) => "ESMTP",
            (true, false, true) => "ESMTPS",
            (true, true, false) => "UTF8SMTP",
            (true, true, true) => "UTF8SMTPS",
        };
        let (recipients, content) = (Vec::new(), None);
        let new = Transaction { mail, protocol, helo, recipients, rcpt_commands: 0, deferred: false, content };
        self.transaction = Some(new);
        if self.config.require_tls && !self.tls {
            return self.defer_mail(replies::NEEDS_TLS);
        }
        if size.is_some_and(|size| size > self.config.max_message_size) {
            return self.defer_mail(replies::TOO_BIG);
        }
        self.deferred = false;
        self.state = State::Room;
        self.event(Event::Room(size));
    }

    fn rcpt(&mut self, path: String) {
        let Some(transaction) = self.transaction.as_mut().filter(|t| t.content.is_none()) else {
            return self.out_of_order();
        };
        transaction.rcpt_commands += 1;
        if transaction.rcpt_commands > MAX_RCPT {
            return self.refuse_recipient(replies::TOO_MANY_RECIPIENTS, path);
        }
        match policy::judge(&path, &self.config.domains) {
            Judged::Refused(reply) => self.refuse_recipient(reply, path),
            // Named twice, stored once.
            Judged::Mailbox(id) if transaction.recipients.iter().any(|r| r.mailbox == id) => {
                self.answer(replies::RECIPIENT);
            }
            Judged::Mailbox(_) if transaction.recipients.len() >= MAX_MAILBOXES => {
                self.refuse_recipient(replies::TOO_MANY_RECIPIENTS, path);
            }
            Judged::Mailbox(mailbox) => {
                self.state = State::Lookup { mailbox, path };
                self.event(Event::Lookup(mailbox));
            }
        }
    }

    fn data(&mut self) {
        let Some(transaction) = &mut self.transaction else { return self.out_of_order() };
        if transaction.content.is_some() {
            // RFC 3030 §2: DATA and BDAT do not mix; what was sent by BDAT is given up.
            self.reset();
            return self.answer_bad(replies::SEQUENCE);
        }
        if transaction.recipients.is_empty() {
            let reply = if transaction.deferred { replies::NOBODY_NOW } else { replies::NO_RECIPIENT };
            return self.answer_bad(reply);
        }
        transaction.content = Some(Content::new(self.config.max_message_size));
        self.state = State::Begin(Way::Data(DotDecoder::default()));
        self.event(Event::Begin);
    }

    /// The octets follow whatever the answer is, so they are read in every case (RFC 3030 §2).
    fn bdat(&mut self, size: u64, last: bool) {
        let limit = self.config.max_message_size;
        let unwanted = match &self.transaction {
            None if self.deferred => Some(replies::NOBODY_NOW),
            None => Some(replies::SEQUENCE),
            Some(t) if t.recipients.is_empty() && t.deferred => Some(replies::NOBODY_NOW),
            Some(t) if t.recipients.is_empty() => Some(replies::NO_RECIPIENT),
            Some(_) => None,
        };
        let transaction = self.transaction.as_mut().filter(|_| unwanted.is_none());
        let mut fresh = Content::new(limit);
        let begun = transaction.as_ref().is_some_and(|t| t.content.is_some());
        let content = transaction.map_or(&mut fresh, |t| t.content.get_or_insert_with(|| Content::new(limit)));
        if content.is_hopeless(size) {
            return self.stop(replies::TOO_BIG_BY_FAR);
        }
        if let Some(reply) = unwanted {
            self.state = State::Skip { left: size, reply };
            return;
        }
        let way = Way::Chunk { size, left: size, last };
        if content.exceeds(size) && content.refuse(replies::TOO_BIG) {
            self.event(Event::Discard);
            self.state = State::Content(way);
        } else if begun {
            self.state = State::Content(way);
        } else {
            self.state = State::Begin(way);
            self.event(Event::Begin);
        }
    }

    fn starttls(&mut self) {
        if self.tls {
            return self.answer_bad(replies::SEQUENCE);
        }
        if !self.config.offer_tls {
            return self.answer_bad(replies::NOT_OFFERED);
        }
        self.reset();
        // RFC 3207 §6 and CVE-2011-0411: commands behind STARTTLS came in clear, from whomever; nothing is answered.
        let Ok(proof) = self.input.drained() else { return self.close() };
        self.answer(replies::READY_FOR_TLS);
        self.steps.push_back(Step::StartTls(proof));
        self.state = State::Tls;
    }

    fn out_of_order(&mut self) {
        if self.deferred {
            return self.answer(replies::NOBODY_NOW);
        }
        self.answer_bad(replies::SEQUENCE);
    }
}
