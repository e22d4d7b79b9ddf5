//! Takes everything out of a store without Postkeep: `cargo run --release --example read_store -- STORE_DIR OUT_DIR`, with
//! the recovery passphrase in POSTKEEP_PASSPHRASE or as the first line of standard input.
//!
//! Written from `docs/formats/{pack,record,keys}.md`: none of the project's code, no catalog; the store is only read.
//! `OUT_DIR/<id>.eml` are the messages, `OUT_DIR/reports/<sha256>.eml` the reports that brought them, each compared with its
//! SHA-256. What is damaged is told and left out. In memory: all records, one pack, one message.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::{cell::RefCell, fs, io, io::Write, os::unix::fs::FileExt as _, path::Path, path::PathBuf};

fn main() -> Result<()> {
    let [store, out] = [1, 2].map(|n| std::env::args_os().nth(n).map(PathBuf::from));
    let (store, out) = store.zip(out).context("usage: read_store STORE_DIR OUT_DIR")?;
    let passphrase = std::env::var("POSTKEEP_PASSPHRASE").ok().or_else(|| io::stdin().lines().next()?.ok());
    let problems = read(&store, &out, passphrase.unwrap_or_default().trim(), &mut io::stdout())?;
    ensure!(problems.is_empty(), "not everything is whole:\n{}", problems.join("\n"));
    Ok(())
}

/// Lists a store and writes what is in it below `out`; returns what is damaged.
pub(crate) fn read(store: &Path, out: &Path, passphrase: &str, list: &mut dyn Write) -> Result<Vec<String>> {
    let mut reader = Reader::open(store, passphrase)?;
    files(&store.join("packs"), "pack")?.into_iter().try_for_each(|path| reader.read_pack(path))?;
    files(&store.join("records"), "rec")?.iter().try_for_each(|path| reader.read_records(path))?;
    ensure!(reader.head.0 > 0 || reader.chunks.is_empty(), "no records are there; `store rebuild-records` makes them");
    fs::create_dir_all(out.join("reports"))?;
    let mut problems = std::mem::take(&mut reader.problems);
    let unowned = reader.content.values().filter(|one| one["unowned"] == true);
    let unowned: BTreeSet<_> = unowned.map(|one| text(one, "identity")).collect();
    // In the order in which they lie there, so that most groups are opened once.
    let mut content: Vec<_> = reader.content.iter().collect();
    content.sort_by_cached_key(|(_, one)| reader.chunks.get(&text(&one["recipe"]["glue"][0], 0)));
    for (name, one) in content {
        let identity = text(one, "identity");
        // What has an owner by now is in the catch-all archive no more.
        let here = |place: &&(String, String)| place.0 != "@catchall" || unowned.contains(&identity);
        let places = reader.places.get(&identity).filter(|_| one["id"].is_string());
        let here = places.into_iter().flatten().filter(here);
        let here: Vec<_> = here.map(|(owner, folder)| format!("{owner} / {folder}")).collect();
        // Seconds since 1970, as `date --date @N` reads them.
        let date = one["date"].as_i64().map_or(String::new(), |seconds| format!("@{seconds}"));
        let line = [name, &here.join(", "), &date, &text(one, "subject").replace(char::is_control, " ")];
        writeln!(list, "{}", line.map(String::as_str).join("\t"))?;
        let report = format!("reports/{}", text(one, "sha256"));
        let file = out.join(format!("{}.eml", one["id"].as_str().unwrap_or(&report)));
        let written = reader.build(one, 0).and_then(|octets| Ok(fs::write(file, octets)?));
        problems.extend(written.err().map(|error| format!("{name}: {error:#}")));
    }
    Ok(problems)
}

