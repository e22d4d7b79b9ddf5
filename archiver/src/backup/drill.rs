//! A restore drill: messages drawn by lot are put together from a copy and compared with what was promised of them.
//!
//! Each is compared with the SHA-256 in its record and, where it came from a gateway, with the salted digest in the
//! gateway's signed receipt, which neither the archive nor the copy can make. What N clean samples mean: see [`bound`].

use crate::{
    archive::Archive,
    store::{Examined, StoreError, StoreResult},
};
use data_encoding::HEXLOWER;
use serde::Serialize;
use std::collections::BTreeSet;

/// What a drill found. Field names are those of `restore-drill --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drilled {
    /// Reports in the copy.
    pub population: u64,
    /// Reports that were drawn.
    pub sample: u64,
    /// Of those, whole.
    pub clean: u64,
    /// Of those, compared with a gateway's receipt too.
    pub receipts: u64,
    /// Octets that were put together.
    pub bytes: u64,
    /// Repeats the draw, hex.
    pub seed: String,
    /// Per cent of the copy that may be damaged at most, at 95 % and 99 % confidence; `None` with a difference.
    pub damaged_below_percent: Option<Bounds>,
    /// In words.
    pub meaning: String,
    /// What is not as it was promised.
    pub differences: Vec<Difference>,
}

/// Per cent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bounds {
    /// At 95 % confidence.
    pub at_95: f64,
    /// At 99 % confidence.
    pub at_99: f64,
}

/// A report that is not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Source, mailbox and name of the report.
    pub report: String,
    /// What is wrong.
    pub detail: String,
}

/// The share of damaged messages, in per cent, that N clean samples rule out at `confidence` (0.95): were more of them
/// damaged, N clean ones in a row would be less likely than `1 - confidence`. With `1 - (1 - confidence)^(1/N)` it is
/// exact for drawing with replacement, and on the safe side without.
#[must_use]
pub fn bound(samples: u64, confidence: f64) -> f64 {
    if samples == 0 {
        return 100.0;
    }
    (1.0 - (1.0 - confidence).powf(1.0 / samples as f64)) * 100.0
}

/// Puts `sample` reports of the copy together, drawn by `seed`.
///
/// # Errors
/// Only when the copy cannot be asked at all.
pub fn drill(copy: &Archive, sample: u64, seed: [u8; 32], progress: &mut dyn FnMut(u64, u64)) -> StoreResult<Drilled> {
    let all: Vec<_> = copy.all_reports()?.into_iter().collect();
    let population = all.len() as u64;
    let drawn = draw(population, sample, &seed);
    let mut found = Drilled {
        population,
        sample: drawn.len() as u64,
        clean: 0,
        receipts: 0,
        bytes: 0,
        seed: HEXLOWER.encode(&seed),
        damaged_below_percent: None,
        meaning: String::new(),
        differences: Vec::new(),
    };
    for (done, at) in (1..).zip(&drawn) {
        let Some(report) = usize::try_from(*at).ok().and_then(|at| all.get(at)) else { continue };
        match copy.examine(*report) {
            Ok(Examined { name, bytes, receipt, problem }) => {
                found.bytes += bytes;
                found.receipts += u64::from(receipt);
                match problem {
                    None => found.clean += 1,
                    Some(detail) => found.differences.push(Difference { report: name, detail }),
                }
            }
            Err(error @ StoreError::Output(_)) => return Err(error),
            Err(error) => {
                found.differences.push(Difference { report: format!("number {at}"), detail: error.to_string() });
            }
        }
        progress(done, drawn.len() as u64);
    }
    found.conclude();
    Ok(found)
}

impl Drilled {
    fn conclude(&mut self) {
        let (sample, population) = (self.sample, self.population);
        if !self.differences.is_empty() {
            self.meaning = format!("{} of {sample} messages are not as they were promised", self.differences.len());
            return;
        }
        if sample == population {
            self.damaged_below_percent = Some(Bounds { at_95: 0.0, at_99: 0.0 });
            self.meaning = format!("all {population} messages were looked at and are whole");
            return;
        }
        let bounds = Bounds { at_95: bound(sample, 0.95), at_99: bound(sample, 0.99) };
        self.damaged_below_percent = Some(bounds);
        self.meaning = format!(
            "{sample} of {population} messages, drawn by lot, are whole: fewer than {:.3} % of all are damaged at 95 % \
             confidence, fewer than {:.3} % at 99 %",
            bounds.at_95, bounds.at_99
        );
    }
}

/// `sample` different numbers below `population`, in order; all of them when there are no more.
fn draw(population: u64, sample: u64, seed: &[u8; 32]) -> BTreeSet<u64> {
    if sample >= population {
        return (0..population).collect();
    }
    let mut lots = blake3::Hasher::new_keyed(seed).finalize_xof();
    let mut drawn = BTreeSet::new();
    while (drawn.len() as u64) < sample {
        let mut octets = [0; 8];
        lots.fill(&mut octets);
        let lot = u64::from_le_bytes(octets);
        // A lot from the last, incomplete round would favour small numbers.
        if lot < u64::MAX - u64::MAX % population {
            drawn.insert(lot % population);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clean_samples_rule_out() {
        // The rule of three: about 3/N at 95 %.
        assert!((bound(1000, 0.95) - 0.2991).abs() < 0.0002, "{}", bound(1000, 0.95));
        assert!((bound(459, 0.99) - 0.9984).abs() < 0.001, "{}", bound(459, 0.99));
        assert!((bound(1, 0.95) - 95.0).abs() < 1e-9 && (bound(0, 0.95) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn lots_are_different_repeatable_and_fair() {
        let seed = [7; 32];
        assert_eq!(draw(10, 100, &seed).len(), 10);
        assert_eq!(draw(1000, 50, &seed), draw(1000, 50, &seed));
        assert_ne!(draw(1000, 50, &seed), draw(1000, 50, &[8; 32]));
        let mut counts = [0_u32; 10];
        for n in 0..2000_u64 {
            let mut seed = [0; 32];
            seed.iter_mut().zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
            for lot in draw(10, 3, &seed) {
                counts[usize::try_from(lot).expect("small")] += 1;
            }
        }
        // 600 each on average; six standard deviations are about 120.
        assert!(counts.iter().all(|count| (480..720).contains(count)), "{counts:?}");
    }
}
