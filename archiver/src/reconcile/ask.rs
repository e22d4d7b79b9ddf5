//! What a host says now: login, ledger from the last entry known, listing, QUIT. Nothing is deleted and nothing kept.

use crate::{
    collect::{
        Prepared,
        ledger::{self, Before, Shown},
        listing::Listed,
        session::{Session, SessionError},
    },
    config::Host,
};
use postkeep_shared::receipt::Entry;

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

/// Asks a host; `before` for a gateway.
///
/// # Errors
/// [`SessionError`].
pub async fn ask(prepared: &Prepared, host: &Host, before: Option<Before>) -> Result<Answer, SessionError> {
    let mut answer = Answer::default();
    let mut session = Session::open(host, prepared.connector()).await?;
    session.login(&prepared.source.mailbox, prepared.password()).await?;
    if let (Some(before), true) = (before, session.capabilities().xledger) {
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
