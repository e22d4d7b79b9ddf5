//! A batch that is fetched, and measured, by a task of its own, so that the batch before it can be stored meanwhile.
//!
//! The task owns the session and hands it back at the end; dropped before, it ends with its connection, and nothing at
//! the server has changed.

use super::{
    judge::{Measured, Misannounced, measure, measure_whole},
    listing::Listed,
    session::{Fetched, Session, SessionError},
    slots::GivenBack,
    visit::VisitError,
};
use crate::octets::{Staged, Staging};
use postkeep_shared::{mail::Digest, run::Shutdown};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::sleep};

/// How long a batch that is being fetched may go on when the program stops: what it has not given by then is fetched
/// another time.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// A message to ask for, and how many octets it may have.
pub(super) struct Wanted {
    pub(super) listed: Listed,
    pub(super) limit: u64,
}

/// Where messages go, and what ends the fetching.
#[derive(Clone)]
pub(super) struct Fetching {
    pub(super) staging: Staging,
    /// Whether they are a gateway's, with receipts.
    pub(super) gateway: bool,
    /// Hashes of ledger entries of which the signature was checked.
    pub(super) signed: Arc<HashSet<Digest>>,
    /// Without a slot hardly anything is kept in memory.
    pub(super) slow: GivenBack,
    pub(super) stop: Shutdown,
}

/// What came for a message that was asked for.
pub(super) enum Came {
    /// A message.
    Message {
        staged: Staged,
        /// The digest that the server named.
        announced: Option<Digest>,
        measured: Result<Box<Measured>, Misannounced>,
    },
    /// The server's answer.
    Refused(String),
}

/// What came for each message, in order.
pub(super) type Batch = (Session, Vec<Came>);

/// The task.
pub(super) struct Ahead(JoinSet<Result<Batch, VisitError>>);

impl Ahead {
    /// Begins to fetch.
    pub(super) fn start(session: Session, wanted: Vec<Wanted>, with: Fetching) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stop = with.stop.clone();
            let patience = async {
                stop.fired().await;
                sleep(STOP_GRACE).await;
            };
            tokio::select! {
                got = fetch(session, &wanted, &with) => Ok(got?),
                () = patience => Err(VisitError::Stopped),
            }
        });
        Self(task)
    }

    /// Waits for the end of it.
    pub(super) async fn end(mut self) -> Result<Batch, VisitError> {
        match self.0.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only its owner ends it early.
            Some(Err(_)) | None => Err(VisitError::Stopped),
        }
    }
}

async fn fetch(mut session: Session, wanted: &[Wanted], with: &Fetching) -> Result<Batch, SessionError> {
    let ahead = session.capabilities().pipelining;
    if ahead {
        wanted.iter().for_each(|one| session.request(&one.listed, one.limit));
    }
    let mut came = Vec::with_capacity(wanted.len());
    for one in wanted {
        if !ahead {
            session.request(&one.listed, one.limit);
        }
        let staging = &with.staging;
        let slow = with.slow.is_given_back();
        let stager = if slow { staging.begin_on_disk() } else { staging.begin_sized(one.listed.size(), one.limit) };
        came.push(match session.fetch(stager).await? {
            Fetched::Message(staged, announced) => {
                let measured = match with.gateway {
                    true => measure(&staged, &one.listed, announced.is_some(), &with.signed),
                    false => measure_whole(&staged).map(Ok),
                };
                let measured = measured.map_err(SessionError::Staging)?.map(Box::new);
                Came::Message { staged, announced, measured }
            }
            Fetched::Refused(text) => Came::Refused(text),
        });
    }
    Ok((session, came))
}
