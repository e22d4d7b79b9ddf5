//! `export`.

use super::{
    ExportArgs, ExportFormat,
    progress::Bar,
    store::{ended, open_reader, say, stdout_failed},
};
use crate::{
    config::ArchiverConfig,
    export::{Form, How, MANIFEST, SIGNATURE, export},
    signing::ArchiverKey,
    store::StoreError,
};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use serde_json::json;
use std::path::Path;

/// Exports messages. Exit 1 when a message or a record could not be read; the others are written all the same.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &ExportArgs) -> Result<Exit, Failure> {
    let archive = open_reader(config)?;
    let owners = match &args.owner {
        Some(owner) => vec![owner.clone()],
        None => archive.owners()?,
    };
    let form = match args.format {
        ExportFormat::Eml => Form::Eml,
        ExportFormat::Mbox => Form::Mbox,
    };
    let key = match args.sign {
        true => Some(ArchiverKey::load_or_create(&ArchiverConfig::find(config)?.signing_key_file(), &LocalDisk)?),
        false => None,
    };
    let sign = key.as_ref().map(|key| |octets: &[u8]| (key.sign(octets), key.public().octets()));
    let sign = sign.as_ref().map(|sign| sign as &crate::export::Signer<'_>);
    let how = How { form, mailstore_headers: args.mailstore_headers };
    let mut bar = Bar::new("export", "messages", args.json);
    let told = &mut |done, total| bar.at(done, total);
    let done = export(&archive, &owners, how, &args.out, &LocalDisk, sign, told);
    drop(bar);
    let done = done.map_err(|error| match error {
        StoreError::Input(error) => Failure::usage(error),
        other => other.into(),
    })?;
    let manifest = args.out.join(MANIFEST);
    let signature = args.sign.then(|| args.out.join(SIGNATURE));
    let said = if args.json {
        let problems: Vec<_> =
            done.problems.iter().map(|(id, error)| json!({"id": id, "detail": error.to_string()})).collect();
        say(&json!({
            "messages": done.messages,
            "before": done.before,
            "bytes": done.bytes,
            "out": args.out,
            "manifest": manifest,
            "signature": signature,
            "problems": problems,
        }))
    } else {
        for (id, error) in &done.problems {
            eprintln!("message {id} was left out: {error}");
        }
        say(&format_args!("{} messages, {} octets; sums in {}", done.messages, done.bytes, manifest.display()))
    };
    said.map_err(stdout_failed)?;
    Ok(if done.problems.is_empty() { ended(&archive) } else { Exit::Attention })
}
