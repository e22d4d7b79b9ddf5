//! What a host says now: login, ledgers from the last entries known, listing, QUIT. Nothing is deleted and nothing kept.

use super::tally::Seen;
use crate::{
    collect::{
        Prepared,
        ledger::{self, Before, Which},
        listing::Listed,
        session::{Patience, Session, SessionError},
    },
    config::Host,
};
use postkeep_shared::{
    mail::{Digest, MailboxId},
    receipt::{Entry, NodeKey},
};
use std::{collections::BTreeMap, time::Duration};

/// A running archiver may hold the mailbox for a moment.
const TRIES: u32 = 5;

/// What is known of a host before it is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The mailbox, where it is one of a gateway.
    pub(super) mailbox: Option<MailboxId>,
    /// The node that signs there.
    pub(super) node: Option<NodeKey>,
    /// The last entry known of every node.
    pub(super) last: BTreeMap<NodeKey, Entry>,
}

/// A host's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The node it is; `None` for a server without ledger.
    pub(super) node: Option<NodeKey>,
    /// Entries that were not known, by the node that signed them.
    pub(super) entries: BTreeMap<NodeKey, Vec<Seen>>,
    /// Its ledger continues what was known.
    pub(super) fits: bool,
    /// Number and hash of every entry the server shows, where that has to be compared.
    pub(super) whole: Option<BTreeMap<u64, Digest>>,
    /// Names of what waits.
    pub(super) waiting: Vec<String>,
    /// What is odd about its ledgers and lists.
    pub(super) problems: Vec<String>,
}

/// Asks a host, patiently where the mailbox is in use.
///
/// # Errors
/// [`SessionError`].
pub(super) async fn ask(prepared: &Prepared, host: &Host, known: &Known) -> Result<Answer, SessionError> {
    let mut tries = 1;
    loop {
        match once(prepared, host, known).await {
            Err(SessionError::Later(_)) if tries < TRIES => {
                tokio::time::sleep(Duration::from_secs(u64::from(tries))).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

async fn once(prepared: &Prepared, host: &Host, known: &Known) -> Result<Answer, SessionError> {
    let mut answer = Answer::default();
    let mailbox = &prepared.source.mailbox;
    let patience = Patience::of(&prepared.source.timeouts);
    let entered = Session::enter(host, prepared.connector(), mailbox, prepared.passwords(), 0, patience);
    let (mut session, _) = entered.await?;
    if let (Some(mailbox), true) = (known.mailbox, session.capabilities().xledger) {
        ledgers(&mut session, prepared, known, mailbox, &mut answer).await?;
    }
    let listing = session.listing().await?;
    answer.waiting = listing.messages.iter().map(Listed::name).collect();
    answer.problems.extend(listing.problems);
    session.quit().await?;
    Ok(answer)
}

async fn ledgers(
    session: &mut Session,
    prepared: &Prepared,
    known: &Known,
    mailbox: MailboxId,
    answer: &mut Answer,
) -> Result<(), SessionError> {
    let other = ledger::other_node(session, known.node, &prepared.source.nodes).await?;
    let node = match other.or(known.node) {
        Some(node) => node,
        // It may be a known node at an unknown address.
        None => ledger::node_of(session).await?,
    };
    let before = Before { mailbox, node: Some(node), last: known.last.get(&node).cloned() };
    let shown = read(session, Which::Own, before, answer).await?;
    answer.node = Some(shown.node);
    answer.fits = shown.problems.is_empty();
    if !answer.fits {
        answer.whole = Some(whole(session).await?);
        answer.problems.extend(shown.problems);
    }
    if !session.capabilities().xorigin {
        return Ok(());
    }
    for (node, count) in session.origins().await? {
        let last = known.last.get(&node).cloned();
        // The copy of a ledger that went on elsewhere is shorter than what is known of it.
        if last.as_ref().is_some_and(|last| last.body.seq > count) || node == shown.node {
            continue;
        }
        let before = Before { mailbox, node: Some(node), last };
        let of = read(session, Which::Origin(node), before, answer).await?;
        let problems = of.problems.into_iter().map(|text| format!("ledger of node {}, kept there: {text}", node.id()));
        answer.problems.extend(problems);
    }
    Ok(())
}

async fn read(
    session: &mut Session,
    which: Which,
    before: Before,
    answer: &mut Answer,
) -> Result<ledger::Shown, SessionError> {
    let entries = &mut answer.entries;
    ledger::read(session, which, before, |block| {
        for entry in block {
            entries.entry(entry.node).or_default().push(Seen::from(entry));
        }
        Ok(())
    })
    .await
}

/// The ledger from its beginning, whatever it holds: only to tell what is gone.
async fn whole(session: &mut Session) -> Result<BTreeMap<u64, Digest>, SessionError> {
    let mut shown = BTreeMap::new();
    let each = |_, entry: Result<Entry, _>| {
        if let Ok(entry) = entry {
            shown.insert(entry.body.seq, entry.hash());
        }
        Ok::<(), SessionError>(())
    };
    session.ledger(1, each).await?;
    Ok(shown)
}
