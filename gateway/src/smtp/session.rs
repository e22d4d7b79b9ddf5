//! One SMTP connection: looks mailboxes up, streams content into the spool, does TLS, keeps the deadlines, logs.
//!
//! Invariants: the reply to a message is decided by [`Smtp`] alone; content goes from the socket to the sealed files
//! in blocks of 64 KiB; whatever ends a connection before the `250` removes what was begun (dropping an
//! [`Incoming`] does). Logs hold addresses and replies, escaped, and never a line of a message. No client holds a
//! connection for ever: a command, each silence within a message, the rate and the whole transaction are bounded.

use super::{
    accepted::{Accepted, Trouble},
    content::BLOCK,
    machine::{Config, Event, Smtp},
    policy::Found,
    replies,
};
use crate::{
    mailbox::{Mailbox, State},
    metrics::Counters,
    sources::{Facts, ReverseName, Sources, Verdict},
    spool::{Incoming, Origin, Receipt, Spool, SpoolError},
    tls::{Acceptor, TlsFacts},
};
use postkeep_shared::{
    drive::{DriveError, Driven, Driver, Stream},
    mail::MailboxId,
    run::{Shutdown, printable},
};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

/// How long a message under way may go on once the gateway is being stopped; shorter than the server's own wait, so
/// that the client hears why.
const DRAIN: Duration = Duration::from_secs(8);
/// How long a peer may take to accept what is written to it.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// What every SMTP session needs; one for the whole gateway.
pub struct Context {
    /// Where reports go.
    pub spool: Spool,
    /// Limits and names.
    pub settings: Settings,
    /// For STARTTLS; `None` announces none.
    pub tls: Option<Acceptor>,
    /// Who may send to whom.
    pub sources: Arc<Sources>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Limits and names, from `[smtp]` and the top of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this gateway.
    pub hostname: String,
    /// Domains mail is accepted for.
    pub domains: Vec<String>,
    /// Octets of a message, announced in SIZE and enforced while it arrives.
    pub max_message_size: u64,
    /// Whether MAIL in clear is answered `450 4.7.0`.
    pub require_tls: bool,
    /// Longest silence between commands (RFC 5321 §4.5.3.2.7 asks for five minutes).
    pub command_timeout: Duration,
    /// Longest silence within a message (RFC 5321 §4.5.3.2.5 asks for three minutes).
    pub data_timeout: Duration,
    /// Longest time from MAIL to the end of its message.
    pub transaction_timeout: Duration,
    /// How long a message may arrive at any rate; then `minimum_rate` counts, from its beginning.
    pub rate_grace: Duration,
    /// Octets per second a message must arrive with after `rate_grace`; 0 for any.
    pub minimum_rate: u64,
}

/// Serves one connection to its end. `tls_already`: the handshake was done before the greeting (implicit TLS).
///
/// A shutdown ends it at once while it is idle; a message under way has eight seconds more.
pub async fn serve(
    stream: Box<dyn Stream>,
    peer: SocketAddr,
    context: Arc<Context>,
    shutdown: Shutdown,
    tls_already: Option<TlsFacts>,
) {
    let started = Instant::now();
    let settings = &context.settings;
    let config = Config {
        hostname: settings.hostname.clone(),
        domains: settings.domains.clone(),
        max_message_size: settings.max_message_size,
        offer_tls: context.tls.is_some(),
        require_tls: settings.require_tls,
        tls: tls_already.is_some(),
    };
    let mut machine = Smtp::new(config);
    if context.spool.failed().borrow().is_some() {
        machine.stop(replies::STOPPED);
    }
    let driver = Driver::new(machine, stream, settings.command_timeout, WRITE_DEADLINE);
    let (mailboxes, incoming, last, pace) = (Vec::new(), Vec::new(), Vec::new(), Pace::default());
    let reverse = context.sources.reverse_of(peer.ip());
    let session = Session {
        context,
        peer,
        tls: tls_already,
        reverse,
        mailboxes,
        incoming,
        last,
        begun: started,
        pace,
        stopping: None,
    };
    let end = session.run(driver, shutdown).await;
    tracing::info!(
        peer = %peer.ip(),
        helo = %printable(end.helo.as_bytes()),
        tls = end.tls,
        certificate = %printable(end.certificate.as_bytes()),
        messages = end.messages,
        received = end.received,
        reply = end.reply,
        end = end.how,
        ms = millis(started),
        "smtp session"
    );
}

