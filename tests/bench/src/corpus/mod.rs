//! A deterministic corpus of journal reports.
//!
//! With the usual 2,000 reports: about 160 MB, median about 32 KB, mean about 80 KB, 99th percentile about 1.2 MB,
//! largest about 9.9 MB. Four of a hundred reports carry a message that another report carried before; six of ten
//! attachments come from a pool of 300 files of which some are sent often; two reports carry the same file of 7.2 MB.
//!
//! Invariants: the same seed and count give the same octets everywhere; every report is a well-formed journal report
//! of Exchange whose number stands in its `Message-ID` ([`number_of`]); lines end with CRLF. No bare CR or LF, no 8-bit
//! octets: those are matters of tests, not of speed.

mod attachment;
mod dice;
mod encode;
mod language;
mod message;
mod report;

use dice::Dice;
use message::{Company, Message, Place};
use std::{collections::VecDeque, ops::Range, rc::Rc};

/// Reports in the corpus that figures are given for.
pub const COUNT: usize = 2_000;
/// Its seed.
pub const SEED: u64 = 1;

/// One journal report.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its place in the corpus, from 0.
    pub number: usize,
    /// What is sent.
    pub octets: Vec<u8>,
    /// Where the original message stands in it.
    pub original: Range<usize>,
    /// The bodies of its MIME parts, in order; what lies between is headers and delimiters.
    pub parts: Vec<Part>,
}

/// The body of one MIME part.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it stands in the report.
    pub range: Range<usize>,
    /// How it is encoded.
    pub encoding: Encoding,
}

impl Part {
    fn moved(&self, by: usize) -> Self {
        Self { range: self.range.start + by..self.range.end + by, encoding: self.encoding }
    }
}

/// A part's transfer encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lines of 76 characters.
    Base64,
    /// RFC 2045 §6.7.
    QuotedPrintable,
}

/// `count` reports, one after the other; memory stays bounded however many.
pub fn reports(seed: u64, count: usize) -> impl Iterator<Item = Report> {
    let mut dice = Dice::new(seed);
    let mut company = Company::new(&mut dice);
    let mut recent: VecDeque<Rc<Message>> = VecDeque::new();
    (0..count).map(move |number| {
        let place = match number {
            n if count >= 100 && (n == count * 7 / 20 || n == count * 14 / 20) => Place::Largest,
            n if count >= 100 && n == count / 2 => Place::Large,
            _ => Place::Any,
        };
        // One message to recipients on both sides is reported more than once.
        let again = number > 50 && place == Place::Any && dice.percent(4);
        let message = match again {
            true => Rc::clone(&recent[dice.below(recent.len())]),
            false => Rc::new(company.write(&mut dice, place)),
        };
        if !again {
            recent.push_back(Rc::clone(&message));
            if recent.len() > 40 {
                recent.pop_front();
            }
        }
        report::wrap(&mut dice, &company, &message, number)
    })
}

/// The number in a report's `Message-ID`, for who has received one and wants to compare it.
pub fn number_of(report: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"\r\nMessage-ID: <";
    let start = memchr::memmem::find(report, FIELD)? + FIELD.len();
    std::str::from_utf8(report.get(start..start + 8)?).ok()?.parse().ok()
}

/// How large the reports of a corpus are, in octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// Reports.
    pub count: usize,
    /// All together.
    pub total: usize,
    /// Half are smaller.
    pub median: usize,
    /// Average.
    pub mean: usize,
    /// One in a hundred is larger.
    pub p99: usize,
    /// The largest.
    pub largest: usize,
}

impl Sizes {
    /// Counts.
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        let mut sizes: Vec<usize> = sizes.into_iter().collect();
        sizes.sort_unstable();
        let at = |per_cent: usize| sizes.get(sizes.len().saturating_sub(1) * per_cent / 100).copied().unwrap_or(0);
        let total = sizes.iter().sum();
        Self {
            count: sizes.len(),
            total,
            median: at(50),
            mean: total / sizes.len().max(1),
            p99: at(99),
            largest: at(100),
        }
    }
}
