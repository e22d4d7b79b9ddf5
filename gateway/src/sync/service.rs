//! What a running server does: answers peers, and asks each of them when something changed here or an interval is over.

use super::{
    SyncConfig,
    exchange::{DEADLINE, answer, exchange_noted},
    key::SyncKey,
};
use crate::mailbox::Mailboxes;
use postkeep_shared::{
    disk::{Disk as _, LocalDisk},
    run::Shutdown,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;

/// Peers answered at once.
const AT_ONCE: usize = 8;
/// How often the mailboxes' folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Answers peers until `shutdown`.
pub async fn serve(listener: TcpListener, all: Mailboxes, acceptor: TlsAcceptor, mut shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let accepted = tokio::select! {
            () = shutdown.fired() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "a peer's connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // One too many is closed: a peer comes again.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (all, acceptor, mut shutdown) = (all.clone(), acceptor.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            let talking = async {
                let mut stream = acceptor.accept(tcp).await?;
                answer(&mut stream, &all, &peer.ip().to_string()).await
            };
            let talked = tokio::select! {
                () = shutdown.fired() => return,
                talked = timeout(DEADLINE, talking) => talked,
            };
            match talked {
                Ok(Ok(done)) => {
                    let (new, changed) = (done.taken.new.len(), done.taken.changed.len());
                    tracing::info!(%peer, node = done.node, new, changed, "definitions exchanged");
                    done.taken.conflicts.iter().for_each(|text| tracing::error!(%peer, "ALARM: {text}"));
                }
                Ok(Err(error)) => tracing::warn!(%peer, %error, "definitions not exchanged"),
                Err(_) => tracing::warn!(%peer, "definitions not exchanged: too slow"),
            }
        });
    }
}

/// Keeps in step with one peer until `shutdown`.
pub async fn follow(
    config: SyncConfig,
    peer: String,
    all: Mailboxes,
    key: Arc<SyncKey>,
    data_dir: PathBuf,
    mut shutdown: Shutdown,
) {
    let mut was_well = true;
    loop {
        let (seen, started) = (changed(&data_dir), Instant::now());
        let done = tokio::select! {
            () = shutdown.fired() => return,
            done = exchange_noted(&all, &key, &peer, &data_dir) => done,
        };
        match done {
            Ok((state, _)) => {
                if !state.is_well() && was_well {
                    tracing::error!("ALARM: {}", state.line());
                } else if state.is_well() && !was_well {
                    tracing::info!("{}", state.line());
                }
                was_well = state.is_well();
            }
            Err(error) => tracing::error!(%error, "the state of a peer cannot be kept"),
        }
        while started.elapsed() < config.interval && changed(&data_dir) == seen {
            tokio::select! {
                () = shutdown.fired() => return,
                () = tokio::time::sleep(LOOK.min(config.interval)) => {}
            }
        }
    }
}

/// Changes with every definition that is made, replaced or deleted: each gets its name by a rename in this folder.
fn changed(data_dir: &Path) -> Option<SystemTime> {
    LocalDisk.entry(&data_dir.join("mailboxes")).ok().and_then(|entry| entry.modified)
}