struct Session {
    context: Arc<Context>,
    peer: SocketAddr,
    tls: Option<TlsFacts>,
    /// The client's name, looked for since it connected.
    reverse: ReverseName,
    /// Definitions of the recipients answered `250` since MAIL, and whether the source rules of each fit.
    mailboxes: Vec<(Mailbox, Option<bool>)>,
    /// The sealed files of the message under way, in the order of the recipients.
    incoming: Vec<Incoming>,
    /// The end of the message, less than a block: it goes with the commit.
    last: Vec<u8>,
    /// When the message under way began.
    begun: Instant,
    /// How fast the client is.
    pace: Pace,
    /// When it was first seen that the gateway is being stopped.
    stopping: Option<Instant>,
}

/// How fast a client is. Only time spent waiting for it counts against it, never the disk's.
#[derive(Default)]
struct Pace {
    /// When MAIL came.
    transaction: Option<Instant>,
    /// Time waited for the content that is arriving.
    waited: Duration,
    /// Octets of it.
    received: u64,
}

impl Pace {
    /// How long to wait for the client from now on at most; `None`: no limit but the silences'.
    fn patience(&self, idle: bool, settings: &Settings) -> Option<Duration> {
        let whole = self.transaction.map(|since| settings.transaction_timeout.saturating_sub(since.elapsed()));
        if idle || settings.minimum_rate == 0 {
            return whole;
        }
        let earned = Duration::from_secs(self.received / settings.minimum_rate);
        let content = settings.rate_grace.max(earned).saturating_sub(self.waited);
        Some(whole.map_or(content, |whole| whole.min(content)))
    }
}

/// How a session went, for the log.
struct End {
    how: &'static str,
    helo: String,
    tls: bool,
    certificate: String,
    messages: u64,
    received: u64,
    reply: u16,
}

impl Session {
    async fn run(mut self, mut driver: Driver<Smtp>, shutdown: Shutdown) -> End {
        let how = loop {
            match self.step(&mut driver, &shutdown).await {
                Step::GoOn => {}
                Step::Upgrade(proof, acceptor) => {
                    let (machine_before, received) = (driver.machine.messages(), driver.received());
                    let mut facts = None;
                    let handshake = async |stream| {
                        let (stream, found) = acceptor.accept(stream).await?;
                        facts = Some(found);
                        Ok(stream)
                    };
                    // On the heap: sessions in clear must not carry the memory of a handshake.
                    match Box::pin(driver.upgrade(proof, handshake)).await {
                        Ok(upgraded) => driver = upgraded,
                        Err(error) => {
                            tracing::info!(peer = %self.peer.ip(), error = %printable(error.to_string().as_bytes()), "smtp handshake failed");
                            let (helo, reply) = (String::new(), replies::READY_FOR_TLS.code);
                            return End {
                                how: "handshake",
                                helo,
                                tls: false,
                                certificate: String::new(),
                                messages: machine_before,
                                received,
                                reply,
                            };
                        }
                    }
                    self.tls = facts;
                    driver.machine.tls_started();
                }
                Step::End(how) => break how,
            }
        };
        let machine = &driver.machine;
        let end = End {
            how,
            helo: machine.helo().unwrap_or_default().to_owned(),
            tls: self.tls.is_some(),
            certificate: self.tls.as_ref().map(|facts| facts.client.to_string()).unwrap_or_default(),
            messages: machine.messages(),
            received: driver.received(),
            reply: machine.last_reply().map_or(0, |reply| reply.code),
        };
        driver.shutdown().await;
        end
    }

    /// One turn: until the machine wants something, or time or the gateway ends.
    async fn step(&mut self, driver: &mut Driver<Smtp>, shutdown: &Shutdown) -> Step {
        let idle = driver.machine.is_idle();
        let settings = &self.context.settings;
        driver.set_read_deadline(if idle { settings.command_timeout } else { settings.data_timeout });
        driver.set_step_deadline(idle.then_some(settings.command_timeout));
        if idle {
            let transaction = self.pace.transaction.filter(|_| driver.machine.transaction().is_some());
            self.pace = Pace { transaction, ..Pace::default() };
        }
        let patience = self.pace.patience(idle, settings);
        let too_slow = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let (began, received) = (Instant::now(), driver.received());
        let mut stopping = shutdown.clone();
        if stopping.is_fired() {
            self.stopping.get_or_insert_with(Instant::now);
        }
        let waited = self.stopping.map_or(Duration::ZERO, |since| since.elapsed());
        let grace = if idle { Duration::ZERO } else { DRAIN.saturating_sub(waited) };
        let stop = async {
            stopping.fired().await;
            tokio::time::sleep(grace).await;
        };
        let driven = tokio::select! {
            biased;
            // Dropping `next` loses nothing: it gives up only what it has not read or written yet.
            () = stop => {
                driver.machine.stop(replies::SHUTDOWN);
                return last_words(driver, "shutdown").await;
            }
            driven = driver.next() => Some(driven),
            () = too_slow => None,
        };
        if !idle {
            self.pace.waited += began.elapsed();
            self.pace.received += driver.received() - received;
        }
        let Some(driven) = driven else {
            // More may have arrived while this was waited for.
            if self.pace.patience(idle, settings).is_some_and(|patience| patience.is_zero()) {
                driver.machine.stop(replies::TOO_SLOW);
                return last_words(driver, "slow").await;
            }
            return Step::GoOn;
        };
        match driven {
            Ok(Driven::Event(event)) => {
                self.handle(event, &mut driver.machine).await;
                Step::GoOn
            }
            Ok(Driven::StartTls(proof)) => match &self.context.tls {
                Some(acceptor) => Step::Upgrade(proof, acceptor.clone()),
                None => Step::End("no TLS"),
            },
            Ok(Driven::Close) => Step::End("closed"),
            Err(DriveError::Deadline) => {
                driver.machine.stop(replies::SILENCE);
                last_words(driver, "silence").await
            }
            Err(DriveError::Closed) => Step::End("gone"),
            Err(_) => Step::End("broken"),
        }
    }

