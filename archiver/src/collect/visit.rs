//! One session with one host: ledger, listing, batches of fetch, store, delete, and QUIT.
//!
//! Order (docs/durability.md): a batch is fetched and measured; then, holding the store, its messages are judged, added,
//! committed and read back, while the next batch is fetched; only the store's receipts are turned into deletions, in this
//! session, by the name the message has in it. An odd message is kept under a name of its own and not deleted.
//!
//! Many visits run at once and share one store. It is held for whole batches and never while a server is waited for, so
//! a slow server delays nobody, and the receipts of a commit are always the ones of the batch before it.

mod keep;

use super::{
    ahead::{Ahead, Came, Fetching, Wanted},
    budget::Budget,
    judge::{Measured, Misannounced},
    ledger,
    listing::{Listed, Listing},
    machine::MAX_MESSAGE,
    report::{HostReport, Report},
    session::{Patience, Session, SessionError},
    shared::StoreLock,
    slots::GivenBack,
    state::State,
    tls::Connector,
};
use crate::{
    archive::Archive,
    config::{DeleteRule, Host, Source, SourceKind},
    filing::{Owners, Rules},
    octets::{Staged, Staging},
    probe::Probes,
    store::{Collected, StoreError, StoreReceipt},
};
use postkeep_shared::{
    crypt::Password,
    mail::{Digest, MailboxId, Uidl},
    receipt::{Entry, Event, NodeKey},
    run::{Failure, Shutdown, now_ms},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Messages of one batch at most. Each batch costs some syncs, and ends a group of every kind of content before it is full.
const BATCH: usize = 256;
/// Octets after which a batch takes no further message: two batches are in memory.
const BATCH_OCTETS: u64 = 16 * 1024 * 1024;
/// Ledger entries that wait for the reports they are about: in one batch of records, what stands in both is compressed
/// to one. When there are more, all are committed before any report is fetched.
const ENTRIES_WAITING: usize = 4 * 1024;
/// Ledger entries that are remembered as signed: their reports, which come in the same order, have them as receipts.
const SIGNED: usize = 32 * 1024;
/// Messages that the store is asked about without letting go of it.
const SORTED_AT_ONCE: usize = 1024;

/// What a visit works with.
pub(super) struct Tools<'a> {
    pub store: &'a StoreLock,
    pub state: &'a State,
    pub staging: &'a Staging,
    pub owners: &'a Owners,
    pub rules: &'a Rules,
    pub probes: &'a Probes,
    /// Changes whenever a message that was left might now be filed.
    pub rules_digest: Digest,
    pub stop: &'a Shutdown,
    /// Whether others wait for this visit no longer.
    pub slow: GivenBack,
}

/// Why a visit ended early.
pub(super) enum VisitError {
    /// The host's trouble: the others go on.
    Session(SessionError),
    /// Our own: nothing goes on.
    Fatal(Failure),
    /// The program stops, and the server was too slow to finish what it was asked for.
    Stopped,
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
    /// Ledger entries that are not in the store yet, in the order of their numbers.
    entries: Vec<Entry>,
    /// Hashes of the first of them that came, to know their like by.
    signed: Arc<HashSet<Digest>>,
    waiting: BTreeSet<String>,
    marked: BTreeSet<String>,
}

/// A message to fetch.
struct Item<'l> {
    listed: &'l Listed,
    /// What was stored under its name before and does not fit what is listed now.
    before: Option<Box<Collected>>,
    /// It is stored and cannot be read back: it is stored once more.
    again: bool,
}

