//! The files of an import, in an order that is always the same, each with the folder it stands for.
//!
//! Inside a folder only what is a mail is taken: files in `cur/` and `new/` of a Maildir, files whose name ends in
//! `.eml`, files that begin as an mbox does, and files without an extension that begin with a header field (MH). The rest
//! is skipped and told. A file that is named itself is taken whatever it is called. Links inside folders are not
//! followed: they would show a message twice, or something else than was meant.

use super::{maildir, mbox};
use crate::export::{Facts, MANIFEST, MESSAGES, unsafe_name};
use postkeep_shared::mail::Hasher;
use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Folders inside each other that are followed.
const MAX_DEPTH: usize = 64;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One message.
    Message,
    /// Many.
    Mbox,
}

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub form: Form,
    /// The folder it is in, below the path that was named; empty at the top.
    pub folder: String,
    /// The archive it is from, where it is a file of our own export.
    pub archive: Option<String>,
    /// Its SHA-256, where an export's manifest says it.
    pub sha256: Option<String>,
    /// The export it is a file of, by its place in [`Tree::exports`], and its name there.
    pub of_export: Option<(usize, String)>,
}

/// Everything below the paths that were named.
#[derive(Debug, Default)]
pub struct Tree {
    /// In order.
    pub files: Vec<File>,
    /// What was not taken, and why.
    pub skipped: Vec<(PathBuf, String)>,
    /// What our own exports say of their messages.
    pub exports: Vec<Facts>,
}

