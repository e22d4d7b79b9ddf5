//! What a host says now: login, ledger from the last entry known, listing, QUIT. Nothing is deleted and nothing kept.

use crate::{
    collect::{
        Prepared,
        ledger::{self, Before, Shown},
        listing::Listed,
        session::{Patience, Session, SessionError},
    },
    config::Host,
};
use postkeep_shared::receipt::{Entry, NodeKey};

/// A host's answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its ledger: node and problems; `None` for a server without one.
    pub ledger: Option<Shown>,
    /// Entries that were not known.
    pub entries: Vec<Entry>,
    /// Names of what waits.
    pub waiting: Vec<String>,
    /// What is odd about its lists.
    pub problems: Vec<String>,
}

/// Asks a host; `before` for a gateway, `last_of` for the last entry known of any node.
///
/// # Errors
/// [`SessionError`].
pub async fn ask(
    prepared: &Prepared,
    host: &Host,
    before: Option<Before>,
    last_of: impl Fn(NodeKey) -> Option<Entry>,
) -> Result<Answer, SessionError> {
    let mut answer = Answer::default();
    let mailbox = &prepared.source.mailbox;
    let patience = Patience::of(&prepared.source.timeouts);
    let entered = Session::enter(host, prepared.connector(), mailbox, prepared.passwords(), 0, patience);
    let (mut session, _) = entered.await?;
    if let (Some(mut before), true) = (before, session.capabilities().xledger) {
        if let Some(node) = ledger::other_node(&mut session, before.node, &prepared.source.nodes).await? {
            before = Before { node: Some(node), last: last_of(node), ..before };
        }
        let entries = &mut answer.entries;
        let shown = ledger::read::<SessionError>(&mut session, before, |block| {
            entries.extend_from_slice(block);
            Ok(())
        });
        answer.ledger = Some(shown.await?);
    }
    let listing = session.listing().await?;
    answer.waiting = listing.messages.iter().map(Listed::name).collect();
    answer.problems = listing.problems;
    session.quit().await?;
    Ok(answer)
}
