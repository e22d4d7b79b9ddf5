//! One exchange: whoever connects sends its bundle, the other takes it in and answers with its own, which by then holds
//! what was newer; the first takes that in. Each bundle is preceded by its length, four octets, big-endian.

use super::{
    PeerState,
    key::{NAME, SyncKey},
};
use crate::{
    bundle::{self, Bundle, BundleError, Item, Purpose},
    mailbox::{Mailbox, MailboxError, Mailboxes, OnConflict, TakenIn},
};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure, now_ms},
};
use std::{io, path::Path, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::pki_types::ServerName;

/// A bundle of more octets is none: some fifty thousand mailboxes.
const MAX: u32 = 64 * 1024 * 1024;
/// Connecting and handshake together.
const OPENING: Duration = Duration::from_secs(10);
/// The whole exchange.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// What an exchange did here.
#[derive(Debug, Clone, Default)]
pub struct Exchanged {
    /// The other node's short name.
    pub node: String,
    /// What was taken in.
    pub taken: TakenIn,
}

/// Why definitions were not exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No connection, no handshake, or it broke.
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    /// Its bundle cannot be used.
    #[error("what it sent {0}")]
    Bundle(#[from] BundleError),
    /// It makes no sense.
    #[error("what it sent: {0}")]
    Nonsense(String),
    /// A copy of this node.
    #[error(
        "it signs with this node's own key: it is a copy of this node; stop one of them at once, its ledger is worthless"
    )]
    Twin,
    /// Definitions here cannot be read or written.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

impl From<io::Error> for SyncError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Exchanges definitions with a peer, `name:port`.
///
/// # Errors
/// [`SyncError`].
pub async fn exchange(all: &Mailboxes, key: &SyncKey, peer: &str) -> Result<Exchanged, SyncError> {
    let connector = key.connector().map_err(SyncError::Unreachable)?;
    let opening = async {
        let tcp = TcpStream::connect(peer).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        connector.connect(name, tcp).await
    };
    let mut stream =
        timeout(OPENING, opening).await.map_err(|_| SyncError::Unreachable("no answer in time".into()))??;
    let talking = async {
        let ours = blocking(all, own).await?;
        send(&mut stream, &ours).await?;
        let theirs = receive(&mut stream).await?;
        // It says that both are done; a peer that is gone already has said it.
        drop(stream.shutdown().await);
        let peer = peer.to_owned();
        blocking(all, move |all| take(all, &theirs, &peer)).await
    };
    timeout(DEADLINE, talking).await.map_err(|_| SyncError::Unreachable("it is too slow".into()))?
}

/// As [`exchange`]; what came of it is remembered for `status`.
///
/// # Errors
/// [`Failure`] where it cannot be remembered.
pub async fn exchange_noted(
    all: &Mailboxes,
    key: &SyncKey,
    peer: &str,
    data_dir: &Path,
) -> Result<(PeerState, Result<Exchanged, SyncError>), Failure> {
    let done = exchange(all, key, peer).await;
    let mut state = PeerState::of(&LocalDisk, data_dir, peer);
    state.tried_ms = Some(now_ms());
    match &done {
        Ok(exchanged) => {
            state.exchanged_ms = state.tried_ms;
            state.node = Some(exchanged.node.clone());
            state.error = None;
            state.conflicts.clone_from(&exchanged.taken.conflicts);
        }
        Err(error) => state.error = Some(error.to_string()),
    }
    state.keep(&LocalDisk, data_dir).map_err(|e| Failure::new(Exit::Cannot, e.to_string()))?;
    Ok((state, done))
}

/// The other end.
pub(super) async fn answer<S>(stream: &mut S, all: &Mailboxes, peer: &str) -> Result<Exchanged, SyncError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let theirs = receive(stream).await?;
    let peer = peer.to_owned();
    let exchanged = blocking(all, move |all| take(all, &theirs, &peer)).await?;
    let ours = blocking(all, own).await?;
    send(stream, &ours).await?;
    stream.shutdown().await?;
    Ok(exchanged)
}

async fn blocking<T: Send + 'static>(
    all: &Mailboxes,
    work: impl FnOnce(&Mailboxes) -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    let all = all.clone();
    let done = tokio::task::spawn_blocking(move || work(&all)).await;
    done.unwrap_or_else(|_| Err(SyncError::Nonsense("reading it broke off".into())))
}

/// Everything here as a bundle.
fn own(all: &Mailboxes) -> Result<Vec<u8>, SyncError> {
    let mut items = Vec::new();
    for mailbox in all.list()? {
        items.push(Item::Mailbox(mailbox.to_portable().map_err(SyncError::Nonsense)?));
    }
    items.extend(all.deleted_ids()?.into_iter().map(|id| Item::Deleted(id.to_string())));
    let created = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    Ok(bundle::write(Purpose::Mailboxes, created, &items, all.node())?.to_vec())
}

