//! Takes everything out of a store without Postkeep: `cargo run --release --example read_store -- STORE_DIR OUT_DIR`, with
//! the recovery passphrase in POSTKEEP_PASSPHRASE or as the first line of standard input.
//!
//! Written from `docs/formats/{pack,record,keys}.md`: none of the project's code, no catalog; the store is only read.
//! `OUT_DIR/<id>.eml` are the messages, `OUT_DIR/reports/<sha256>.eml` the reports that brought them, each compared with its
//! SHA-256. What is damaged is told and left out. In memory: all records, one pack, one message; all chunks in a file of
//! `OUT_DIR` that has no name.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::{fs, io, io::Write, os::unix::fs::FileExt as _, path::Path, path::PathBuf};

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
    let keys = Keys::open(store, passphrase)?;
    fs::create_dir_all(out.join("reports"))?;
    let found = Found::read(&keys, store, tempfile::tempfile_in(out)?)?;
    ensure!(found.head.0 > 0 || found.chunks.is_empty(), "no records are there; `store rebuild-records` makes them");
    let mut problems = found.problems.clone();
    let unowned = found.content.values().filter(|one| one["unowned"] == true);
    let unowned: BTreeSet<_> = unowned.map(|one| text(one, "identity")).collect();
    for (name, one) in &found.content {
        let (id, identity) = (one["id"].as_str(), text(one, "identity"));
        // What has an owner by now is in the catch-all archive no more.
        let here = |place: &&(String, String)| place.0 != "@catchall" || unowned.contains(&identity);
        let here = id.and(found.places.get(&identity)).into_iter().flatten().filter(here);
        let here: Vec<_> = here.map(|(owner, folder)| format!("{owner} / {folder}")).collect();
        // Seconds since 1970, as `date --date @N` reads them.
        let date = one["date"].as_i64().map_or(String::new(), |seconds| format!("@{seconds}"));
        let subject = text(one, "subject").replace(char::is_control, " ");
        writeln!(list, "{name}\t{}\t{date}\t{subject}", here.join(", "))?;
        let file = id.map_or_else(|| format!("reports/{}", text(one, "sha256")), str::to_owned);
        let written = found.build(one, 0).and_then(|octets| Ok(fs::write(out.join(file + ".eml"), octets)?));
        problems.extend(written.err().map(|error| format!("{name}: {error:#}")));
    }
    Ok(problems)
}

/// The keys of a store (keys.md): its id, the key of names, the key of each epoch.
struct Keys(Vec<u8>, [u8; 32], Vec<[u8; 32]>);

impl Keys {
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
        let payload = Payload { msg: sealed, aad: &[&head[..], b"postkeep store key v1\0", &root].concat() };
        let roots = XChaCha20Poly1305::new((&key).into()).decrypt(&XNonce::try_from(&head[30..])?, payload).ok();
        let roots = roots.context("the passphrase is not the recovery passphrase of this store")?;
        let mut epochs = roots.as_chunks::<32>().0.to_vec();
        let names = derive("ids", epochs.first().context("there are no keys")?);
        if file["root"].is_string() {
            epochs.iter_mut().for_each(|key| *key = derive("of a family", &[&key[..], &id].concat()));
        }
        Ok(Self(id, names, epochs))
    }

    /// Every frame of a file that opens, wherever it stands; a header, a footer, a write that was cut off and damage do
    /// not. What it is bound to begins with `begin`, version and the store's id, and ends with `rest`.
    fn frames(&self, path: &Path, begin: &[u8], rest: &[u8], key: &str, layouts: &[Layout]) -> Result<Vec<Frame>> {
        let mut forms = Vec::new();
        for (version, layout) in (1_u16..).zip(layouts) {
            for (epoch, of) in (0_u32..).zip(&self.2) {
                let epoch = if usize::from(version) == layouts.len() { &epoch.to_be_bytes()[..] } else { &[] };
                let bound = [begin, &version.to_be_bytes(), &self.0, rest, epoch].concat();
                forms.push((layout, bound, XChaCha20Poly1305::new((&derive(key, of)).into())));
            }
        }
        let (octets, mut found, mut at) = (fs::read(path)?, Vec::new(), 0);
        while let Some(next) = memchr::memmem::find(octets.get(at..).unwrap_or_default(), b"PK") {
            at += next;
            let frame = forms.iter().find_map(|(layout, bound, key)| frame(&octets, at, layout, bound, key));
            at += frame.as_ref().map_or(1, |frame| frame.0);
            found.extend(frame);
        }
        Ok(found)
    }
}

