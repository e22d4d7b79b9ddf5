//! Messages written out as plain files, with a manifest that `sha256sum -c` checks.
//!
//! `OUT/<owner>/<folder>/<date>-<id>.eml` holds the exact octets; `OUT/manifest.sha256` is written last, so a folder
//! with a manifest is a finished export. What is written is plaintext: this is the one command that makes some, and
//! only where it was asked to.

use crate::store::{Listed, Store, StoreError, StoreResult};
use postkeep_shared::disk::{Disk, DiskError, create_dirs, write_new_file};
use std::{
    collections::BTreeSet,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.sha256";

/// What an export did.
#[derive(Debug, Default)]
pub struct Exported {
    /// Files written.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
    /// Messages that could not be read: id and reason. Nothing is left of them in the folder.
    pub problems: Vec<(String, StoreError)>,
}

/// Writes every appearance in the archives of `owners` as a file below `out`, which must be new or empty.
///
/// # Errors
/// [`StoreError::Present`] when something is in the folder; [`StoreError`] when nothing more can be written. Damaged
/// messages end up in [`Exported::problems`], and the others are still written.
pub fn export_eml(store: &Store, owners: &[String], out: &Path, disk: &dyn Disk) -> StoreResult<Exported> {
    create_dirs(disk, out)?;
    if !disk.list(out)?.is_empty() {
        return Err(StoreError::Input(std::io::Error::other(format!(
            "{} is not empty; name a new folder",
            out.display()
        ))));
    }
    let (mut done, mut manifest, mut folders) = (Exported::default(), String::new(), BTreeSet::new());
    for owner in owners {
        store.list(owner, None, &mut |listed| {
            let relative = file_of(owner, &listed);
            let path = out.join(&relative);
            if let Some(folder) = path.parent()
                && folders.insert(folder.to_owned())
            {
                create_dirs(disk, folder)?;
            }
            match write_file(store, &listed, &path, disk) {
                Ok(()) => {
                    done.messages += 1;
                    done.bytes += listed.size;
                    manifest.push_str(&format!("{}  {}\n", listed.sha256, relative.display()));
                    Ok(())
                }
                Err(error @ (StoreError::Output(_) | StoreError::Disk(_))) => Err(error),
                Err(error) => {
                    done.problems.push((listed.id, error));
                    Ok(())
                }
            }
        })?;
    }
    for folder in &folders {
        disk.open_dir(folder)?.sync()?;
    }
    write_new_file(disk, &out.join(MANIFEST), manifest.as_bytes())?;
    Ok(done)
}

fn file_of(owner: &str, listed: &Listed) -> PathBuf {
    let date: String = listed.date.as_deref().unwrap_or("undated").chars().filter(|c| *c != ':' && *c != '-').collect();
    [safe(owner), safe(&listed.folder), format!("{}-{}.eml", safe(&date), safe(&listed.id))].iter().collect()
}

/// A file name for any text: what could lead elsewhere or not be shown becomes `%XX` per octet.
fn safe(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        let dot = c == '.' && at > 0;
        if c.is_alphanumeric() || dot || "-_@+=, ".contains(c) {
            out.push(c);
        } else {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                out.push_str(&format!("%{octet:02X}"));
            }
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

fn write_file(store: &Store, listed: &Listed, path: &Path, disk: &dyn Disk) -> StoreResult<()> {
    let mut file = BufWriter::with_capacity(64 * 1024, disk.create(path)?);
    let result = store.read_message(&listed.id, &mut file).and_then(|()| {
        file.flush().map_err(|e| DiskError::new("write", path, e))?;
        Ok(file.get_mut().sync()?)
    });
    if result.is_err() {
        // Half a message must not look like a whole one.
        disk.remove_file(path)?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(safe(".."), "%2E.");
        assert_eq!(safe("a/../b\0"), "a%2F..%2Fb%00");
        assert_eq!(safe("Journal Incoming"), "Journal Incoming");
        assert_eq!(safe(""), "%");
    }
}
