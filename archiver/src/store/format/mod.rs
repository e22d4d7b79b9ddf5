//! The octets of packs and records: pure codecs, no path and no file.

pub mod copy;
pub mod group;
pub mod pack;
pub mod record;

use zstd::{bulk::Compressor, zstd_safe::CompressionLevel};

/// The level that everything is compressed with, text in groups excepted.
pub(crate) const USUAL: CompressionLevel = 3;

/// Takes fixed-size fields off the front of octets.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// Compresses with zstd; `None` when that does not make it smaller.
pub(super) fn compress(plain: &[u8], level: CompressionLevel) -> Option<Vec<u8>> {
    zstd::bulk::compress(plain, level).ok().filter(|small| small.len() < plain.len())
}

/// As [`compress`], with a compressor that is kept: a new one takes some MiB from the system each time.
#[derive(Default)]
pub(crate) struct Press(Option<Compressor<'static>>);

impl Press {
    /// The same octets as [`compress`] gives.
    pub(super) fn compress(&mut self, plain: &[u8], level: CompressionLevel) -> Option<Vec<u8>> {
        let mut kept = match self.0.take() {
            Some(kept) => kept,
            None => Compressor::new(level).ok()?,
        };
        kept.set_compression_level(level).ok()?;
        let small = kept.compress(plain).ok()?;
        // One that failed is not used again.
        self.0 = Some(kept);
        Some(small).filter(|small| small.len() < plain.len())
    }
}

/// Undoes [`compress`]; `len` is the authenticated length, nothing beyond it is ever made.
pub(super) fn decompress(sealed: &[u8], len: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(sealed, len).ok().filter(|plain| plain.len() == len)
}
