//! Messages written out as plain files, with a manifest that `sha256sum -c` checks (docs/formats/export.md).
//!
//! `OUT/<owner>/<folder>/<date>-<id>.eml` holds the exact octets, or `OUT/<owner>/<folder>.<n>.mbox` many of them.
//! `OUT/messages.jsonl` says of each which envelopes it came with. `OUT/manifest.sha256` is written last, so a folder with
//! a manifest is a finished export. Until then `OUT/unfinished` says what it is going to be, and the same command goes
//! on with it: what has its name is whole and is not written again. Nothing is ever overwritten.
//!
//! What is written is plaintext: this is the one command that makes some, and only where it was asked to.

mod files;
mod headers;
mod manifest;
mod mbox;
mod utf7;

pub use files::{safe, unsafe_name};
pub use headers::header;
pub use manifest::{Facts, MANIFEST, MESSAGES, PUBLIC_KEY, SIGNATURE, Signer, Told};
pub(crate) use mbox::NO_EOL;

use crate::{
    archive::Archive,
    store::{Listed, StoreError, StoreResult},
};
use files::{Output, write_whole};
use manifest::Lines;
use postkeep_shared::disk::{Disk, create_dirs, write_new_file};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// What an unfinished export is going to be.
const UNFINISHED: &str = "unfinished";

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One file per message.
    Eml,
    /// Files of many messages, in mboxrd.
    Mbox,
}

/// How to write it.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// In which form.
    pub form: Form,
    /// With a header that names archive and folder as MailStore does.
    pub mailstore_headers: bool,
}

/// What an export did.
#[derive(Debug, Default)]
pub struct Exported {
    /// Messages that are in the folder now.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
    /// Of those, messages that an interrupted run had written.
    pub before: u64,
    /// Messages that could not be read: id and reason. Nothing is left of them in the folder.
    pub problems: Vec<(String, StoreError)>,
}

/// Writes every appearance in the archives of `owners` below `out`, which must be new, empty, or of the same export
/// interrupted. `progress` hears of messages. The manifest's octets are handed to `sign` where there is
/// one; it gives signature and public key.
///
/// # Errors
/// [`StoreError::Input`] when something else is in the folder; [`StoreError`] when nothing more can be written. Damaged
/// messages end up in [`Exported::problems`], and the others are still written.
pub fn export(
    archive: &Archive,
    owners: &[String],
    how: How,
    out: &Path,
    disk: &dyn Disk,
    sign: Option<&Signer<'_>>,
    progress: &mut dyn FnMut(u64, u64),
) -> StoreResult<Exported> {
    begin(owners, how, out, disk)?;
    let output = Output::new(out, disk);
    let mut total = 0;
    for owner in owners {
        archive.list(owner, None, &mut |_| {
            total += 1;
            Ok(())
        })?;
    }
    let mut done = Exported::default();
    let mut lines = Lines::new(out, disk)?;
    // What is filed meanwhile is written too.
    let progress = &mut |done: u64| progress(done, total.max(done));
    for owner in owners {
        match how.form {
            Form::Eml => eml(archive, owner, how, &output, &mut lines, &mut done, progress)?,
            Form::Mbox => mbox::write(archive, owner, how, &output, &mut lines, &mut done, progress)?,
        }
    }
    output.sync()?;
    lines.finish(sign)?;
    disk.remove_file(&out.join(UNFINISHED))?;
    disk.open_dir(out)?.sync()?;
    Ok(done)
}

/// Takes the folder, or goes on in it.
fn begin(owners: &[String], how: How, out: &Path, disk: &dyn Disk) -> StoreResult<()> {
    create_dirs(disk, out)?;
    let plan = format!(
        "postkeep export 1, not finished; the same command goes on with it\n{}\n",
        serde_json::json!({"owners": owners, "format": how.form, "mailstore_headers": how.mailstore_headers})
    );
    let refused = |text: String| Err(StoreError::Input(std::io::Error::other(text)));
    match disk.read(&out.join(UNFINISHED), 64 * 1024 * 1024) {
        Ok(text) if text == plan.as_bytes() => return Ok(()),
        Ok(_) => {
            return refused(format!(
                "{} holds another export that is not finished; name a new folder, or say the same as then",
                out.display()
            ));
        }
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    // A temporary file of the plan itself is all that a first run may have left.
    if disk.list(out)?.iter().any(|entry| !entry.name.starts_with(&format!(".{UNFINISHED}."))) {
        return refused(format!("{} is not empty; name a new folder", out.display()));
    }
    Ok(write_new_file(disk, &out.join(UNFINISHED), plan.as_bytes())?)
}

/// One file per message.
fn eml(
    archive: &Archive,
    owner: &str,
    how: How,
    output: &Output<'_>,
    lines: &mut Lines<'_>,
    done: &mut Exported,
    progress: &mut dyn FnMut(u64),
) -> StoreResult<()> {
    archive.list(owner, None, &mut |listed| {
        let relative = file_of(owner, &listed);
        let prefix = if how.mailstore_headers { header(owner, &listed) } else { String::new() };
        let written = write_whole(output, &relative, &mut |out| write_message(archive, &listed, &prefix, out));
        let written = match written {
            Ok(written) => written,
            Err(error @ (StoreError::Output(_) | StoreError::Disk(_) | StoreError::Input(_))) => return Err(error),
            Err(error) => {
                done.problems.push((listed.id, error));
                return Ok(());
            }
        };
        done.messages += 1;
        done.bytes += listed.size;
        done.before += u64::from(written.before);
        lines.file(&written.sha256, &relative);
        lines.message(archive, owner, &listed, &relative, None, prefix.len())?;
        progress(done.messages + done.problems.len() as u64);
        Ok(())
    })
}

/// The exact octets, with a header before them where one is wanted.
fn write_message(archive: &Archive, listed: &Listed, prefix: &str, out: &mut dyn Write) -> StoreResult<()> {
    out.write_all(prefix.as_bytes()).map_err(StoreError::Output)?;
    archive.read_message(&listed.id, out)
}

fn file_of(owner: &str, listed: &Listed) -> PathBuf {
    let date: String = listed.date.as_deref().unwrap_or("undated").chars().filter(|c| *c != ':' && *c != '-').collect();
    [safe(owner), safe(&listed.folder), format!("{}-{}.eml", safe(&date), safe(&listed.id))].iter().collect()
}