/// A version of a file: what its frames begin with, octets of their header, where in that the mark of zstd and the two
/// lengths stand. Of packs the first two; the last of both kinds has key epochs.
type Layout = (&'static [u8], usize, usize, usize);
const PACKS: &[Layout] = &[(b"PKFR", 72, 5, 8), (b"PKFR", 40, 5, 8)];
const RECORDS: &[Layout] = &[(b"PKRC", 80, 5, 16), (b"PKRC", 80, 5, 16), (b"PKRB", 84, 4, 20)];

/// A layout with what its frames are bound to besides their place and header, and their key.
struct Form(Layout, Vec<u8>, XChaCha20Poly1305);

/// What is in a frame: chunks, or records.
type Chunks = Vec<Vec<u8>>;
/// A frame: its octets, its header without the nonce, what is in it.
type Frame<'a> = (&'a [u8], &'a [u8], Chunks);

impl Form {
    /// Opens the frame that begins `octets` and stands at `at` of its file.
    fn open<'a>(&self, octets: &'a [u8], at: usize) -> Option<Frame<'a>> {
        let Self((magic, head_len, zstd, lens), bound, key) = self;
        let head = octets.get(..*head_len).filter(|head| head.starts_with(magic))?;
        let (fields, nonce) = head.split_last_chunk::<24>()?;
        let (len, end) = (number(head, *lens, 4)?, head_len + number(head, lens + 4, 4)?);
        // Frames of packs are bound to their place, records to their numbers, which are in the header.
        let place = if *magic == b"PKFR" { &(at as u64).to_be_bytes()[..] } else { &[] };
        let payload = Payload { msg: octets.get(*head_len..end)?, aad: &[bound, place, fields].concat() };
        let inner = key.decrypt(&XNonce::from(*nonce), payload).ok()?;
        let plain = if head.get(*zstd) == Some(&1) { zstd::bulk::decompress(&inner, len).ok()? } else { inner };
        let held = match head_len {
            40 => group(&plain)?,
            84 => plain.strip_suffix(b"\n")?.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect(),
            _ => vec![plain],
        };
        Some((octets.get(..end)?, fields, held))
    }
}

/// The chunks of a group. A table does not look like one, and needs not: it says again what the groups say.
fn group(plain: &[u8]) -> Option<Chunks> {
    let count = number(plain, 0, 4)?;
    let mut rest = plain.get(4 + 4 * count..)?;
    let chunks = (0..count).map(|n| {
        let (chunk, after) = rest.split_at_checked(number(plain, 4 + 4 * n, 4)?)?;
        rest = after;
        Some(chunk.to_vec())
    });
    chunks.collect()
}

#[derive(Default)]
struct Reader {
    id: Vec<u8>,
    /// Key of names; the store's key of each epoch.
    ids: [u8; 32],
    epochs: Vec<[u8; 32]>,
    packs: Vec<(PathBuf, Vec<Form>)>,
    /// By name: pack, octet at which the frame begins, its octets, place in the group.
    chunks: HashMap<String, (usize, usize, usize, usize)>,
    /// The group that was opened last, and where it is.
    group: RefCell<((usize, usize), Chunks)>,
    /// Number of the last record and hash of its frame.
    head: (usize, [u8; 32]),
    /// Messages by id, reports by source, mailbox and uidl.
    content: BTreeMap<String, Value>,
    /// Owners and folders by identity.
    places: BTreeMap<String, BTreeSet<(String, String)>>,
    problems: Vec<String>,
}

impl Reader {
    /// The keys of a store (keys.md).
    fn open(store: &Path, passphrase: &str) -> Result<Self> {
        let file = fs::read_to_string(store.join("store.toml")).context("store.toml cannot be read")?;
        let file: Value = toml::from_str(&file)?;
        ensure!(file["version"].as_u64().is_some_and(|version| version <= 2), "store.toml is newer");
        let id = HEXLOWER.decode(text(&file, "id").as_bytes())?;
        let root = file["root"].as_str().map_or(Ok(id.clone()), |root| HEXLOWER.decode(root.as_bytes()))?;
        let wrapped = BASE64.decode(text(&file, "key_by_passphrase").as_bytes())?;
        let (head, sealed) = wrapped.split_first_chunk::<54>().context("key_by_passphrase is cut short")?;
        // Not more than 1 GiB, whatever a file says.
        let cost = |at, len| number(head, at, len).unwrap_or_default().min(1 << 20) as u32;
        let params = argon2::Params::new(cost(5, 4), cost(9, 4), cost(13, 1), Some(32));
        let (mut key, failed) = ([0; 32], |error| anyhow!("key_by_passphrase: {error}"));
        let argon2 = argon2::Argon2::from(params.map_err(failed)?);
        argon2.hash_password_into(passphrase.as_bytes(), &head[14..30], &mut key).map_err(failed)?;
        let nonce: [u8; 24] = head[30..].try_into()?;
        let payload = Payload { msg: sealed, aad: &[&head[..], b"postkeep store key v1\0", &root].concat() };
        let roots = XChaCha20Poly1305::new((&key).into()).decrypt(&XNonce::from(nonce), payload).ok();
        let roots = roots.context("the passphrase is not the recovery passphrase of this store")?;
        let mut epochs = roots.as_chunks::<32>().0.to_vec();
        let ids = derive("ids", epochs.first().context("there are no keys")?);
        if file["root"].is_string() {
            epochs.iter_mut().for_each(|key| *key = derive("of a family", &[&key[..], &id].concat()));
        }
        Ok(Self { ids, epochs, id, ..Self::default() })
    }

