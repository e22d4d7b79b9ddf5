//! One session with one host: ledger, listing, batches of fetch, store, delete, and QUIT.
//!
//! Order (docs/durability.md): a message is fetched and judged, added to the store, committed and read back with its
//! batch; only the store's receipts are turned into deletions, in this session, by the name the message has in it. An
//! odd message is kept under a name of its own and not deleted.

use super::{
    examine::examine,
    judge::{self, Expected, Judged},
    ledger,
    listing::{Listed, Listing},
    machine::MAX_MESSAGE,
    report::{HostReport, Report},
    session::{Fetched, Session, SessionError},
    state::{State, moved},
    tls::Connector,
};
use crate::{
    archive::Archive,
    config::{DeleteRule, Host, Source, SourceKind},
    filing::{Owners, Rules, assign},
    octets::{Slice, Staged, Staging},
    store::{Collected, NewReport, Pending, StoreError, StoreReceipt},
};
use postkeep_shared::{
    crypt::Password,
    mail::{Digest, MailboxId, Uidl},
    receipt::NodeKey,
    run::{Failure, Shutdown, now_ms},
};
use std::collections::{BTreeSet, HashMap};

/// Messages of one batch at most.
const BATCH: usize = 64;
/// Octets after which a batch takes no further message.
const BATCH_OCTETS: u64 = 32 * 1024 * 1024;

/// What a visit works with.
pub(super) struct Tools<'a> {
    pub store: &'a mut Archive,
    pub state: &'a State,
    pub staging: &'a Staging,
    pub owners: &'a Owners,
    pub rules: &'a Rules,
    /// Changes whenever a message that was left might now be filed.
    pub rules_digest: Digest,
    pub shutdown: &'a Shutdown,
}

/// Why a visit ended early.
pub(super) enum VisitError {
    /// The host's trouble: the others go on.
    Session(SessionError),
    /// Our own: nothing goes on.
    Fatal(Failure),
}

impl From<SessionError> for VisitError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<Failure> for VisitError {
    fn from(error: Failure) -> Self {
        Self::Fatal(error)
    }
}

impl From<StoreError> for VisitError {
    fn from(error: StoreError) -> Self {
        Self::Fatal(error.into())
    }
}

/// A visit in progress.
pub(super) struct Visit<'a> {
    tools: Tools<'a>,
    source: &'a Source,
    host: &'a Host,
    /// Host as it is stored and shown.
    at: String,
    /// The mailbox as the store knows it.
    mailbox: String,
    gateway: Option<MailboxId>,
    node: Option<NodeKey>,
    report: &'a mut Report,
    here: &'a mut HostReport,
    may_delete: bool,
    /// See [`moved`]; read when it is needed.
    moved: Option<HashMap<Uidl, Digest>>,
    waiting: BTreeSet<String>,
    marked: BTreeSet<String>,
}

/// A message to fetch.
struct Item<'l> {
    listed: &'l Listed,
    /// What was stored under its name before and does not fit what is listed now.
    before: Option<Box<Collected>>,
}

