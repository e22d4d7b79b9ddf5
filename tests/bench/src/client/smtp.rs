//! Sends reports over connections that are kept, MAIL, RCPT and DATA in one packet where the server takes that.
//!
//! Every reply is looked at; a report that is not answered 250 is an error of the whole run.

use super::Connection;
use anyhow::{Context as _, Result, ensure};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What to send where.
#[derive(Clone)]
pub(crate) struct Sending {
    pub(crate) address: SocketAddr,
    pub(crate) recipients: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) tls: bool,
    /// Dot-stuffed, with the dot at their end.
    pub(crate) messages: Arc<Vec<Arc<Vec<u8>>>>,
}

/// How it went.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) messages: usize,
    pub(crate) octets: usize,
    pub(crate) wall: Duration,
    /// From the last octet of a message to the reply, ascending.
    pub(crate) replies: Vec<Duration>,
}

impl Sent {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }

    /// The reply time that `per_cent` of all replies did not exceed, in ms.
    pub(crate) fn reply_ms(&self, per_cent: usize) -> f64 {
        let at = self.replies.len().saturating_sub(1) * per_cent / 100;
        self.replies.get(at).map_or(f64::NAN, |reply| reply.as_secs_f64() * 1e3)
    }
}

/// Dot-stuffs a message and ends it.
pub(crate) fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    if message.starts_with(b".") {
        out.push(b'.');
    }
    let mut from = 0;
    for at in memchr::memmem::find_iter(message, b"\n.") {
        out.extend_from_slice(&message[from..=at]);
        out.push(b'.');
        from = at + 1;
    }
    out.extend_from_slice(&message[from..]);
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Sends all messages once. The connections are opened before the clock starts: what counts is how messages are
/// taken on connections that are kept, as mail servers keep them.
pub(crate) fn send(sending: &Sending) -> Result<Sent> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut sessions = Vec::new();
    for _ in 0..sending.connections {
        sessions.push(Session::open(sending.address, sending.tls)?);
    }
    let began = Instant::now();
    let threads: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            let (sending, next) = (sending.clone(), Arc::clone(&next));
            std::thread::spawn(move || session.work(&sending, &next))
        })
        .collect();
    let (mut replies, mut ended) = (Vec::new(), began);
    for thread in threads {
        let (times, last) = thread.join().map_err(|_| anyhow::anyhow!("a sender broke off"))??;
        replies.extend(times);
        ended = ended.max(last);
    }
    ensure!(replies.len() == sending.messages.len(), "{} of {} sent", replies.len(), sending.messages.len());
    replies.sort_unstable();
    let octets = sending.messages.iter().map(|message| message.len()).sum();
    Ok(Sent { messages: replies.len(), octets, wall: ended - began, replies })
}

/// One connection behind its EHLO.
pub(crate) struct Session(Connection);

impl Session {
    pub(crate) fn open(address: SocketAddr, tls: bool) -> Result<Self> {
        let mut session = Self(Connection::open(address)?);
        session.expect(220)?;
        session.0.send(b"EHLO bench.example\r\n")?;
        session.expect(250)?;
        if tls {
            session.0.send(b"STARTTLS\r\n")?;
            session.expect(220)?;
            session = Self(session.0.start_tls()?);
            session.0.send(b"EHLO bench.example\r\n")?;
            session.expect(250)?;
        }
        Ok(session)
    }

    fn work(mut self, sending: &Sending, next: &AtomicUsize) -> Result<(Vec<Duration>, Instant)> {
        let mut replies = Vec::new();
        let mut last = Instant::now();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(message) = sending.messages.get(number) else { break };
            let recipient = &sending.recipients[number % sending.recipients.len()];
            replies.push(self.message(recipient, message).with_context(|| format!("message {number}"))?);
            last = Instant::now();
        }
        self.0.send(b"QUIT\r\n")?;
        self.expect(221)?;
        Ok((replies, last))
    }

    /// Sends one message; the time from its last octet to the reply.
    pub(crate) fn message(&mut self, recipient: &str, message: &[u8]) -> Result<Duration> {
        let envelope = format!("MAIL FROM:<journal@aurora.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
        self.0.send(envelope.as_bytes())?;
        self.expect(250)?;
        self.expect(250)?;
        self.expect(354)?;
        self.0.send(message)?;
        let ended = Instant::now();
        self.expect(250)?;
        Ok(ended.elapsed())
    }

    fn expect(&mut self, code: u16) -> Result<()> {
        loop {
            let line = self.0.line()?;
            ensure!(line.starts_with(&code.to_string()), "{code} expected, heard {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}
