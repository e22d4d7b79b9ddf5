//! `mailbox sync`: exchanges definitions with peers now, whether the server runs or not.

use super::bundle::print;
use crate::{
    config::GatewayConfig,
    mailbox::Mailboxes,
    sync::{SyncKey, exchange_noted, is_peer},
};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};

/// Arguments of `mailbox sync`.
#[derive(clap::Args)]
pub struct SyncArgs {
    /// Peer, name:port [default: all of `[sync] peers`]
    peer: Option<String>,
    /// Make the key file instead; copy it to the other node
    #[arg(long)]
    make_key: bool,
    /// One JSON document per peer on standard output
    #[arg(long)]
    json: bool,
}

/// Exchanges definitions.
pub(super) fn sync(config: &GatewayConfig, all: &Mailboxes, args: &SyncArgs) -> Result<Exit, Failure> {
    let Some(file) = &config.sync.key_file else {
        let text = format!(
            "{}: sync.key_file: missing; name the file with the key that all peers share",
            config.file.display()
        );
        return Err(Failure::usage(text));
    };
    if args.make_key {
        SyncKey::create(file, &LocalDisk)?;
        println!("{}: made; copy it to the other node over a safe way, readable by its service only", file.display());
        return Ok(Exit::Done);
    }
    let key = SyncKey::load(file, &LocalDisk)?;
    let peers = match &args.peer {
        Some(peer) if is_peer(peer) => vec![peer.clone()],
        Some(peer) => return Err(Failure::usage(format!("`{}` is not a peer; write name:port", peer.escape_debug()))),
        None if config.sync.peers.is_empty() => {
            return Err(Failure::usage("no peer: name one, or list them in [sync] peers"));
        }
        None => config.sync.peers.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start: {e}")))?;
    let (mut well, mut reached) = (true, 0);
    for peer in &peers {
        let (state, done) = runtime.block_on(exchange_noted(all, &key, peer, &config.data_dir))?;
        well &= state.is_well();
        match done {
            Ok(exchanged) => {
                reached += 1;
                print(&exchanged.taken, &exchanged.node, args.json);
            }
            Err(error) => eprintln!("{peer}: {error}"),
        }
    }
    Ok(match (well, reached) {
        (true, _) => Exit::Done,
        (false, 0) => Exit::Cannot,
        (false, _) => Exit::Attention,
    })
}