/// Takes a peer's bundle in.
fn take(all: &Mailboxes, octets: &[u8], peer: &str) -> Result<Exchanged, SyncError> {
    let Bundle { node, items, .. } = bundle::read(octets, None)?;
    if node == all.node().public() {
        return Err(SyncError::Twin);
    }
    let (mut mailboxes, mut gone) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Mailbox(portable) => mailboxes.push(Mailbox::from_portable(portable).map_err(SyncError::Nonsense)?),
            Item::Deleted(id) => gone.push(id),
            _ => return Err(SyncError::Nonsense("something else than mailboxes".into())),
        }
    }
    let mut taken = all.take_in(&mailboxes, &format!("at {peer} (node {})", node.id()), OnConflict::GoOn)?;
    for id in gone {
        if let Ok(known) = id.parse()
            && all.lookup(&known)?.is_some()
        {
            taken
                .conflicts
                .push(format!("mailbox {id} was deleted at {peer} and is still here; suspend and delete it here too"));
        }
    }
    for id in &taken.deleted {
        taken
            .conflicts
            .push(format!("mailbox {id} was deleted here and is still at {peer}; suspend and delete it there too"));
    }
    Ok(Exchanged { node: node.id(), taken })
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bundle: &[u8]) -> Result<(), SyncError> {
    let len = u32::try_from(bundle.len()).ok().filter(|len| *len <= MAX);
    let len = len.ok_or_else(|| SyncError::Nonsense("there are too many mailboxes here".into()))?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(bundle).await?;
    Ok(stream.flush().await?)
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, SyncError> {
    let len = stream.read_u32().await?;
    if len > MAX {
        return Err(SyncError::Nonsense("it is too long".into()));
    }
    let mut octets = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut octets).await?;
    if octets.len() as u64 != u64::from(len) {
        return Err(SyncError::Unreachable("it was cut short".into()));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::State;
    use postkeep_shared::crypt::Password;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    fn key(folder: &Path) -> SyncKey {
        let file = folder.join("sync.key");
        if !file.exists() {
            SyncKey::create(&file, &LocalDisk).expect("makes");
        }
        SyncKey::load(&file, &LocalDisk).expect("reads")
    }

    /// Both ends of one exchange between `here` and `there`.
    async fn both(
        (here, key): (&Mailboxes, &SyncKey),
        (there, other_key): (&Mailboxes, &SyncKey),
    ) -> (Result<Exchanged, SyncError>, Result<Exchanged, SyncError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let acceptor = other_key.acceptor().expect("TLS");
        let serving = async {
            let (tcp, _) = listener.accept().await?;
            let mut stream = acceptor.accept(tcp).await?;
            answer(&mut stream, there, "the client").await
        };
        tokio::join!(exchange(here, key, &address), serving)
    }

    #[tokio::test]
    async fn what_changed_on_either_side_is_on_both() {
        let (a, b) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let open = |folder: &Path| Mailboxes::open(folder, Arc::new(LocalDisk)).expect("opens");
        let (here, there, key) = (open(a.path()), open(b.path()), key(a.path()));
        let (old, new) = (Password::received(b"the old password"), Password::received(b"the new password"));
        let (one, _) = here.create("one", Some(&old)).expect("makes");
        let (two, _) = there.create("two", None).expect("makes");
        let (at_here, at_there) = both((&here, &key), (&there, &key)).await;
        assert_eq!(at_here.expect("exchanged").taken.new, [two.id]);
        assert_eq!(at_there.expect("exchanged").taken.new, [one.id]);

        here.passwd(&one.id, &old, &new).expect("changes");
        there.set_state(&one.id, State::Suspended).expect("suspends");
        let (at_here, at_there) = both((&there, &key), (&here, &key)).await;
        assert!(at_here.expect("exchanged").taken.conflicts.is_empty());
        assert!(at_there.expect("exchanged").taken.conflicts.is_empty());
        for all in [&here, &there] {
            let now = all.lookup(&one.id).expect("reads").expect("there");
            assert_eq!(now.state, State::Suspended);
            assert!(now.unlock(&new).is_ok() && now.unlock(&old).is_err());
        }
        let again = both((&here, &key), (&there, &key)).await.0.expect("exchanged").taken;
        assert_eq!((again.unchanged, again.new.len() + again.changed.len()), (2, 0));

        here.delete(&one.id).expect("deletes");
        let (at_here, at_there) = both((&here, &key), (&there, &key)).await;
        assert!(at_here.expect("exchanged").taken.conflicts[0].contains("deleted here"));
        assert!(at_there.expect("exchanged").taken.conflicts[0].contains("still here"));
        assert!(here.lookup(&one.id).expect("reads").is_none(), "a deleted mailbox must not come back");
    }

    #[tokio::test]
    async fn another_key_and_a_twin_are_refused() {
        let (a, b) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let all = Mailboxes::open(a.path(), Arc::new(LocalDisk)).expect("opens");
        let other = Mailboxes::open(b.path(), Arc::new(LocalDisk)).expect("opens");
        other.create("secret", None).expect("makes");
        let (ours, theirs) = (key(a.path()), key(b.path()));
        let (here, there) = both((&all, &ours), (&other, &theirs)).await;
        assert!(matches!(here, Err(SyncError::Unreachable(_))) && matches!(there, Err(SyncError::Unreachable(_))));
        assert!(all.list().expect("reads").is_empty(), "nothing may be told to somebody without the key");
        let (here, there) = both((&all, &ours), (&all, &ours)).await;
        assert!(matches!(there, Err(SyncError::Twin)), "{there:?}");
        assert!(here.is_err());
    }
}