    async fn handle(&mut self, event: Event, machine: &mut Smtp) {
        match event {
            Event::Room(size) => {
                self.pace.transaction = Some(Instant::now());
                self.mailboxes.clear();
                // A question to the kernel's tables: handing the thread over would take longer.
                let room = self.context.spool.check_room(size);
                machine.room(self.trouble("MAIL", room));
            }
            Event::Lookup(mailbox) => {
                let found = self.lookup(&mailbox, machine).await;
                machine.found(found);
            }
            Event::Begin => {
                self.begun = Instant::now();
                let name = self.reverse.get().await;
                // A file is made, nothing is waited for: handing the thread over would take as long.
                let begun = self.begin(machine, name);
                machine.begun(self.trouble("begin", begun));
            }
            Event::Content(block) if block.len() < BLOCK => {
                self.last = block;
                machine.written(Ok(()));
            }
            Event::Content(block) => {
                let incoming = &mut self.incoming;
                let written = blocking(|| incoming.iter_mut().try_for_each(|incoming| incoming.write(&block)));
                machine.written(self.trouble("write", written));
            }
            Event::Commit => self.commit(machine).await,
            Event::Discard => {
                self.last = Vec::new();
                blocking(|| self.incoming.clear());
            }
            Event::Refused { reply, about } => {
                self.context.counters.refused(&reply);
                tracing::info!(
                    peer = %self.peer.ip(),
                    helo = %printable(machine.helo().unwrap_or_default().as_bytes()),
                    about = %printable(about.as_bytes()),
                    reply = reply.code,
                    status = reply.enhanced,
                    "smtp refused"
                );
            }
        }
    }

    async fn lookup(&mut self, id: &MailboxId, machine: &Smtp) -> Found {
        // A small file that was read a moment ago: handing the thread over would take longer.
        let mailbox = match self.context.spool.mailboxes().lookup(id) {
            Ok(Some(mailbox)) if mailbox.state == State::Active => mailbox,
            Ok(Some(_)) => return Found::Suspended,
            Ok(None) => return Found::Unknown,
            Err(error) => {
                tracing::error!(mailbox = %id, %error, "mailbox definition unreadable");
                return Found::Unreadable;
            }
        };
        let facts = Facts {
            ip: self.peer.ip(),
            mail_from: machine.transaction().map(|transaction| transaction.mail_from().to_owned()).unwrap_or_default(),
            certificate: self.tls.as_ref().map(|facts| facts.client.clone()).unwrap_or_default(),
        };
        let judgement = self.context.sources.judge(id, &facts).await;
        match &judgement.verdict {
            Verdict::NoRules => {}
            Verdict::Verified { rule } => {
                tracing::debug!(peer = %self.peer.ip(), mailbox = %id, rule, "smtp source fits")
            }
            Verdict::Unverified { reason } => {
                let reason = printable(reason.as_bytes());
                tracing::info!(peer = %self.peer.ip(), mailbox = %id, %reason, "smtp source unverified");
            }
        }
        if judgement.refused() {
            return Found::NotFromHere;
        }
        self.mailboxes.push((mailbox, judgement.verified()));
        Found::Active
    }

