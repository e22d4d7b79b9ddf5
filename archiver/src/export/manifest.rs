//! What lies beside the messages: sums, facts, signature (docs/formats/export.md).

use crate::{
    archive::Archive,
    journal::Recipient,
    store::{Listed, StoreResult},
};
use data_encoding::BASE64;
use postkeep_shared::{
    disk::{Disk, DiskError, DiskFile, replace_file},
    mail::{Digest, Hasher},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.sha256";
/// Name of the file with what is known of each message.
pub const MESSAGES: &str = "messages.jsonl";
/// Name of the signature over the manifest.
pub const SIGNATURE: &str = "manifest.sha256.sig";
/// Name of the key that verifies it.
pub const PUBLIC_KEY: &str = "manifest.sha256.pem";

/// Name of the facts while they are written.
const FACTS_PART: &str = "messages.jsonl.part";
/// Signs octets: signature and public key.
pub type Signer<'a> = dyn Fn(&[u8]) -> ([u8; 64], [u8; 32]) + 'a;

/// First line of a manifest: `sha256sum -c` passes over it, and no other thing that is signed begins so.
const FIRST_LINE: &str = "# postkeep export 1\n";
/// What an Ed25519 key is wrapped in (RFC 8410, SubjectPublicKeyInfo).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The lines of both. Those of the facts go to their file at once; the sums are signed as a whole.
pub(super) struct Lines<'a> {
    out: &'a Path,
    disk: &'a dyn Disk,
    sums: String,
    facts: BufWriter<Box<dyn DiskFile>>,
    hasher: Hasher,
}

impl<'a> Lines<'a> {
    /// What an interrupted run wrote of the facts is written anew.
    pub(super) fn new(out: &'a Path, disk: &'a dyn Disk) -> StoreResult<Self> {
        let part = out.join(FACTS_PART);
        for stale in [&part, &out.join(MESSAGES)] {
            if disk.entry(stale).is_ok() {
                disk.remove_file(stale)?;
            }
        }
        let facts = BufWriter::with_capacity(64 * 1024, disk.create(&part)?);
        Ok(Self { out, disk, sums: String::new(), facts, hasher: Hasher::default() })
    }

    pub(super) fn file(&mut self, sha256: &Digest, relative: &Path) {
        self.sums.push_str(&format!("{sha256}  {}\n", relative.display()));
    }

    /// What is known of a message; `number` is its place in a file of many, `header` how many octets were put before it.
    pub(super) fn message(
        &mut self,
        archive: &Archive,
        owner: &str,
        listed: &Listed,
        relative: &Path,
        number: Option<usize>,
        header: usize,
    ) -> StoreResult<()> {
        let reports = archive.envelopes(&listed.id)?;
        let line = json!({
            "path": relative, "number": number, "header": header, "owner": owner, "folder": listed.folder,
            "id": listed.id, "sha256": listed.sha256, "size": listed.size, "date": listed.date, "from": listed.from,
            "to": listed.to, "subject": listed.subject, "archived_at": listed.archived_at, "reports": reports,
        });
        let line = format!("{line}\n");
        self.hasher.update(line.as_bytes());
        let written = self.facts.write_all(line.as_bytes());
        Ok(written.map_err(|e| DiskError::new("write", &self.out.join(FACTS_PART), e))?)
    }

    /// Facts first, then the sums (theirs too), then the signature: with it the export is complete.
    pub(super) fn finish(mut self, sign: Option<&Signer<'_>>) -> StoreResult<()> {
        let (out, disk, part) = (self.out, self.disk, self.out.join(FACTS_PART));
        self.facts.flush().map_err(|e| DiskError::new("write", &part, e))?;
        self.facts.get_mut().sync()?;
        disk.rename_new(&part, &out.join(MESSAGES))?;
        disk.open_dir(out)?.sync()?;
        let facts = std::mem::take(&mut self.hasher).finish();
        self.file(&facts, Path::new(MESSAGES));
        let manifest = format!("{FIRST_LINE}{}", self.sums);
        if let Some(sign) = sign {
            let (signature, key) = sign(manifest.as_bytes());
            replace_file(disk, &out.join(SIGNATURE), &signature)?;
            replace_file(disk, &out.join(PUBLIC_KEY), pem(&key).as_bytes())?;
        }
        // One that is there is of a run that was interrupted right behind it.
        Ok(replace_file(disk, &out.join(MANIFEST), manifest.as_bytes())?)
    }
}

/// The key as `openssl` reads it.
fn pem(key: &[u8; 32]) -> String {
    let coded = BASE64.encode(&[&SPKI[..], key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{coded}\n-----END PUBLIC KEY-----\n")
}

/// What an export says of its messages: read one by one when they are imported.
#[derive(Debug, Default)]
pub struct Facts {
    by_place: HashMap<[u8; 16], Told>,
}

/// What is taken from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Octets of a header that was put before the message.
    pub header: u64,
    /// Envelope sender of the first report.
    pub sender: Option<String>,
    /// The user a delegate sent for.
    pub on_behalf_of: Option<String>,
    /// Envelope recipients of all reports.
    pub recipients: Vec<Recipient>,
}

#[derive(Deserialize)]
struct Line {
    path: String,
    number: Option<usize>,
    #[serde(default)]
    header: u64,
    #[serde(default)]
    reports: Vec<Value>,
}

impl Facts {
    /// Reads `messages.jsonl` of an export; an export of an earlier release has none.
    ///
    /// # Errors
    /// When a line cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let file = match File::open(root.join(MESSAGES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut facts = Self::default();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let bad = |error| io::Error::other(format!("{MESSAGES}, line {}: {error}", number + 1));
            let line: Line = serde_json::from_str(&line?).map_err(bad)?;
            let mut told = Told { header: line.header, ..Told::default() };
            for report in &line.reports {
                told.add(report);
            }
            facts.by_place.insert(key(&line.path, line.number), told);
        }
        Ok(facts)
    }

    /// What it says of one message.
    #[must_use]
    pub fn of(&self, path: &str, number: Option<usize>) -> Option<&Told> {
        self.by_place.get(&key(path, number))
    }
}

impl Told {
    fn add(&mut self, report: &Value) {
        let text = |name: &str| report.get(name).and_then(Value::as_str).map(str::to_owned);
        if self.sender.is_none() {
            self.sender = text("sender");
            self.on_behalf_of = text("on_behalf_of");
        }
        for recipient in report.get("recipients").and_then(Value::as_array).into_iter().flatten() {
            let recipient: Option<Recipient> = serde_json::from_value(recipient.clone()).ok();
            self.recipients.extend(recipient.filter(|recipient| !self.recipients.contains(recipient)));
        }
    }
}

fn key(path: &str, number: Option<usize>) -> [u8; 16] {
    let name = format!("{path}\0{}", number.map(|number| number.to_string()).unwrap_or_default());
    let (mut key, digest) = ([0; 16], Digest::of(name.as_bytes()));
    key.iter_mut().zip(digest.0).for_each(|(to, from)| *to = from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_spelt_as_rfc_8410_spells_it() {
        // RFC 8410 §10.1.
        let key = data_encoding::HEXLOWER
            .decode(b"19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
            .expect("hex");
        let wanted = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert_eq!(pem(key.as_slice().try_into().expect("32")).lines().nth(1), Some(wanted));
    }
}