impl Tree {
    /// Looks at `path`, which the administrator named.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        let meta = fs::metadata(path)?;
        if meta.is_dir() {
            if let Ok(manifest) = fs::read_to_string(path.join(MANIFEST)) {
                return self.export(path, &manifest);
            }
            return self.directory(path, "", 0);
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a folder"));
        }
        let form = if mbox::is_mbox(&head(path)?) { Form::Mbox } else { Form::Message };
        self.push(path, form, "");
        Ok(())
    }

    fn push(&mut self, path: &Path, form: Form, folder: &str) {
        let (path, folder) = (path.to_owned(), folder.to_owned());
        self.files.push(File { path, form, folder, archive: None, sha256: None, of_export: None });
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped.push((path.to_owned(), why.to_owned()));
    }

    fn directory(&mut self, path: &Path, folder: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            self.skip(path, "folders are nested too deeply");
            return Ok(());
        }
        let is_maildir = path.join("cur").is_dir() && path.join("new").is_dir();
        for entry in sorted(path)? {
            let (kind, path) = (entry.file_type()?, entry.path());
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                self.skip(&path, "its name is not UTF-8; rename it");
                continue;
            };
            if kind.is_dir() {
                match name.as_str() {
                    "cur" | "new" if is_maildir => self.messages(&path, folder)?,
                    // What a delivery left unfinished was never delivered.
                    "tmp" if is_maildir => {}
                    _ => self.directory(&path, &below(folder, &name), depth + 1)?,
                }
            } else if kind.is_file() {
                if !is_maildir {
                    self.file(&path, &name, folder)?;
                }
            } else {
                self.skip(&path, "neither a file nor a folder; links are not followed");
            }
        }
        Ok(())
    }

    /// `cur/` or `new/` of a Maildir.
    fn messages(&mut self, path: &Path, folder: &str) -> io::Result<()> {
        for entry in sorted(path)? {
            let path = entry.path();
            match entry.file_type()?.is_file() {
                true => self.push(&path, Form::Message, folder),
                false => self.skip(&path, "not a file, in a folder that holds messages only"),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str, folder: &str) -> io::Result<()> {
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let head = head(path)?;
        let eml = extension.eq_ignore_ascii_case("eml");
        let unnamed = extension.is_empty() || name.bytes().all(|b| b.is_ascii_digit());
        if mbox::is_mbox(&head) {
            let named = ["mbox", "mbx"].iter().any(|known| extension.eq_ignore_ascii_case(known));
            let stem = if named && !stem.is_empty() { stem } else { name };
            self.push(path, Form::Mbox, &below(folder, stem));
        } else if eml || unnamed && begins_with_field(&head) {
            self.push(path, Form::Message, folder);
        } else {
            self.skip(path, "not a mail: its name does not end in .eml, and it does not begin as one");
        }
        Ok(())
    }

    /// Our own export: `<archive>/<folder>/<file>.eml` or `<archive>/<folder>.<n>.mbox`, as the manifest lists them.
    fn export(&mut self, root: &Path, manifest: &str) -> io::Result<()> {
        let mut listed: HashMap<&str, &str> =
            manifest.lines().filter_map(|l| l.split_once("  ")).map(|(s, p)| (p, s)).collect();
        if listed.remove(MESSAGES).is_some_and(|sum| digest(&root.join(MESSAGES)).is_ok_and(|found| found != sum)) {
            self.skip(
                &root.join(MESSAGES),
                "it is not what the export's manifest says; what it tells is taken all the same",
            );
        }
        self.exports.push(Facts::read(root)?);
        let number = self.exports.len() - 1;
        let mut files = Vec::new();
        for archive in sorted(root)?.iter().filter(|entry| entry.path().is_dir()) {
            for entry in sorted(&archive.path())? {
                let place = (text(archive), text(&entry));
                if !entry.path().is_dir() {
                    let name = place.1.strip_suffix(".mbox").and_then(|name| name.rsplit_once('.'));
                    let folder = name.map_or_else(String::new, |(folder, _)| folder.to_owned());
                    let relative = format!("{}/{}", place.0, place.1);
                    files.extend(self.exported(&entry.path(), &relative, (&place.0, &folder), &mut listed, number));
                    continue;
                }
                for file in sorted(&entry.path())? {
                    let relative = format!("{}/{}/{}", place.0, place.1, text(&file));
                    files.extend(self.exported(&file.path(), &relative, (&place.0, &place.1), &mut listed, number));
                }
            }
        }
        self.files.append(&mut files);
        let mut missing: Vec<&str> = listed.into_keys().collect();
        missing.sort_unstable();
        missing
            .iter()
            .for_each(|path| self.skip(&root.join(path), "the export's manifest lists it, but it is not there"));
        Ok(())
    }

    fn exported(
        &mut self,
        path: &Path,
        relative: &str,
        (archive, folder): (&str, &str),
        listed: &mut HashMap<&str, &str>,
        export: usize,
    ) -> Option<File> {
        let Some(sha256) = listed.remove(relative) else {
            self.skip(path, "the export's manifest does not list it");
            return None;
        };
        let form = if relative.ends_with(".mbox") { Form::Mbox } else { Form::Message };
        Some(File {
            path: path.to_owned(),
            form,
            folder: unsafe_name(folder),
            archive: Some(unsafe_name(archive)),
            sha256: Some(sha256.to_owned()),
            of_export: Some((export, relative.to_owned())),
        })
    }
}

fn text(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

fn sorted(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

fn below(folder: &str, name: &str) -> String {
    let name = maildir::folder_of(name).unwrap_or_else(|| name.to_owned());
    if folder.is_empty() { name } else { format!("{folder}/{name}") }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(1024).read_to_end(&mut head)?;
    Ok(head)
}

fn begins_with_field(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
    colon > 0 && line.iter().take(colon).all(u8::is_ascii_graphic)
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (fs::File::open(path)?, Hasher::default());
    let mut block = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(hasher.finish().to_string());
        }
        hasher.update(block.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::write(path, content).expect("writes");
    }

    #[test]
    fn what_is_taken_and_what_is_skipped() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path();
        for (path, content) in [
            ("a.EML", "Subject: x\n\n"),
            ("sub/b.eml", ""),
            ("sub/42", "From: a@x\n\n"),
            ("sub/notes.txt", "From: a@x\n\n"),
            ("sub/README", "hello\n"),
            ("mail/Sent.mbox", "From a\nA: 1\n"),
            ("mail/inbox", "From a\nA: 1\n"),
            ("box/cur/1:2,S", "x"),
            ("box/new/2", "x"),
            ("box/tmp/3", "x"),
            ("box/maildirsize", "x"),
            ("box/.Sent.2020/cur/4", "x"),
            ("box/.Sent.2020/new/.keep", "x"),
        ] {
            put(root, path, content);
        }
        std::os::unix::fs::symlink(root.join("a.EML"), root.join("link.eml")).expect("links");
        let mut tree = Tree::default();
        tree.add(root).expect("reads");
        let shown: Vec<String> = tree
            .files
            .iter()
            .map(|f| format!("{:?} {} in {}", f.form, f.path.strip_prefix(root).expect("below").display(), f.folder))
            .collect();
        let wanted = [
            "Message a.EML in ",
            "Message box/.Sent.2020/cur/4 in box/Sent/2020",
            "Message box/.Sent.2020/new/.keep in box/Sent/2020",
            "Message box/cur/1:2,S in box",
            "Message box/new/2 in box",
            "Mbox mail/Sent.mbox in mail/Sent",
            "Mbox mail/inbox in mail/inbox",
            "Message sub/42 in sub",
            "Message sub/b.eml in sub",
        ];
        assert_eq!(shown, wanted);
        let skipped: Vec<_> =
            tree.skipped.iter().map(|(p, _)| p.strip_prefix(root).expect("below").to_owned()).collect();
        assert_eq!(skipped, ["link.eml", "sub/README", "sub/notes.txt"].map(PathBuf::from));
    }

    #[test]
    fn an_export_is_read_by_its_manifest() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path();
        put(root, "ann/Journal Incoming/1.eml", "A: 1\n\n");
        put(root, "ann/%2E./2.eml", "A: 2\n\n");
        put(root, "ann/x/stray.eml", "A: 3\n\n");
        put(root, MANIFEST, "aa  ann/Journal Incoming/1.eml\nbb  ann/%2E./2.eml\ncc  bob/gone/3.eml\n");
        let mut tree = Tree::default();
        tree.add(root).expect("reads");
        let shown: Vec<_> = tree
            .files
            .iter()
            .map(|f| (f.archive.clone().unwrap_or_default(), f.folder.clone(), f.sha256.clone()))
            .collect();
        let of = |folder: &str, sum: &str| ("ann".to_owned(), folder.to_owned(), Some(sum.to_owned()));
        assert_eq!(shown, [of("..", "bb"), of("Journal Incoming", "aa")]);
        assert_eq!(tree.skipped.len(), 2, "{:?}", tree.skipped);
    }
}