    fn begin(&mut self, machine: &Smtp, reverse_name: Option<String>) -> Result<(), SpoolError> {
        self.incoming.clear();
        self.last = Vec::new();
        let Some(transaction) = machine.transaction() else { return Ok(()) };
        for recipient in transaction.recipients() {
            // Only recipients that were found become part of the transaction.
            let Some((mailbox, verified)) = self.mailboxes.iter().find(|(mailbox, _)| mailbox.id == recipient.mailbox)
            else {
                return Err(SpoolError::Failed(format!("mailbox {} was not looked up", recipient.mailbox)));
            };
            let origin = Origin {
                ip: self.peer.ip().to_canonical(),
                reverse_name: reverse_name.clone(),
                helo: transaction.helo().to_owned(),
                mail_from: transaction.mail_from().to_owned(),
                rcpt_to: recipient.path.clone(),
                tls: self.tls.as_ref().map(|facts| facts.version_and_suite.clone()),
                certificate: self.tls.as_ref().and_then(|facts| facts.client.evidence()),
                verified: *verified,
                protocol: transaction.protocol(),
            };
            self.incoming.push(self.context.spool.begin(mailbox, &origin)?);
        }
        Ok(())
    }

    async fn commit(&mut self, machine: &mut Smtp) {
        let size = machine.transaction().map_or(0, super::Transaction::size);
        let committed = {
            let (incoming, last) = (std::mem::take(&mut self.incoming), std::mem::take(&mut self.last));
            self.context.spool.commit_with(incoming, last).await
        };
        match &committed {
            Ok(receipts) => {
                machine.accepted(&receipts.iter().map(Accepted::from).collect::<Vec<_>>());
                receipts.iter().for_each(|receipt| self.log_accepted(receipt, machine));
            }
            Err(error) => {
                tracing::error!(peer = %self.peer.ip(), size, %error, "smtp message not stored");
                machine.failed(error.into());
            }
        }
    }

    fn log_accepted(&self, receipt: &Receipt, machine: &Smtp) {
        let entry = &receipt.entry().body;
        self.context.counters.accepted(entry.size, self.begun.elapsed());
        tracing::info!(
            peer = %self.peer.ip(),
            helo = %printable(machine.helo().unwrap_or_default().as_bytes()),
            tls = self.tls.is_some(),
            mailbox = %entry.mailbox,
            uidl = %entry.uidl,
            seq = entry.seq,
            size = entry.size,
            ms = millis(self.begun),
            reply = machine.last_reply().map_or(0, |reply| reply.code),
            "smtp accepted"
        );
    }

    fn trouble(&self, doing: &'static str, result: Result<(), SpoolError>) -> Result<(), Trouble> {
        result.map_err(|error| {
            tracing::error!(peer = %self.peer.ip(), doing, %error, "smtp message not stored");
            Trouble::from(&error)
        })
    }
}

enum Step {
    GoOn,
    Upgrade(postkeep_shared::wire::Drained, Acceptor),
    End(&'static str),
}

/// Sends what the machine has to say at the end. The peer may be the reason why that fails.
async fn last_words(driver: &mut Driver<Smtp>, how: &'static str) -> Step {
    loop {
        let said: Result<Driven<Event>, DriveError<Infallible>> = driver.next().await;
        match said {
            // What was begun is removed when the session is dropped.
            Ok(Driven::Event(_)) => {}
            _ => return Step::End(how),
        }
    }
}

/// Runs short disk work without holding up the other sessions of this thread.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            hostname: String::new(),
            domains: Vec::new(),
            max_message_size: 1,
            require_tls: false,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            transaction_timeout: Duration::from_secs(3600),
            rate_grace: Duration::from_secs(60),
            minimum_rate: 500,
        }
    }

    #[test]
    fn slow_messages_get_a_minute_and_then_what_they_earn() {
        let seconds = Duration::from_secs;
        for (waited, received, left) in [
            (0, 0, 60),
            (59, 0, 1),
            (60, 0, 0),
            (60, 500 * 60, 0),
            (60, 500 * 61, 1),
            (600, 500 * 1000, 400),
            (70, 1, 0),
        ] {
            let pace = Pace { transaction: None, waited: seconds(waited), received };
            assert_eq!(pace.patience(false, &settings()), Some(seconds(left)), "{waited} s, {received} octets");
            assert_eq!(pace.patience(true, &settings()), None);
            assert_eq!(pace.patience(false, &Settings { minimum_rate: 0, ..settings() }), None);
        }
    }

    #[test]
    fn a_transaction_ends_some_day_at_any_rate() {
        let since = Instant::now().checked_sub(Duration::from_secs(3600));
        let pace = Pace { transaction: since, waited: Duration::ZERO, received: u64::MAX };
        for idle in [true, false] {
            assert_eq!(pace.patience(idle, &settings()), Some(Duration::ZERO));
        }
    }
}
