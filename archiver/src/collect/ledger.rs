//! Reading a gateway's ledger: every entry checked against the ones seen before, good ones handed on in blocks.

use super::{
    chain::{Chain, Link},
    session::{Session, SessionError},
};
use postkeep_shared::{
    mail::MailboxId,
    receipt::{Entry, EntryError, NodeKey},
};

/// Entries handed on at once.
const BLOCK: usize = 256;

/// What is known of a ledger before it is read.
#[derive(Debug, Clone)]
pub struct Before {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The node that signs on this host, where it is known.
    pub node: Option<NodeKey>,
    /// The last entry seen of that node.
    pub last: Option<Entry>,
}

/// What the server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The node it says it is.
    pub node: NodeKey,
    /// Sentences; when there are any, nothing may be deleted there.
    pub problems: Vec<String>,
}

/// Whose ledger is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The server's own.
    Own,
    /// That of a node whose messages were moved there.
    Origin(NodeKey),
}

/// Reads a ledger from the last entry seen on; `keep` gets good new entries.
///
/// # Errors
/// The session's, and what `keep` gives.
pub async fn read<E: From<SessionError>>(
    session: &mut Session,
    which: Which,
    before: Before,
    mut keep: impl FnMut(&[Entry]) -> Result<(), E>,
) -> Result<Shown, E> {
    let from = before.last.as_ref().map_or(1, |entry| entry.body.seq);
    let mut reader = Reader { before, chain: None, good: Vec::new(), problems: Vec::new(), stopped: false };
    let each = |node, entry: Result<Entry, EntryError>| {
        reader.take(node, entry.map_err(|error| error.to_string()));
        if reader.good.len() >= BLOCK {
            keep(&reader.good)?;
            reader.good.clear();
        }
        Ok::<(), E>(())
    };
    let node = match which {
        Which::Own => session.ledger(from, each).await?,
        Which::Origin(node) => session.origin(node, from, each).await?,
    };
    reader.end(node);
    keep(&reader.good)?;
    Ok(Shown { node, problems: reader.problems })
}

/// The node that signs on this host.
///
/// # Errors
/// The session's.
pub async fn node_of(session: &mut Session) -> Result<NodeKey, SessionError> {
    // No entry has this number, the largest a gateway reads: only the node's name comes.
    session.ledger::<SessionError>(i64::MAX.unsigned_abs(), |_, _| Ok(())).await
}

/// The node that signs on this host today, where that is another than `known` and one of `nodes` (the source's, by their
/// short names): its name may lead to another gateway now.
///
/// # Errors
/// The session's.
pub async fn other_node(
    session: &mut Session,
    known: Option<NodeKey>,
    nodes: &[String],
) -> Result<Option<NodeKey>, SessionError> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let node = node_of(session).await?;
    Ok((known != Some(node) && nodes.contains(&node.id())).then_some(node))
}

struct Reader {
    before: Before,
    chain: Option<Chain>,
    good: Vec<Entry>,
    problems: Vec<String>,
    /// Nothing that follows can be trusted.
    stopped: bool,
}

impl Reader {
    fn take(&mut self, node: NodeKey, entry: Result<Entry, String>) {
        let mut chain = self.start(node);
        if self.stopped {
            return;
        }
        let link = entry.and_then(|entry| {
            let link = chain.follow(&entry).map_err(|error| error.to_string());
            link.map(|link| (link, entry))
        });
        self.chain = Some(chain);
        match link {
            Ok((Link::Known, _)) => {}
            Ok((link, entry)) => {
                if let Link::AfterGap(first, last) = link {
                    self.problems.push(format!("ledger entries {first} to {last} are missing"));
                }
                self.good.push(entry);
            }
            Err(problem) => {
                self.stopped = true;
                self.problems.push(problem);
            }
        }
    }

    fn start(&mut self, node: NodeKey) -> Chain {
        if let Some(chain) = self.chain.take() {
            return chain;
        }
        if self.before.node.is_some_and(|known| known != node) {
            self.stopped = true;
            self.problems.push(format!(
                "the server's ledger is signed by node {} and not by the one seen there before; if the gateway was \
                 set up anew on purpose, name both in the source's `nodes`",
                node.id()
            ));
        }
        Chain::new(node, self.before.mailbox, self.before.last.as_ref())
    }

    fn end(&mut self, node: NodeKey) {
        let chain = self.start(node);
        if self.stopped {
            return;
        }
        if let Err(error) = chain.finish() {
            self.problems.push(error.to_string());
        }
    }
}