/// A message that was added to the open batch.
struct Added<'l> {
    listed: &'l Listed,
    pending: Pending,
    deletable: bool,
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        tools: Tools<'a>,
        source: &'a Source,
        host: &'a Host,
        report: &'a mut Report,
        here: &'a mut HostReport,
    ) -> Result<Self, Failure> {
        let at = host.to_string();
        let gateway = source.gateway_mailbox();
        let node = match gateway {
            Some(_) => tools.state.node(&source.name, &at, tools.store)?,
            None => None,
        };
        let mailbox = source.mailbox_at(host);
        Ok(Self {
            tools,
            source,
            host,
            at,
            mailbox,
            gateway,
            node,
            report,
            here,
            may_delete: true,
            moved: None,
            waiting: BTreeSet::new(),
            marked: BTreeSet::new(),
        })
    }

    /// The whole session.
    pub(super) async fn run(mut self, connector: &Connector, passwords: &[Password]) -> Result<(), VisitError> {
        let line = self.tools.state.password_line(&self.source.name, &self.at)?;
        let (mut session, taken) = Session::enter(self.host, connector, &self.source.mailbox, passwords, line).await?;
        if taken != line {
            self.tools.state.set_password_line(&self.source.name, &self.at, taken)?;
        }
        if session.capabilities().xledger {
            self.ledger(&mut session).await?;
        }
        let listing = session.listing().await?;
        for problem in &listing.problems {
            self.odd(format!("{problem}; nothing is deleted in this session"));
        }
        self.waiting = listing.messages.iter().map(Listed::name).collect();
        let result = self.take_all(&mut session, &listing).await;
        if result.is_ok() {
            // Nothing is removed unless this is answered with +OK.
            match session.quit().await {
                Ok(()) => {
                    self.report.deleted += self.marked.len() as u64;
                    self.waiting = self.waiting.difference(&self.marked).cloned().collect();
                }
                Err(error) => {
                    self.remember()?;
                    return Err(error.into());
                }
            }
        }
        self.remember()?;
        result
    }

    fn remember(&mut self) -> Result<(), Failure> {
        self.here.waiting = Some(self.waiting.len() as u64);
        let names: Vec<String> = self.waiting.iter().cloned().collect();
        self.tools.state.set_waiting(&self.source.name, &self.at, &names)
    }

    fn problem(&mut self, text: String) {
        self.here.problem(&self.source.name, text);
    }

    /// A problem that forbids every deletion in this session.
    fn odd(&mut self, text: String) {
        self.may_delete = false;
        self.problem(text);
    }

    async fn ledger(&mut self, session: &mut Session) -> Result<(), VisitError> {
        let Some(mailbox) = self.gateway else { return Ok(()) };
        if let Some(node) = ledger::other_node(session, self.node, &self.source.nodes).await? {
            self.node = Some(node);
            self.tools.state.pin(&self.source.name, &self.at, node)?;
        }
        let name = &self.source.name;
        let last = match &self.node {
            Some(node) => self.tools.store.last_ledger_entry(name, &mailbox.to_string(), node)?,
            None => None,
        };
        let (store, at) = (&mut *self.tools.store, &self.at);
        let mut kept = 0;
        let before = ledger::Before { mailbox, node: self.node, last };
        let shown = ledger::read::<VisitError>(session, before, |entries| {
            kept += entries.len();
            Ok(blocking(|| store.add_ledger(name, at, entries))?)
        })
        .await?;
        if kept > 0 {
            let commit = blocking(|| self.tools.store.commit())?;
            debug_assert!(commit.receipts.is_empty(), "no report was added");
            self.report.bytes_stored += commit.record_bytes;
        }
        if shown.problems.is_empty() {
            self.pin(shown.node)?;
        }
        for problem in shown.problems {
            self.odd(format!("{problem}; nothing is deleted in this session"));
        }
        Ok(())
    }

    fn pin(&mut self, node: NodeKey) -> Result<(), Failure> {
        if self.node.is_none() {
            self.node = Some(node);
            self.tools.state.pin(&self.source.name, &self.at, node)?;
        }
        Ok(())
    }

    async fn take_all(&mut self, session: &mut Session, listing: &Listing) -> Result<(), VisitError> {
        let (known, mut items) = self.sort(listing)?;
        for batch in known.chunks(BATCH) {
            if self.tools.shutdown.is_fired() {
                return Ok(());
            }
            items.extend(self.delete_known(session, batch).await?);
        }
        let mut rest = items.as_slice();
        while !rest.is_empty() && !self.tools.shutdown.is_fired() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            self.batch(session, batch).await?;
        }
        Ok(())
    }

    /// What is stored already and may go, and what has to be fetched.
    fn sort<'l>(&mut self, listing: &'l Listing) -> Result<(Vec<&'l Listed>, Vec<Item<'l>>), VisitError> {
        let (mut known, mut items) = (Vec::new(), Vec::new());
        for listed in &listing.messages {
            if listed.size() > MAX_MESSAGE {
                self.problem(format!("message {} is said to have {} octets; it stays", listed.name(), listed.size()));
                continue;
            }
            if !listed.is_distinct() {
                items.push(Item { listed, before: None });
                continue;
            }
            let name = listed.name();
            match self.tools.store.is_collected(&self.source.name, Some(&self.mailbox), &name)? {
                Some(before) if self.fits(&before, listed) => {
                    if self.is_due(before.collected_ms) {
                        known.push(listed);
                    }
                }
                Some(before) if self.gateway.is_some() && before.receipt.is_none() => {
                    self.report.held += 1;
                    self.problem(format!("message {name} was stored without a receipt that holds; it stays"));
                }
                Some(before) => items.push(Item { listed, before: Some(Box::new(before)) }),
                None => match self.tools.state.left(&self.source.name, &name, self.tools.rules_digest)? {
                    Some(unowned) => self.report.leave(&unowned),
                    None => items.push(Item { listed, before: None }),
                },
            }
        }
        Ok((known, items))
    }

    /// Whether what waits is what was stored under this name, as far as the listing tells.
    fn fits(&self, before: &Collected, listed: &Listed) -> bool {
        match (&before.receipt, self.gateway) {
            (Some(receipt), Some(_)) => receipt.retr_size() == listed.size(),
            (None, Some(_)) => false,
            (_, None) => before.size == listed.size(),
        }
    }

    fn is_due(&self, collected_ms: u64) -> bool {
        self.may_delete
            && match self.source.delete {
                DeleteRule::AtOnce => true,
                DeleteRule::After(span) => u128::from(now_ms().saturating_sub(collected_ms)) >= span.as_millis(),
                DeleteRule::Never => false,
            }
    }

    /// Reads reports of earlier rounds back once more and deletes them. What the store cannot give back is to be
    /// fetched again.
    async fn delete_known<'l>(
        &mut self,
        session: &mut Session,
        batch: &[&'l Listed],
    ) -> Result<Vec<Item<'l>>, VisitError> {
        let (mut deletions, mut again) = (Vec::new(), Vec::new());
        for listed in batch {
            let (name, mailbox) = (listed.name(), Some(self.mailbox.as_str()));
            let store = &mut *self.tools.store;
            match blocking(|| store.confirm(&self.source.name, mailbox, &name)) {
                Ok(Some(receipt)) => deletions.push((*listed, receipt)),
                Ok(None) => again.push(Item { listed, before: None }),
                Err(error) if error.is_damage() => {
                    self.problem(format!("message {name} is damaged in the store and fetched again: {error}"));
                    again.push(Item { listed, before: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.delete(session, deletions).await?;
        Ok(again)
    }

    async fn delete(
        &mut self,
        session: &mut Session,
        deletions: Vec<(&Listed, StoreReceipt)>,
    ) -> Result<(), VisitError> {
        if deletions.is_empty() {
            return Ok(());
        }
        let done = session.delete(deletions).await?;
        self.marked.extend(done.marked.iter().map(|name| String::from_utf8_lossy(name).into_owned()));
        for text in done.refused {
            self.problem(format!("the server refuses to delete a stored message: {text}"));
        }
        Ok(())
    }

    /// Fetches and stores one batch, then deletes what the store has receipts for.
    async fn batch(&mut self, session: &mut Session, items: &[Item<'_>]) -> Result<(), VisitError> {
        let ahead = session.capabilities().pipelining;
        if ahead {
            items.iter().for_each(|item| session.request(item.listed, self.limit(item.listed)));
        }
        let mut added: HashMap<String, Added<'_>> = HashMap::new();
        for item in items {
            if !ahead {
                session.request(item.listed, self.limit(item.listed));
            }
            match session.fetch(self.tools.staging.begin()).await? {
                Fetched::Message(staged, digest) => {
                    if let Some((name, one)) = blocking(|| self.take(item, &staged, digest))? {
                        added.insert(name, one);
                    }
                }
                Fetched::Refused(text) => {
                    self.problem(format!("the server does not give message {}: {text}", item.listed.name()));
                }
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        let commit = blocking(|| self.tools.store.commit())?;
        self.report.bytes_stored += commit.record_bytes;
        for (name, error) in commit.failures {
            self.problem(format!("message {name} could not be read back and stays at the source: {error}"));
        }
        let mut deletions = Vec::new();
        for receipt in commit.receipts {
            let Some(one) = added.remove(receipt.uidl()) else { continue };
            self.report.count(&one.pending);
            if one.deletable {
                deletions.push((one.listed, receipt));
            }
        }
        self.delete(session, deletions).await
    }

    /// A gateway's sizes are exact; other servers may count line ends as one.
    fn limit(&self, listed: &Listed) -> u64 {
        let slack = if self.gateway.is_some() { 0 } else { listed.size() / 8 };
        listed.size() + slack + 64 * 1024
    }

    /// Judges a fetched message and adds it to the store. `None` when it is not for the store, or there already.
    fn take<'l>(
        &mut self,
        item: &Item<'l>,
        staged: &Staged,
        announced: Option<Digest>,
    ) -> Result<Option<(String, Added<'l>)>, VisitError> {
        let listed = item.listed;
        let Some(mut judged) = self.judge(listed, staged, announced)? else { return Ok(None) };
        if let Some(problem) = &judged.problem {
            self.problem(format!("message {}: {problem}; it is kept and stays at the source", listed.name()));
        }
        if let (Some(receipt), None) = (&judged.receipt, self.node) {
            self.pin(receipt.node)?;
        }
        let (name, good) = self.name(item, &mut judged);
        if name != listed.name()
            && self.tools.store.is_collected(&self.source.name, Some(&self.mailbox), &name)?.is_some()
        {
            self.report.held += 1;
            return Ok(None);
        }
        let deletable = good && judged.problem.is_none() && self.is_due(now_ms());
        if judged.problem.is_some() || !good {
            self.report.held += 1;
        }
        let Some(pending) = self.add(&name, listed, staged, judged)? else { return Ok(None) };
        Ok(Some((name, Added { listed, pending, deletable })))
    }

    fn judge(
        &mut self,
        listed: &Listed,
        staged: &Staged,
        announced: Option<Digest>,
    ) -> Result<Option<Judged>, VisitError> {
        let Some(mailbox) = self.gateway else {
            return judge::from_anywhere(staged).map(Some).map_err(staging);
        };
        let mut expected = Expected { mailbox, node: self.node, moved: None, announced };
        let mut judged = judge::from_gateway(staged, listed, &expected).map_err(staging)?;
        if judged.as_ref().is_ok_and(|judged| judged.problem.is_some()) {
            // Rare: only now is it worth a look whether the ledger says that it came from another node.
            expected.moved = self.moved_from(listed)?;
            if expected.moved.is_some() {
                judged = judge::from_gateway(staged, listed, &expected).map_err(staging)?;
            }
        }
        match judged {
            Ok(judged) => Ok(Some(judged)),
            Err(error) => {
                self.problem(format!("message {}: {error}; it is neither kept nor deleted", listed.name()));
                Ok(None)
            }
        }
    }

    /// Hash of the receipt that a message was accepted with elsewhere, if it was moved to this host.
    fn moved_from(&mut self, listed: &Listed) -> Result<Option<Digest>, VisitError> {
        if self.moved.is_none() {
            let store = &*self.tools.store;
            self.moved = Some(blocking(|| moved(&self.source.name, store))?);
        }
        let uidl: Option<Uidl> = listed.name().parse().ok();
        Ok(uidl.and_then(|uidl| self.moved.as_ref()?.get(&uidl).copied()))
    }

    /// The name to store it under, and whether that is its own: one that cannot be told apart, or whose name stands
    /// for other octets already, is kept under its name and its digest.
    fn name(&mut self, item: &Item<'_>, judged: &mut Judged) -> (String, bool) {
        let own = item.listed.name();
        let apart = |own: &str| {
            let short: String = own.chars().take(80).collect();
            format!("{short}#{}", judged.sha256.short(32))
        };
        if !item.listed.is_distinct() {
            return (apart(&own), false);
        }
        let Some(before) = &item.before else { return (own, true) };
        if before.raw_sha256 == judged.sha256 && self.gateway.is_none() {
            // Only its size was listed inexactly: stored again it is the same report.
            return (own, true);
        }
        let name = apart(&own);
        self.problem(format!("message {own} is not the one that was collected under this name; both are kept"));
        judged.receipt = None;
        (name, false)
    }

    fn add(
        &mut self,
        name: &str,
        listed: &Listed,
        staged: &Staged,
        judged: Judged,
    ) -> Result<Option<Pending>, VisitError> {
        let raw = Slice::new(staged, judged.report.clone());
        let verdict =
            examine(self.source, &raw, judged.evidence.as_ref(), judged.problem.as_deref()).map_err(staging)?;
        let plan = assign(&verdict, self.source.reading.owner.as_deref(), self.tools.owners, self.tools.rules);
        if plan.leave {
            self.report.leave(&plan.unowned);
            self.tools.state.leave(&self.source.name, &listed.name(), self.tools.rules_digest, &plan.unowned)?;
            return Ok(None);
        }
        let report = NewReport {
            source: &self.source.name,
            host: &self.at,
            mailbox: Some(self.mailbox.clone()),
            uidl: name.to_owned(),
            receipt: judged.receipt,
            evidence: judged.evidence,
            raw: &raw,
            raw_sha256: judged.sha256,
            verdict: &verdict,
            plan: &plan,
            collected_ms: now_ms(),
        };
        match self.tools.store.add(report) {
            Ok(pending) => Ok(Some(pending)),
            Err(error) if error.is_input() => {
                self.problem(format!("message {name} could not be stored and stays at the source: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How many of `items` make the next batch; at least one.
fn batch_len(items: &[Item<'_>]) -> usize {
    let mut octets = 0;
    let fits = items.iter().take(BATCH).take_while(|item| {
        octets += item.listed.size();
        octets <= BATCH_OCTETS
    });
    fits.count().max(1)
}

/// Store work blocks: other tasks of the runtime go on meanwhile.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

fn staging(error: std::io::Error) -> VisitError {
    VisitError::Session(SessionError::Staging(error))
}

impl Source {
    /// The mailbox of a gateway source.
    #[must_use]
    pub fn gateway_mailbox(&self) -> Option<MailboxId> {
        let local = self.mailbox.split('@').next().unwrap_or_default();
        (self.kind == SourceKind::Gateway).then(|| local.parse().ok()).flatten()
    }

    /// The mailbox as the store knows it. Names of messages are unique within a gateway mailbox on all its hosts;
    /// any other server has names of its own.
    #[must_use]
    pub fn mailbox_at(&self, host: &Host) -> String {
        match self.gateway_mailbox() {
            Some(mailbox) => mailbox.to_string(),
            None => format!("{} at {}", self.mailbox, host.name),
        }
    }
}
