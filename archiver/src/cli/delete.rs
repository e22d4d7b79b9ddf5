//! `delete`.

use super::{
    DeleteArgs,
    held::who,
    load_and_lock,
    store::{printable, say, stdout_failed},
};
use crate::{
    archive::Archive,
    store::{Deleted, Deletion},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms},
};
use serde_json::json;
use std::{path::Path, sync::Arc};

/// Takes messages out of an archive.
///
/// # Errors
/// Exit 2 when a message is not there (those before it are deleted), exit 5 when the store may not be changed.
pub fn run(config: Option<&Path>, args: &DeleteArgs) -> Result<Exit, Failure> {
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("--reason says nothing; write why the messages are deleted"));
    }
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock(config, &*disk)?;
    config.log.start();
    let mut archive = Archive::open(&config, &disk)?;
    let who = who();
    for id in &args.ids {
        let deletion = Deletion {
            owner: &args.owner,
            id,
            folder: args.folder.as_deref(),
            reason: args.reason.trim(),
            who: who.clone(),
            deleted_ms: now_ms(),
        };
        let deleted = archive.delete(&deletion)?;
        // Only what is durable is told.
        let said = if args.json { say(&json!(deleted)) } else { say(&line(&deleted)) };
        said.map_err(stdout_failed)?;
    }
    Ok(Exit::Done)
}

fn line(deleted: &Deleted) -> String {
    let Deleted { id, owner, folders, messages, reports } = deleted;
    let rest = match messages {
        0 => "its octets are needed elsewhere and stay".to_owned(),
        _ => format!("{messages} stored messages and {reports} reports are no longer needed"),
    };
    format!("{id} is out of the archive of {} ({}); {rest}", printable(owner), printable(&folders.join(", ")))
}
