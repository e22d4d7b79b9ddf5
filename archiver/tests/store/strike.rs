//! What can happen to a file: {flip, truncate, zero, delete, swap, duplicate} × {pack header, pack body, pack table, record, key
//! file, catalog, lock}, each at several places.

#![allow(dead_code, unreachable_pub, missing_docs)]

use super::{
    filled::Filled,
    support::{Place, copy},
};
use std::{
    fmt, fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// Octets of headers: of a pack, of a frame in it with where its length stands; of a record file, of a batch.
const PACK: (usize, usize, usize) = (44, 40, 12);
const RECORDS: (usize, usize, usize) = (68, 84, 24);
const FOOTER: usize = 16;

type Deed = dyn Fn(&Place) + Send + Sync;
type Change = dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync;

pub struct Strike {
    pub action: &'static str,
    pub object: &'static str,
    pub what: String,
    deed: Box<Deed>,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}", self.action, self.object, self.what)
    }
}

impl Strike {
    pub fn at(&self, place: &Place) {
        (self.deed)(place);
    }
}

/// What is collected while the strikes are listed.
struct Strikes<'a> {
    filled: &'a Filled,
    object: &'static str,
    all: Vec<Strike>,
}

/// Every strike: those that need a sealed pack where there is one, else all others.
pub fn strikes(filled: &Filled) -> Vec<Strike> {
    let mut strikes = Strikes { filled, object: "", all: Vec::new() };
    strikes.pack_header();
    strikes.pack_body();
    if filled.sealed {
        strikes.pack_table();
        return strikes.all;
    }
    strikes.records();
    strikes.keys();
    strikes.catalog();
    strikes.lock();
    strikes.all
}