    /// Every way in which a file can be written that begins with `magic`; `rest` stands behind the store's id.
    fn forms(&self, magic: &[u8], rest: &[u8], key_of: &str, layouts: &[Layout]) -> Vec<Form> {
        let mut forms = Vec::new();
        for (version, layout) in (1_u16..).zip(layouts) {
            for (epoch, key) in (0_u32..).zip(&self.epochs) {
                let epoch = if usize::from(version) == layouts.len() { &epoch.to_be_bytes()[..] } else { &[] };
                let bound = [magic, &version.to_be_bytes(), &self.id, rest, epoch].concat();
                forms.push(Form(*layout, bound, XChaCha20Poly1305::new((&derive(key_of, key)).into())));
            }
        }
        forms
    }

    fn read_pack(&mut self, path: PathBuf) -> Result<()> {
        let name = HEXLOWER.decode(path.file_stem().unwrap_or_default().as_encoded_bytes())?;
        let (forms, octets) = (self.forms(b"PKPACK", &name, "pack", PACKS), fs::read(&path)?);
        for (at, (frame, _, held)) in frames(&octets, &forms) {
            // Of several copies the newest counts.
            for (n, chunk) in held.iter().enumerate() {
                let id = HEXLOWER.encode(blake3::keyed_hash(&self.ids, chunk).as_bytes());
                self.chunks.insert(id, (self.packs.len(), at, frame.len(), n));
            }
        }
        self.packs.push((path, forms));
        Ok(())
    }

    fn read_records(&mut self, path: &Path) -> Result<()> {
        let (forms, octets) = (self.forms(b"PKRECS", b"", "record", RECORDS), fs::read(path)?);
        for (_, (frame, head, held)) in frames(&octets, &forms) {
            let (first, before) = (number(head, 8, 8).unwrap_or_default(), self.head.0);
            if first != before + 1 || !head.ends_with(&self.head.1) {
                self.problems.push(format!("record {first} does not follow record {before}: some are lost"));
            }
            self.head = (first + held.len() - 1, *blake3::hash(frame).as_bytes());
            held.iter().try_for_each(|record| self.apply(&serde_json::from_slice(record)?))?;
        }
        Ok(())
    }

    /// What is there from this record on, and what is not any more (record.md).
    fn apply(&mut self, record: &Value) -> Result<()> {
        let (kind, this) = (text(record, "record"), name(record));
        // What a person deleted, or what lies in another store now.
        let (out, places) = if kind == "deletion" { (&record["out"], "instances") } else { (record, "places") };
        let place = |at: &Value| (text(at, "owner"), text(at, "folder"));
        match kind.as_str() {
            "report" | "filing" => {
                self.content.extend(each(record, "messages").map(|one| (text(one, "id"), one.clone())));
                self.content.extend((kind == "report").then(|| (this.clone(), record["raw"].clone())));
                let identity = &record["message"]["identity"];
                let here = self.places.entry(text(&record["message"], "identity")).or_default();
                here.extend(each(record, "instances").map(place));
                let unowned = each(record, "instances").any(|at| at["owner"] == "@catchall");
                if let Some(report) = self.content.get_mut(&this).filter(|_| identity.is_string()) {
                    report["unowned"] = Value::from(unowned || record["outcome"] == "catch-all");
                    report["identity"] = identity.clone();
                }
            }
            "deletion" | "moved" => {
                let identity = out["identity"].as_str().or(record["appearance_of"].as_str()).unwrap_or_default();
                let gone: BTreeSet<_> = each(out, places).map(place).collect();
                self.places.entry(identity.to_owned()).or_default().retain(|place| !gone.contains(place));
                let messages = each(out, "messages").filter_map(Value::as_str).map(str::to_owned);
                let reports = each(out, "reports").chain(Some(record)).map(name);
                messages.chain(reports).for_each(|one| drop(self.content.remove(&one)));
            }
            // What is lost stays in the listing, and does not come out.
            "ledger" | "loss" | "lost" | "compaction" => {}
            other => bail!("a record of the kind `{other}`, which record.md does not know"),
        }
        Ok(())
    }

