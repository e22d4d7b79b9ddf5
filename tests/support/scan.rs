//! Looks for secrets in files of any size, in every form they may take: as they are, in base64 at each of its three
//! alignments, in UTF-16 of both orders (and that in base64), in hex.

// Each test uses a part of it.
#![allow(dead_code, unreachable_pub)]

use anyhow::{Context as _, Result};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use memchr::memmem::Finder;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Octets that are looked at together.
const STEP: usize = 1 << 20;
/// Blocks of zeros of this size are passed over: most of an image has never been written to.
const BLOCK: usize = 1 << 16;

/// What is looked for.
#[derive(Default)]
pub struct Scanner {
    needles: Vec<(String, Finder<'static>)>,
    longest: usize,
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub file: PathBuf,
    pub offset: u64,
    pub what: String,
}

impl Scanner {
    /// Adds a secret in all its forms. It should be long: its forms in base64 lose up to two characters at each end.
    pub fn add(&mut self, name: &str, secret: &str) {
        let little: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = secret.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (form, octets) in [("plain", secret.as_bytes()), ("UTF-16LE", &little), ("UTF-16BE", &big)] {
            self.needle(format!("{name}, {form}"), octets);
            for shift in 0..3 {
                self.needle(format!("{name}, {form} in base64 at {shift}"), &base64(octets, shift));
            }
        }
        self.needle(format!("{name}, hex"), HEXLOWER.encode(secret.as_bytes()).as_bytes());
        self.needle(format!("{name}, HEX"), HEXUPPER.encode(secret.as_bytes()).as_bytes());
    }

    fn needle(&mut self, name: String, octets: &[u8]) {
        self.longest = self.longest.max(octets.len());
        self.needles.push((name, Finder::new(octets).into_owned()));
    }

    /// How many forms are looked for.
    pub fn forms(&self) -> usize {
        self.needles.len()
    }

    /// Every octet of a file; where each form stands first in each step, and how many octets were looked at.
    pub fn file(&self, path: &Path) -> Result<(Vec<Hit>, u64)> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let (mut hits, mut offset, mut window) = (Vec::new(), 0_u64, Vec::with_capacity(2 * STEP));
        loop {
            let kept = window.len();
            window.resize(kept + STEP, 0);
            let mut filled = kept;
            while filled < window.len() {
                match file.read(&mut window[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            window.truncate(filled);
            if filled == kept {
                return Ok((hits, offset + kept as u64));
            }
            hits.extend(self.octets(&window).into_iter().map(|(at, what)| Hit {
                file: path.to_owned(),
                offset: offset + at as u64,
                what,
            }));
            // What begins in the last octets may end in the next step.
            let keep = (self.longest - 1).min(window.len());
            offset += (window.len() - keep) as u64;
            window.drain(..window.len() - keep);
        }
    }

    /// Where each form stands first.
    pub fn octets(&self, octets: &[u8]) -> Vec<(usize, String)> {
        let zeros = [0; BLOCK];
        if octets.chunks(BLOCK).all(|block| *block == zeros[..block.len()]) {
            return Vec::new();
        }
        let found = |(name, finder): &(String, Finder<'_>)| finder.find(octets).map(|at| (at, name.clone()));
        self.needles.iter().filter_map(found).collect()
    }
}

/// What base64 makes of `octets` wherever `shift` octets (modulo 3) stand before them, without the characters that
/// depend on what stands around.
pub fn base64(octets: &[u8], shift: usize) -> Vec<u8> {
    let padded = [&vec![0; shift], octets].concat();
    let whole = padded.len() * 8 / 6;
    let first = [0, 2, 3][shift % 3];
    BASE64.encode(&padded).into_bytes()[first..whole].to_vec()
}