impl Strikes<'_> {
    fn push(&mut self, action: &'static str, what: impl Into<String>, deed: impl Fn(&Place) + Send + Sync + 'static) {
        self.all.push(Strike { action, object: self.object, what: what.into(), deed: Box::new(deed) });
    }

    /// A change of the octets of one file, by its path below the place.
    fn change(
        &mut self,
        action: &'static str,
        what: impl Into<String>,
        path: &Path,
        change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) {
        let (path, change): (_, Box<Change>) = (path.to_owned(), Box::new(change));
        self.push(action, what, move |place| {
            let path = place.0.path().join(&path);
            fs::write(&path, change(fs::read(&path).expect("reads"))).expect("writes");
        });
    }

    fn flip(&mut self, what: impl Into<String>, path: &Path, at: usize) {
        self.change("flip", what, path, move |mut octets| {
            octets[at] ^= 1;
            octets
        });
    }

    fn cut(&mut self, what: impl Into<String>, path: &Path, at: usize) {
        self.change("truncate", what, path, move |octets| octets[..at].to_vec());
    }

    fn zero(&mut self, what: impl Into<String>, path: &Path, range: Range<usize>) {
        self.change("zero", what, path, move |mut octets| {
            octets[range.clone()].fill(0);
            octets
        });
    }

    /// Octets taken out of the middle: the rest moves.
    fn cut_out(&mut self, what: impl Into<String>, path: &Path, range: Range<usize>) {
        self.change("delete", what, path, move |octets| [&octets[..range.start], &octets[range.end..]].concat());
    }

    fn repeat(&mut self, what: impl Into<String>, path: &Path, range: Range<usize>) {
        self.change("duplicate", what, path, move |octets| {
            [&octets[..range.end], &octets[range.clone()], &octets[range.end..]].concat()
        });
    }

    /// Two ranges, the first before the second, change places.
    fn exchange(&mut self, what: impl Into<String>, path: &Path, a: Range<usize>, b: Range<usize>) {
        self.change("swap", what, path, move |octets| {
            let between = &octets[a.end..b.start];
            [&octets[..a.start], &octets[b.clone()], between, &octets[a.clone()], &octets[b.end..]].concat()
        });
    }

    fn remove(&mut self, what: impl Into<String>, path: &Path) {
        let path = path.to_owned();
        self.push("delete", what, move |place| fs::remove_file(place.0.path().join(&path)).expect("removes"));
    }

    fn copied(&mut self, what: impl Into<String>, path: &Path, to: &Path) {
        let (path, to) = (path.to_owned(), to.to_owned());
        self.push("duplicate", what, move |place| {
            let octets = fs::read(place.0.path().join(&path)).expect("reads");
            fs::write(place.0.path().join(&to), octets).expect("writes");
        });
    }

    /// Parts of two files change places: the first octets, or all.
    fn swap(&mut self, what: impl Into<String>, a: &Path, b: &Path, first: Option<usize>) {
        let (a, b) = (a.to_owned(), b.to_owned());
        self.push("swap", what, move |place| {
            let (a, b) = (place.0.path().join(&a), place.0.path().join(&b));
            let (one, two) = (fs::read(&a).expect("reads"), fs::read(&b).expect("reads"));
            let (n, m) = (first.unwrap_or(one.len()), first.unwrap_or(two.len()));
            fs::write(&a, [&two[..m], &one[n..]].concat()).expect("writes");
            fs::write(&b, [&one[..n], &two[m..]].concat()).expect("writes");
        });
    }

    /// Files of another place instead of those that are here.
    fn instead(&mut self, what: impl Into<String>, other: &Place, path: &Path) {
        let (from, path) = (other.0.path().join(path), path.to_owned());
        self.push("swap", what, move |place| {
            let to = place.0.path().join(&path);
            if from.is_dir() {
                fs::remove_dir_all(&to).expect("removes");
                fs::create_dir(&to).expect("makes");
                copy(&from, &to);
            } else {
                fs::write(&to, fs::read(&from).expect("reads")).expect("writes");
            }
        });
    }

    fn pack(&self, n: usize) -> PathBuf {
        below(&self.filled.packs[n])
    }

    fn octets(&self, path: &Path) -> Vec<u8> {
        fs::read(self.filled.place.0.path().join(path)).expect("reads")
    }

    fn pack_header(&mut self) {
        self.object = "pack header";
        let (first, last) = (self.pack(0), self.pack(self.filled.packs.len() - 1));
        let all = [("sealed", &first), ("first", &first), ("last", &last)];
        let sealed = self.filled.sealed;
        for (name, path) in all.into_iter().filter(|(name, _)| (*name == "sealed") == sealed) {
            for (what, at) in [("magic", 0), ("version", 7), ("store", 10), ("name", 30), ("epoch", 43)] {
                self.flip(format!("{name}, {what}"), path, at);
            }
            self.cut(format!("{name}, within"), path, 20);
            self.zero(name, path, 0..PACK.0);
            self.cut_out(name, path, 0..PACK.0);
            self.repeat(name, path, 0..PACK.0);
        }
        let name = if sealed { "sealed with open" } else { "of two epochs" };
        self.swap(name, &first, &last, Some(PACK.0));
    }

    fn pack_body(&mut self) {
        self.object = "pack body";
        let sealed = self.filled.sealed;
        let all = [("sealed", 0), ("first", 0), ("last", 1)];
        for (name, n) in all.into_iter().filter(|(name, _)| (*name == "sealed") == sealed) {
            let path = self.pack(n);
            let octets = self.octets(&path);
            let frames = groups(&octets);
            let (first, last) = (frames[0].clone(), frames[frames.len() - 1].clone());
            for (what, at) in [("frame magic", first.start), ("length", first.start + 15), ("nonce", first.start + 20)]
            {
                self.flip(format!("{name}, {what}"), &path, at);
            }
            for (what, at) in [("first content", first.start + 50), ("last tag", last.end - 1)] {
                self.flip(format!("{name}, {what}"), &path, at);
            }
            self.cut(format!("{name}, within the first frame"), &path, first.start + 50);
            self.cut(format!("{name}, before the last frame"), &path, last.start);
            self.zero(format!("{name}, first frame"), &path, first.clone());
            self.zero(format!("{name}, last frame"), &path, last.clone());
            self.cut_out(format!("{name}, last frame"), &path, last.clone());
            self.remove(format!("{name}, the file"), &path);
            self.exchange(format!("{name}, first and last frame"), &path, first, last.clone());
            self.repeat(format!("{name}, last frame"), &path, last);
            self.copied(format!("{name}, as another pack"), &path, &renamed(&path));
            self.copied(format!("{name}, as no pack"), &path, &path.with_extension("pack.old"));
        }
        let name = if sealed { "sealed with open" } else { "two files of two epochs" };
        self.swap(name, &self.pack(0), &self.pack(1), None);
    }

    fn pack_table(&mut self) {
        self.object = "pack table";
        let path = self.pack(0);
        let octets = self.octets(&path);
        let (frames, end) = (frames(&octets, PACK), octets.len());
        let (before, table) = (frames[frames.len() - 2].clone(), frames[frames.len() - 1].clone());
        assert_eq!((octets[table.start + 4], table.end + FOOTER), (2, end), "a sealed pack");
        self.flip("header", &path, table.start + 5);
        self.flip("content", &path, table.start + 60);
        self.flip("footer, place", &path, end - FOOTER + 7);
        self.flip("footer, magic", &path, end - 1);
        self.cut("within", &path, table.start + 60);
        self.cut("within the footer", &path, end - 3);
        self.zero("table and footer", &path, table.start..end);
        self.zero("footer", &path, table.end..end);
        self.cut("the whole", &path, table.start);
        self.cut_out("table, footer stays", &path, table.clone());
        self.cut_out("footer", &path, table.end..end);
        self.exchange("with the frame before", &path, before, table.clone());
        self.repeat("table", &path, table.clone());
        self.repeat("table and footer", &path, table.start..end);
    }

    fn records(&mut self) {
        self.object = "record";
        for (name, n) in [("first file", 0), ("last file", 1)] {
            let path = below(&self.filled.records[n]);
            let octets = self.octets(&path);
            let frames = frames(&octets, RECORDS);
            let (first, last) = (frames[0].clone(), frames[frames.len() - 1].clone());
            for (what, at) in [("magic", 0), ("version", 7), ("store", 10), ("number", 31), ("hash", 40), ("epoch", 67)]
            {
                self.flip(format!("{name}, {what}"), &path, at);
            }
            for (what, frame) in [("first batch", &first), ("last batch", &last)] {
                self.flip(format!("{name}, {what}, header"), &path, frame.start + 15);
                self.flip(format!("{name}, {what}, length"), &path, frame.start + 27);
                self.flip(format!("{name}, {what}, content"), &path, frame.end - 20);
                self.zero(format!("{name}, {what}"), &path, frame.clone());
                self.cut_out(format!("{name}, {what}"), &path, frame.clone());
                self.repeat(format!("{name}, {what}"), &path, frame.clone());
                self.cut(format!("{name}, within the {what}"), &path, frame.start + 90);
            }
            self.cut(format!("{name}, within its header"), &path, 20);
            self.cut(format!("{name}, to nothing"), &path, 0);
            self.zero(format!("{name}, header"), &path, 0..RECORDS.0);
            self.zero(format!("{name}, all"), &path, 0..octets.len());
            self.remove(format!("{name}, the file"), &path);
            self.exchange(format!("{name}, two batches"), &path, first, last);
            self.copied(format!("{name}, as the next file"), &path, &path.with_file_name("00000003.rec"));
            self.copied(format!("{name}, as no record file"), &path, &path.with_extension("rec.old"));
        }
        self.swap("two files", &below(&self.filled.records[0]), &below(&self.filled.records[1]), None);
        self.swap("two headers", &below(&self.filled.records[0]), &below(&self.filled.records[1]), Some(RECORDS.0));
    }

    fn keys(&mut self) {
        self.object = "key file";
        let (store, unlock) = (PathBuf::from("stores/main/store.toml"), PathBuf::from("unlock.key"));
        let octets = self.octets(&store);
        let text = String::from_utf8(octets.clone()).expect("text");
        for key in ["check", "version", "id", "name", "state", "key_by_unlock", "key_by_passphrase"] {
            let line = text.lines().position(|line| line.starts_with(&format!("{key} "))).expect("there");
            let at: usize = text.lines().take(line).map(|line| line.len() + 1).sum();
            let value = text[at..].find('=').expect("a value") + 4;
            self.flip(format!("store.toml, {key}"), &store, at + value.min(text[at..].find('\n').expect("a line") - 1));
        }
        self.flip("unlock.key, first line", &unlock, 3);
        self.flip("unlock.key, key", &unlock, 40);
        for (name, path) in [("store.toml", &store), ("unlock.key", &unlock)] {
            let len = self.octets(path).len();
            self.cut(format!("{name}, half"), path, len / 2);
            self.cut(format!("{name}, to nothing"), path, 0);
            self.zero(name, path, 0..len);
            self.remove(name, path);
            self.instead(format!("{name} of another archive"), &self.filled.other, path);
            self.copied(format!("{name}, as another file"), path, &path.with_extension("old"));
        }
        let other = self.filled.other.0.path().to_owned();
        self.push("swap", "both of another archive", move |place| {
            for path in [&store, &unlock] {
                fs::write(place.0.path().join(path), fs::read(other.join(path)).expect("reads")).expect("writes");
            }
        });
        self.copied("unlock.key, as unlock.key.new", &PathBuf::from("unlock.key"), &PathBuf::from("unlock.key.new"));
    }

    fn catalog(&mut self) {
        self.object = "catalog";
        let folder = PathBuf::from("stores/main/catalog");
        let files: Vec<PathBuf> = self.filled.catalog.iter().map(|path| below(path)).collect();
        for path in &files {
            let (name, len) =
                (path.strip_prefix(&folder).expect("below").display().to_string(), self.octets(path).len());
            if len > 0 {
                // The file of the log is as long as it may become: what is in it stands in front.
                let held = self.octets(path).iter().rposition(|octet| *octet != 0).unwrap_or(0);
                self.flip(format!("{name}, first"), path, 0);
                self.flip(format!("{name}, middle"), path, held / 2);
                self.flip(format!("{name}, last"), path, held);
                self.cut(format!("{name}, half"), path, held / 2);
                self.zero(format!("{name}, second half"), path, held / 2..len);
                self.zero(name.clone(), path, 0..len);
            }
            self.cut(format!("{name}, to nothing"), path, 0);
            self.remove(name.clone(), path);
            self.copied(format!("{name}, as another file"), path, &path.with_extension("old"));
        }
        for pair in files.windows(2) {
            let names = pair.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            self.swap(names.collect::<Vec<_>>().join(" with "), &pair[0], &pair[1], None);
        }
        let all = folder.clone();
        self.push("delete", "all", move |place| fs::remove_dir_all(place.0.path().join(&all)).expect("removes"));
        self.instead("by an earlier one", &self.filled.earlier, &folder);
        self.instead("by that of another archive", &self.filled.other, &folder);
    }

    fn lock(&mut self) {
        self.object = "lock";
        let lock = PathBuf::from("lock");
        let len = self.octets(&lock).len();
        self.flip("", &lock, 3);
        self.cut("", &lock, 0);
        self.zero("", &lock, 0..len);
        self.remove("", &lock);
        self.instead("of another archive", &self.filled.other, &lock);
        self.copied("", &lock, &PathBuf::from("lock.old"));
    }
}

fn below(path: &Path) -> PathBuf {
    Path::new("stores/main").join(path)
}

/// The frames of a file.
fn frames(octets: &[u8], (first, header, len): (usize, usize, usize)) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), first);
    while octets.get(at..at + 3) == Some(b"PKF") || octets.get(at..at + 3) == Some(b"PKR") {
        let sealed = octets[at + len..at + len + 4].try_into().map(u32::from_be_bytes).expect("four");
        found.push(at..at + header + sealed as usize);
        at += header + sealed as usize;
    }
    found
}

/// The frames of a pack without its table.
fn groups(octets: &[u8]) -> Vec<Range<usize>> {
    frames(octets, PACK).into_iter().filter(|frame| octets[frame.start + 4] == 1).collect()
}

/// Another name for a pack, in the same folder.
fn renamed(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let first = if name.starts_with('0') { "1" } else { "0" };
    path.with_file_name(format!("{first}{}", &name[1..]))
}