    /// Chunks, one after the other.
    fn chunks(&self, of: &Value, key: &str) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for chunk in each(of, key) {
            let place = self.chunks.get(&text(chunk, 0));
            let (pack, at, len, n) = *place.with_context(|| format!("chunk {} is not there", chunk[0]))?;
            let mut group = self.group.borrow_mut();
            if group.0 != (pack, at) {
                let ((path, forms), mut octets) = (&self.packs[pack], vec![0; len]);
                fs::File::open(path)?.read_exact_at(&mut octets, at as u64)?;
                let frame = forms.iter().find_map(|form| form.open(&octets, at));
                *group = ((pack, at), frame.context("a frame has changed")?.2);
            }
            all.extend(group.1.get(n).context("a frame has changed")?);
        }
        Ok(all)
    }

    /// Puts a message or report together (record.md, recipe).
    fn build(&self, content: &Value, depth: usize) -> Result<Vec<u8>> {
        ensure!(depth < 5, "messages name each other without end");
        let recipe = &content["recipe"];
        let (glue, mut at, mut out) = (self.chunks(recipe, "glue")?, 0, Vec::new());
        for piece in each(recipe, "pieces") {
            if let Some(octets) = piece["g"].as_u64() {
                out.extend(glue.get(at..at + octets as usize).context("its glue is short")?);
                at += octets as usize;
            } else if let Some(id) = piece["m"].as_str() {
                out.extend(self.build(self.content.get(id).context("its message is not there")?, depth + 1)?);
            } else {
                let part = &recipe["parts"][piece["p"].as_u64().context("a piece of a kind unknown")? as usize];
                let (plain, lines) = (self.chunks(part, "chunks")?, &part["b64"]);
                let end = if lines["lf"] == true { "\n" } else { "\r\n" };
                let full = lines["line"].as_u64().map(|full| (full as usize / 4 * 3).max(3));
                let encoded = full.map(|full| plain.chunks(full).map(|line| BASE64.encode(line)).collect::<Vec<_>>());
                out.extend(encoded.map_or(plain, |lines| lines.join(end).into_bytes()));
                out.extend(end.bytes().filter(|_| lines["end"] == true));
            }
        }
        let sha256 = HEXLOWER.encode(&Sha256::digest(&out));
        ensure!(sha256 == text(content, "sha256"), "its SHA-256 is another one");
        Ok(out)
    }
}

/// Every frame of a file that opens, wherever it stands; a header, a footer, a write that was cut off and damage do not.
fn frames<'a>(octets: &'a [u8], forms: &[Form]) -> Vec<(usize, Frame<'a>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = memchr::memmem::find(octets.get(at..).unwrap_or_default(), b"PK") {
        at += next;
        let frame = forms.iter().find_map(|form| form.open(octets.get(at..)?, at));
        let len = frame.as_ref().map_or(1, |frame| frame.0.len());
        found.extend(frame.map(|frame| (at, frame)));
        at += len;
    }
    found
}

fn derive(what: &str, key: &[u8]) -> [u8; 32] {
    blake3::derive_key(&format!("postkeep 2026 store key {what} v1"), key)
}

fn text(of: &Value, key: impl serde_json::value::Index) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

fn each<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[key].as_array().into_iter().flatten()
}

/// What names a report.
fn name(of: &Value) -> String {
    ["source", "mailbox", "uidl"].map(|key| text(of, key)).join(" ")
}

/// Big-endian octets.
fn number(octets: &[u8], at: usize, len: usize) -> Option<usize> {
    Some(octets.get(at..at + len)?.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
}

/// Files below a folder, in the order of their names.
fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let below = if path.is_dir() { files(&path, ending)? } else { vec![path] };
        found.extend(below.into_iter().filter(|path| path.extension().is_some_and(|e| e == ending)));
    }
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(found)
}
