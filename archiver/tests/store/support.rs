//! Stores in temporary folders, and reports to put into them.

#![allow(dead_code, unreachable_pub, missing_docs)]

use postkeep_archiver::{
    filing::{Instance, Plan},
    journal::{Content, Handling, Kind, Verdict},
    octets::Octets,
    store::{Listed, NewReport, Pending, Store, StoreResult, Unlock, UnlockKey},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk},
    mail::{Digest, Hasher},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub const PASSPHRASE: &[u8] = b"correct horse battery";

pub fn disk() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("temporary folder"));
        let key = UnlockKey::create(&place.0.path().join("unlock.key"), &LocalDisk).expect("creates");
        let passphrase = Password::received(PASSPHRASE);
        drop(Store::create(&place.store(), "main", &passphrase, &key, disk()).expect("creates"));
        place
    }

    /// Another place with the same octets.
    pub fn copied(&self) -> Self {
        let place = Self(tempfile::tempdir().expect("temporary folder"));
        copy(self.0.path(), place.0.path());
        place
    }

    pub fn store(&self) -> PathBuf {
        self.0.path().join("stores/main")
    }

    pub fn key_file(&self) -> PathBuf {
        self.0.path().join("unlock.key")
    }

    pub fn key(&self) -> UnlockKey {
        UnlockKey::load(&self.key_file(), &LocalDisk).expect("loads")
    }

    pub fn open(&self) -> Store {
        Store::open(&self.store(), &Unlock::Key(&self.key()), disk()).expect("opens")
    }

    pub fn open_read(&self) -> Store {
        Store::open_read(&self.store(), &Unlock::Key(&self.key()), disk()).expect("opens")
    }

    /// Packs and records.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.store().join("packs"), &mut found);
        walk(&self.store().join("records"), &mut found);
        found.sort();
        found
    }

    pub fn assert_sound(&self, reports: u64) {
        let verified = self.open_read().verify().expect("goes on");
        assert!(verified.ok, "{verified:#?}");
        assert_eq!(verified.reports, reports);
    }
}

/// Copies everything in a folder.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            std::fs::create_dir_all(&target).expect("makes");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copies");
        }
    }
}

/// Every file below a folder.
pub fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

pub struct Report {
    pub octets: Vec<u8>,
    pub range: std::ops::Range<usize>,
}

impl Report {
    pub fn embedded(&self) -> &[u8] {
        &self.octets[self.range.clone()]
    }

    pub fn replaced(&self, from: &str, to: &str) -> Self {
        let before = String::from_utf8(self.octets.clone()).expect("text");
        let octets = before.replace(from, to).into_bytes();
        let end = self.range.end + octets.len() - self.octets.len();
        Self { octets, range: self.range.start..end }
    }
}

/// Octets that do not compress, the same for the same length.
pub fn noise(len: usize) -> Vec<u8> {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut out = vec![0; 8 * 1024 * 1024];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    });
    noise[..len].to_vec()
}

/// A journal report whose original has an attachment of `kib` KiB.
pub fn report(message_id: &str, body: &str, kib: usize) -> Report {
    let attachment = data_encoding::BASE64.encode(&noise(kib * 1024));
    let lines: Vec<&str> = attachment.as_bytes().chunks(76).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    let head = "From: journal@x\r\nContent-Type: multipart/mixed; boundary=out\r\n\r\n--out\r\n\r\nSender: a@x\r\n\r\n\
        --out\r\nContent-Type: message/rfc822\r\n\r\n";
    let original = format!(
        "Received: first\r\nFrom: A <a@x>\r\nTo: b@x\r\nSubject: subject {message_id}\r\nMessage-ID: {message_id}\r\n\
         Date: Tue, 18 Aug 2026 10:00:00 +0200\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=in\r\n\
         \r\n--in\r\n\r\n{body}\r\n--in\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--in--\r\n",
        lines.join("\r\n")
    );
    let octets = format!("{head}{original}\r\n--out--\r\n").into_bytes();
    Report { octets, range: head.len()..head.len() + original.len() }
}

pub fn verdict(content: Option<Content>) -> Verdict {
    Verdict {
        kind: Kind::JournalReport,
        handling: Handling::Archive,
        reason: "test".to_owned(),
        warnings: Vec::new(),
        sender: Some("a@x".to_owned()),
        on_behalf_of: None,
        recipients: Vec::new(),
        subject: None,
        message_id: None,
        content,
        alternates: Vec::new(),
        embedded_size: None,
        date: None,
    }
}

pub fn plan(owners: &[&str]) -> Plan {
    let instance = |owner: &&str| Instance::new(*owner, "Journal Incoming");
    Plan { instances: owners.iter().map(instance).collect(), ..Plan::default() }
}

pub fn add(store: &mut Store, uidl: &str, report: &Report, plan: &Plan) -> StoreResult<Pending> {
    let range = report.range.start as u64..report.range.end as u64;
    add_with(store, uidl, &report.octets, &verdict(Some(Content::Range(range))), plan)
}

pub fn add_with(store: &mut Store, uidl: &str, octets: &[u8], verdict: &Verdict, plan: &Plan) -> StoreResult<Pending> {
    add_octets(store, uidl, &octets.to_vec(), verdict, plan)
}

pub fn add_octets(
    store: &mut Store,
    uidl: &str,
    raw: &dyn Octets,
    verdict: &Verdict,
    plan: &Plan,
) -> StoreResult<Pending> {
    let mut hasher = Hasher::default();
    raw.for_each_block(0..raw.len(), &mut |block| {
        hasher.update(block);
        Ok(())
    })?;
    store.add(NewReport {
        source: "src",
        host: "host:995",
        mailbox: Some("mbx".to_owned()),
        uidl: uidl.to_owned(),
        receipt: None,
        evidence: None,
        raw,
        raw_sha256: hasher.finish(),
        verdict,
        plan,
        collected_ms: 1_787_040_000_000,
    })
}

pub fn list(store: &Store, owner: &str) -> Vec<Listed> {
    let mut found = Vec::new();
    store
        .list(owner, None, &mut |listed| {
            found.push(listed);
            Ok(())
        })
        .expect("lists");
    found
}

pub fn show(store: &Store, id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.read_message(id, &mut out).expect("reads");
    out
}

pub fn raw(store: &Store, uidl: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.read_report("src", Some("mbx"), uidl, &mut out).expect("reads");
    assert_eq!(
        Digest::of(&out),
        store.is_collected("src", Some("mbx"), uidl).expect("reads").expect("there").raw_sha256
    );
    out
}

/// A message with one large base64 attachment that is in no memory.
pub struct Generated {
    head: Vec<u8>,
    line: Vec<u8>,
    len: u64,
}

impl Generated {
    pub fn new(len: u64) -> Self {
        let head = b"Message-ID: <big@x>\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\n";
        let line = data_encoding::BASE64.encode(&noise(57)).into_bytes();
        let lines = len / 78;
        Self { head: head.to_vec(), line, len: head.len() as u64 + lines * 78 }
    }
}

impl Octets for Generated {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (at, to) in (offset..).zip(buffer) {
            let head = self.head.len() as u64;
            *to = if at < head {
                self.head[at as usize]
            } else {
                let (line, column) = ((at - head) / 78, ((at - head) % 78) as usize);
                match column {
                    76 => b'\r',
                    77 => b'\n',
                    // The line number in base64 digits makes every line another one.
                    0..6 => {
                        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                            [(line >> (6 * column) & 63) as usize]
                    }
                    _ => self.line[column],
                }
            };
        }
        Ok(())
    }
}
