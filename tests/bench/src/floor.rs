//! The least a store of parts needs: every unique decoded part and the rest of every report, each compressed alone.
//!
//! The parts are taken from the generator, so the floor spends nothing on finding them, and it knows nothing of how
//! Postkeep splits messages. A store that keeps parts apart cannot go below it without compressing parts together.

use crate::corpus::{Encoding, Report};
use anyhow::{Context as _, Result};
use data_encoding::BASE64;
use std::collections::HashSet;

/// zstd level of floor and product.
pub const LEVEL: i32 = 3;

/// What has been stored so far.
pub struct PartsFloor {
    known: HashSet<[u8; 32]>,
    compressor: zstd::bulk::Compressor<'static>,
    /// Octets of the reports.
    pub input: u64,
    /// Octets after compression, without any framing.
    pub stored: u64,
    /// Parts seen, and how many of them were new.
    pub parts: u64,
    /// Parts not seen before.
    pub unique: u64,
}

impl PartsFloor {
    /// An empty store.
    pub fn new() -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).context("zstd")?;
        Ok(Self { known: HashSet::new(), compressor, input: 0, stored: 0, parts: 0, unique: 0 })
    }

    /// Adds a report; gives what has to be written for it: compressed blocks in order.
    pub fn add(&mut self, report: &Report) -> Result<Vec<Vec<u8>>> {
        let mut blocks = Vec::new();
        let mut frame = Vec::new();
        let mut at = 0;
        for part in &report.parts {
            frame.extend_from_slice(&report.octets[at..part.range.start]);
            at = part.range.end;
            let decoded = decode(&report.octets[part.range.clone()], part.encoding)?;
            self.parts += 1;
            if self.known.insert(*blake3::hash(&decoded).as_bytes()) {
                self.unique += 1;
                blocks.push(self.compress(decoded)?);
            }
        }
        frame.extend_from_slice(&report.octets[at..]);
        blocks.push(self.compress(frame)?);
        self.input += report.octets.len() as u64;
        self.stored += blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        Ok(blocks)
    }

    /// Stored octets per octet of input.
    pub fn ratio(&self) -> f64 {
        self.stored as f64 / self.input.max(1) as f64
    }

    fn compress(&mut self, octets: Vec<u8>) -> Result<Vec<u8>> {
        let compressed = self.compressor.compress(&octets).context("zstd")?;
        Ok(if compressed.len() < octets.len() { compressed } else { octets })
    }
}

/// A part's content.
pub fn decode(encoded: &[u8], encoding: Encoding) -> Result<Vec<u8>> {
    match encoding {
        Encoding::Base64 => {
            let lines = encoded.split(|octet| matches!(octet, b'\r' | b'\n'));
            let digits: Vec<u8> = lines.flatten().copied().collect();
            Ok(BASE64.decode(&digits)?)
        }
        Encoding::QuotedPrintable => decode_quoted(encoded),
    }
}

fn decode_quoted(encoded: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = memchr::memchr(b'=', rest) {
        out.extend_from_slice(&rest[..at]);
        let code = rest.get(at + 1..at + 3).context("quoted-printable cut off")?;
        if code != b"\r\n" {
            out.extend(data_encoding::HEXUPPER.decode(code)?);
        }
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}