/// A message that was fetched whole.
struct Got<'i, 'l> {
    item: &'i Item<'l>,
    staged: Staged,
    /// The digest that the server named.
    announced: Option<Digest>,
    measured: Result<Box<Measured>, Misannounced>,
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
            Some(_) => tools.store.with(|store| tools.state.node(&source.name, &at, store))?,
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
            entries: Vec::new(),
            signed: Arc::default(),
            waiting: BTreeSet::new(),
            marked: BTreeSet::new(),
        })
    }

    /// The whole session.
    pub(super) async fn run(mut self, connector: &Connector, passwords: &[Password]) -> Result<(), VisitError> {
        let line = self.tools.state.password_line(&self.source.name, &self.at)?;
        let patience = Patience::of(&self.source.timeouts);
        let entered = Session::enter(self.host, connector, &self.source.mailbox, passwords, line, patience);
        let (mut session, taken) = entered.await?;
        if taken != line {
            self.tools.state.set_password_line(&self.source.name, &self.at, taken)?;
        }
        let listing = match self.ledgers_and_listing(&mut session).await {
            Ok(listing) => listing,
            Err(error) => {
                self.keep_entries()?;
                return Err(error);
            }
        };
        self.waiting = listing.messages.iter().map(Listed::name).collect();
        let taken = self.take_all(session, &listing).await;
        // Whatever became of the reports.
        let entries = self.keep_entries();
        let result = match (taken, entries) {
            // Nothing is removed unless this is answered with +OK.
            (Ok(session), Ok(())) => session.quit().await.map_err(VisitError::from),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        };
        if result.is_ok() {
            self.report.deleted += self.marked.len() as u64;
            self.waiting = self.waiting.difference(&self.marked).cloned().collect();
        }
        self.remember()?;
        result
    }

    async fn ledgers_and_listing(&mut self, session: &mut Session) -> Result<Listing, VisitError> {
        if session.capabilities().xledger {
            self.ledger(session).await?;
        }
        if session.capabilities().xorigin {
            self.origins(session).await?;
        }
        let listing = session.listing().await?;
        for problem in &listing.problems {
            self.odd(format!("{problem}; nothing is deleted in this session"));
        }
        Ok(listing)
    }

    fn remember(&mut self) -> Result<(), Failure> {
        self.here.waiting = Some(self.waiting.len() as u64);
        // Names of a gateway begin with the time they were given.
        let oldest = self.waiting.iter().find_map(|name| name.parse::<Uidl>().ok());
        self.here.oldest_waiting_ms = oldest.filter(|_| self.gateway.is_some()).map(|uidl| uidl.time_ms());
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
        let node = match self.node {
            // It may be a known node at an unknown address.
            None if self.knows_ledgers()? => Some(ledger::node_of(session).await?),
            node => node,
        };
        let last = match &node {
            Some(node) => self.tools.store.with(|store| store.last_ledger_entry(name, &mailbox.to_string(), node))?,
            None => None,
        };
        let (store, at) = (self.tools.store, &self.at);
        let before = ledger::Before { mailbox, node, last };
        let (waiting, mut commit) = (&mut self.entries, false);
        let mut signed = HashSet::new();
        let shown = ledger::read::<VisitError>(session, ledger::Which::Own, before, |entries| {
            commit |= entries.iter().any(|entry| entry.body.event == Event::MovedIn);
            let accepted = entries.iter().filter(|entry| entry.body.event == Event::Accepted);
            signed.extend(accepted.take(SIGNED - SIGNED.min(signed.len())).map(Entry::hash));
            waiting.extend_from_slice(entries);
            if waiting.len() > ENTRIES_WAITING {
                store.with(|store| store.add_ledger(name, at, waiting))?;
                waiting.clear();
                commit = true;
            }
            Ok(())
        });
        let shown = shown.await;
        self.signed = Arc::new(signed);
        // What was moved is looked up in the store when its reports come.
        if commit {
            self.keep_entries()?;
        }
        let shown = shown?;
        if shown.problems.is_empty() {
            self.pin(shown.node)?;
        }
        for problem in shown.problems {
            self.odd(format!("{problem}; nothing is deleted in this session"));
        }
        Ok(())
    }

    /// Commits ledger entries that no commit of reports took along.
    fn keep_entries(&mut self) -> Result<(), VisitError> {
        let (entries, name, at) = (std::mem::take(&mut self.entries), &self.source.name, &self.at);
        let commit = self.tools.store.with(|store| {
            store.add_ledger(name, at, &entries)?;
            store.commit()
        })?;
        debug_assert!(commit.receipts.is_empty(), "reports are added and committed without letting go between");
        self.report.bytes_stored += commit.bytes_stored();
        Ok(())
    }

    /// Whether the store has ledger entries of this source.
    fn knows_ledgers(&self) -> Result<bool, VisitError> {
        let (store, name) = (self.tools.store, &self.source.name);
        let first = store.with(|store| store.ledger_entries(name).next().transpose())?;
        Ok(first.is_some())
    }

    /// The ledgers of nodes that are gone, whose messages were moved there: followed to their end like the server's own.
    async fn origins(&mut self, session: &mut Session) -> Result<(), VisitError> {
        let Some(mailbox) = self.gateway else { return Ok(()) };
        let (store, at, name) = (self.tools.store, &self.at, &self.source.name);
        let (mut kept, mut said) = (0, Vec::new());
        for (node, count) in session.origins().await? {
            let last = store.with(|store| store.last_ledger_entry(name, &mailbox.to_string(), &node))?;
            // Nothing new, or the copy of a ledger that went on elsewhere.
            if last.as_ref().is_some_and(|last| last.body.seq >= count) || Some(node) == self.node {
                continue;
            }
            let before = ledger::Before { mailbox, node: Some(node), last };
            let shown = ledger::read::<VisitError>(session, ledger::Which::Origin(node), before, |entries| {
                kept += entries.len();
                Ok(store.with(|store| store.add_ledger(name, at, entries))?)
            });
            let problems = shown.await?.problems.into_iter();
            said.extend(problems.map(|problem| format!("ledger of node {}, kept there: {problem}", node.id())));
        }
        if kept > 0 {
            let commit = store.with(Archive::commit)?;
            self.report.bytes_stored += commit.record_bytes;
        }
        for problem in said {
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

    /// Everything that is listed; gives the session back for the end of it.
    async fn take_all(&mut self, mut session: Session, listing: &Listing) -> Result<Session, VisitError> {
        let mut budget = Budget::new(self.source.max_per_round);
        let (known, mut items) = self.sort(listing)?;
        for batch in known.chunks(BATCH) {
            if self.tools.stop.is_fired() {
                return Ok(session);
            }
            let granted = budget.grant(batch.iter().map(|_| 0));
            self.report.postponed += (batch.len() - granted) as u64;
            items.extend(self.delete_known(&mut session, batch.get(..granted).unwrap_or_default()).await?);
        }
        let mut rest = items.as_slice();
        let mut fetched = Vec::new();
        loop {
            let most = rest.get(..batch_len(rest)).unwrap_or_default();
            let granted = match self.tools.stop.is_fired() || budget.is_spent() {
                true => 0,
                false => budget.grant(most.iter().map(|item| item.listed.size())),
            };
            let (next, after) = rest.split_at(granted);
            rest = after;
            if next.is_empty() && fetched.is_empty() {
                break;
            }
            let ahead = Ahead::start(session, self.wanted(next), self.fetching());
            let deletions = self.keep(std::mem::take(&mut fetched))?;
            let (back, came) = ahead.end().await?;
            session = back;
            fetched = self.came(next, came);
            self.delete(&mut session, deletions).await?;
        }
        if !self.tools.stop.is_fired() {
            self.report.postponed += rest.len() as u64;
        }
        Ok(session)
    }

    fn fetching(&self) -> Fetching {
        let Tools { staging, slow, stop, .. } = &self.tools;
        let gateway = self.gateway.is_some();
        let (slow, stop, signed) = (slow.clone(), (*stop).clone(), Arc::clone(&self.signed));
        Fetching { staging: (*staging).clone(), gateway, signed, slow, stop }
    }

    fn wanted(&self, items: &[Item<'_>]) -> Vec<Wanted> {
        items.iter().map(|item| Wanted { listed: item.listed.clone(), limit: self.limit(item.listed) }).collect()
    }

    /// What came of a batch.
    fn came<'i, 'l>(&mut self, items: &'i [Item<'l>], came: Vec<Came>) -> Vec<Got<'i, 'l>> {
        let mut got = Vec::with_capacity(items.len());
        for (item, came) in items.iter().zip(came) {
            match came {
                Came::Message { staged, announced, measured } => got.push(Got { item, staged, announced, measured }),
                Came::Refused(text) => {
                    self.problem(format!("the server does not give message {}: {text}", item.listed.name()));
                }
            }
        }
        got
    }

    /// What is stored already and may go, and what has to be fetched.
    fn sort<'l>(&mut self, listing: &'l Listing) -> Result<(Vec<&'l Listed>, Vec<Item<'l>>), VisitError> {
        // A great many messages are asked about; others may want the store meanwhile.
        let (mut known, mut items) = (Vec::new(), Vec::new());
        for block in listing.messages.chunks(SORTED_AT_ONCE) {
            let shared = self.tools.store;
            shared.with(|store| self.sort_block(store, block, &mut known, &mut items))?;
        }
        Ok((known, items))
    }

    fn sort_block<'l>(
        &mut self,
        store: &Archive,
        block: &'l [Listed],
        known: &mut Vec<&'l Listed>,
        items: &mut Vec<Item<'l>>,
    ) -> Result<(), VisitError> {
        for listed in block {
            if listed.size() > MAX_MESSAGE {
                self.problem(format!("message {} is said to have {} octets; it stays", listed.name(), listed.size()));
                continue;
            }
            if !listed.is_distinct() {
                items.push(Item { listed, before: None, again: false });
                continue;
            }
            let name = listed.name();
            match store.is_collected(&self.source.name, Some(&self.mailbox), &name)? {
                Some(before) if self.fits(&before, listed) => {
                    if self.is_due(before.collected_ms) {
                        known.push(listed);
                    }
                }
                Some(before) if self.gateway.is_some() && before.receipt.is_none() => {
                    self.report.held += 1;
                    self.problem(format!("message {name} was stored without a receipt that holds; it stays"));
                }
                Some(before) => items.push(Item { listed, before: Some(Box::new(before)), again: false }),
                None => match self.tools.state.left(&self.source.name, &name, self.tools.rules_digest)? {
                    Some(unowned) => self.report.leave(&unowned),
                    None => items.push(Item { listed, before: None, again: false }),
                },
            }
        }
        Ok(())
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
            match self.tools.store.with(|store| store.confirm(&self.source.name, mailbox, &name)) {
                Ok(Some(receipt)) => deletions.push((*listed, receipt)),
                Ok(None) => again.push(Item { listed, before: None, again: true }),
                Err(error) if error.is_damage() => {
                    self.problem(format!("message {name} is damaged in the store and fetched again: {error}"));
                    again.push(Item { listed, before: None, again: true });
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

    /// A gateway's sizes are exact; other servers may count line ends as one.
    fn limit(&self, listed: &Listed) -> u64 {
        let slack = if self.gateway.is_some() { 0 } else { listed.size() / 8 };
        listed.size() + slack + 64 * 1024
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
