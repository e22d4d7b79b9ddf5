//! `export`.

use super::{
    ExportArgs, ExportFormat,
    store::{open_reader, say, stdout_failed},
};
use crate::export::{MANIFEST, export_eml};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use serde_json::json;
use std::path::Path;

/// Exports messages. Exit 1 when a message could not be read; the others are written all the same.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &ExportArgs) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let owners = match &args.owner {
        Some(owner) => vec![owner.clone()],
        None => store.owners()?,
    };
    let done = match args.format {
        ExportFormat::Eml => export_eml(&store, &owners, &args.out, &LocalDisk),
    };
    let done = done.map_err(|error| match error {
        crate::store::StoreError::Input(error) => Failure::usage(error),
        other => other.into(),
    })?;
    let manifest = args.out.join(MANIFEST);
    let said = if args.json {
        let problems: Vec<_> =
            done.problems.iter().map(|(id, error)| json!({"id": id, "detail": error.to_string()})).collect();
        say(&json!({
            "messages": done.messages,
            "bytes": done.bytes,
            "out": args.out,
            "manifest": manifest,
            "problems": problems,
        }))
    } else {
        for (id, error) in &done.problems {
            eprintln!("message {id} was left out: {error}");
        }
        say(&format_args!("{} messages, {} octets; sums in {}", done.messages, done.bytes, manifest.display()))
    };
    said.map_err(stdout_failed)?;
    Ok(if done.problems.is_empty() { Exit::Done } else { Exit::Attention })
}
