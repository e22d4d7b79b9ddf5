//! What the top-level tests share: the two real programs as child processes, a sender and a collector that keep
//! every octet, and the samples.
//!
//! Everything here blocks; a test is one thread that talks to other processes.

// Each test uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub mod archiver;
pub mod authority;
pub mod deeds;
pub mod dns;
pub mod gateway;
pub mod http;
pub mod image;
pub mod killed;
pub mod mail_server;
pub mod pebble;
pub mod pop3;
pub mod ports;
pub mod postfix;
pub mod program;
pub mod samples;
pub mod small_disk;
pub mod smtp;
pub mod strike;
pub mod wire;

pub use archiver::Archiver;
pub use gateway::{Access, Gateway};
pub use image::{Image, trials};
pub use pop3::Pop3;
pub use program::{Output, Server, run};
pub use small_disk::SmallDisk;
pub use smtp::Smtp;

use anyhow::Result;
use postkeep_shared::mail::Digest;
use std::path::{Path, PathBuf};

/// A fresh folder that goes away with the value; with `POSTKEEP_KEEP` set it stays, for a look at what is in it.
pub fn folder() -> Result<tempfile::TempDir> {
    let mut folder = tempfile::Builder::new().prefix("postkeep-").tempdir()?;
    if std::env::var_os("POSTKEEP_KEEP").is_some() {
        folder.disable_cleanup(true);
        eprintln!("kept: {}", folder.path().display());
    }
    Ok(folder)
}

/// The root of the source tree, whichever package the test belongs to.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match package.parent() {
        Some(parent) if !package.join("examples").is_dir() => parent,
        _ => package,
    }
}

/// Repeatable numbers that look random (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `POSTKEEP_SEED`, else from the clock; the seed is printed by who uses it.
    pub fn seeded() -> (Self, u64) {
        let given = std::env::var("POSTKEEP_SEED").ok().and_then(|s| s.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64);
        let seed = given.unwrap_or_else(clock);
        (Self(seed), seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Every regular file below `folder`.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Where `needle` first stands in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// An ordinary message with CRLF line ends.
pub fn message(id: &str, from: &str, to: &str, subject: &str, body: &str) -> Vec<u8> {
    let body = body.replace("\r\n", "\n").replace('\n', "\r\n");
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Tue, 18 Aug 2026 09:14:01 +0000\r\n\
         Message-ID: <{id}@aurora.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

/// A journal report around `original`, as Exchange Online writes it: an envelope part and the message as it was.
pub fn report(sender: &str, recipients: &[&str], subject: &str, message_id: &str, original: &[u8]) -> Vec<u8> {
    let boundary = format!("_003_{}_", &sha256(original)[..24]);
    let to: String = recipients.iter().map(|r| format!("To: {r}\r\n")).collect();
    let mut out = format!(
        "From: <journal-ndr@aurora.example>\r\nTo: <journal@archive.example>\r\nSubject: {subject}\r\n\
         Message-ID: <journal-{}@journal.report.generator>\r\nDate: Tue, 18 Aug 2026 09:14:02 +0000\r\n\
         X-MS-Journal-Report:\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         Sender: {sender}\r\nSubject: {subject}\r\nMessage-Id: {message_id}\r\n{to}\r\n--{boundary}\r\n\
         Content-Type: message/rfc822\r\n\r\n",
        &sha256(original)[..16]
    )
    .into_bytes();
    out.extend_from_slice(original);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

/// A plain report from ann to bob, told apart by `n`.
pub fn numbered_report(n: usize) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = ("ann@aurora.example", "bob@aurora.example");
    let body = format!("Message number {n}.\n.\n..leading dots stay\n{}", "x".repeat(n % 900));
    let original = message(&format!("number-{n}"), from, to, &format!("Number {n}"), &body);
    (report(from, &[to], &format!("Number {n}"), &format!("<number-{n}@aurora.example>"), &original), original)
}

/// Copies a folder with everything in it to a new name, modes and times too.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    run(std::process::Command::new("cp").arg("-a").arg(from).arg(to), b"")?.expect(0)?;
    Ok(())
}