/// A version of a file: what its frames begin with, octets of their header, where in that the mark of zstd and the two
/// lengths stand. Of packs the first two; the last of both kinds has key epochs.
type Layout = (&'static [u8], usize, usize, usize);
const PACKS: &[Layout] = &[(b"PKFR", 72, 5, 8), (b"PKFR", 40, 5, 8)];
const RECORDS: &[Layout] = &[(b"PKRC", 80, 5, 16), (b"PKRC", 80, 5, 16), (b"PKRB", 84, 4, 20)];

/// A frame: its octets and their hash, its header without the nonce, the chunks or records that are in it.
type Frame = (usize, blake3::Hash, Vec<u8>, Vec<Vec<u8>>);

fn frame(file: &[u8], at: usize, layout: &Layout, bound: &[u8], key: &XChaCha20Poly1305) -> Option<Frame> {
    let ((magic, head_len, zstd, lens), octets) = (*layout, file.get(at..)?);
    let (head, nonce) = octets.get(..head_len).filter(|head| head.starts_with(magic))?.split_last_chunk::<24>()?;
    let (plain_len, len) = (number(head, lens, 4)?, head_len + number(head, lens + 4, 4)?);
    // Frames of packs are bound to their place, records to their numbers, which are in the header.
    let place = if magic == b"PKFR" { &(at as u64).to_be_bytes()[..] } else { &[] };
    let payload = Payload { msg: octets.get(head_len..len)?, aad: &[bound, place, head].concat() };
    let inner = key.decrypt(&XNonce::from(*nonce), payload).ok()?;
    let plain = if head.get(zstd) == Some(&1) { zstd::bulk::decompress(&inner, plain_len).ok()? } else { inner };
    let held = match head_len {
        40 => group(&plain)?,
        84 => plain.strip_suffix(b"\n")?.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect(),
        _ => vec![plain],
    };
    Some((len, blake3::hash(&octets[..len]), head.to_vec(), held))
}

/// The chunks of a group. A table does not look like one, and needs not: it says again what the groups say.
fn group(plain: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, mut rest) = (number(plain, 0, 4)?, plain.get(4..)?);
    let lens = rest.split_off(..4 * count)?.chunks(4).filter_map(|len| number(len, 0, 4));
    lens.map(|len| Some(rest.split_off(..len)?.to_vec())).collect()
}

/// What is in packs and records.
struct Found {
    /// All chunks, one after the other, in a file without a name; by id, where they begin and their octets.
    plain: fs::File,
    chunks: HashMap<String, (u64, usize)>,
    /// Number of the last record and hash of its frame.
    head: (usize, [u8; 32]),
    /// Messages by id, reports by source, mailbox and uidl.
    content: BTreeMap<String, Value>,
    /// Owners and folders by identity.
    places: BTreeMap<String, BTreeSet<(String, String)>>,
    problems: Vec<String>,
}

impl Found {
    fn read(keys: &Keys, store: &Path, mut plain: fs::File) -> Result<Self> {
        let (mut chunks, mut end) = (HashMap::new(), 0);
        for path in files(&store.join("packs"), "pack")? {
            let name = HEXLOWER.decode(path.file_stem().unwrap_or_default().as_encoded_bytes())?;
            for chunk in keys.frames(&path, b"PKPACK", &name, "pack", PACKS)?.iter().flat_map(|frame| &frame.3) {
                plain.write_all(chunk)?;
                chunks.insert(HEXLOWER.encode(blake3::keyed_hash(&keys.1, chunk).as_bytes()), (end, chunk.len()));
                end += chunk.len() as u64;
            }
        }
        let (content, places) = (BTreeMap::new(), BTreeMap::new());
        let mut found = Self { plain, chunks, head: (0, [0; 32]), content, places, problems: Vec::new() };
        for path in files(&store.join("records"), "rec")? {
            for (_, hash, head, records) in keys.frames(&path, b"PKRECS", b"", "record", RECORDS)? {
                let (first, before) = (number(&head, 8, 8).unwrap_or_default(), found.head.0);
                if first != before + 1 || !head.ends_with(&found.head.1) {
                    found.problems.push(format!("record {first} does not follow record {before}: some are lost"));
                }
                found.head = (first + records.len() - 1, *hash.as_bytes());
                records.iter().try_for_each(|record| found.apply(&serde_json::from_slice(record)?))?;
            }
        }
        Ok(found)
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
            let ((at, len), from) = (*place.with_context(|| format!("chunk {} is not there", chunk[0]))?, all.len());
            all.resize(from + len, 0);
            self.plain.read_exact_at(&mut all[from..], at)?;
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
        ensure!(HEXLOWER.encode(&Sha256::digest(&out)) == text(content, "sha256"), "its SHA-256 is another one");
        Ok(out)
    }
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
