//! What waits at a server: STAT, LIST and UIDL put together and compared.
//!
//! Three answers that disagree come from a server that must not be told to delete anything.

use std::collections::{BTreeMap, BTreeSet};

/// Longest unique-id that is a name (RFC 1939 §7).
const MAX_NAME: usize = 70;

/// One waiting message. Only [`Collector`] makes it, so number, size and name belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    number: u32,
    size: u64,
    uidl: Vec<u8>,
    distinct: bool,
}

impl Listed {
    /// Its number in this session.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Octets as LIST announced them.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its name, any octets.
    #[must_use]
    pub fn uidl(&self) -> &[u8] {
        &self.uidl
    }

    /// Its name as text; never used as a path.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.uidl).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    /// Whether it can be told apart from every other message by a name that the protocol allows: only then may it
    /// ever be deleted.
    #[must_use]
    pub fn is_distinct(&self) -> bool {
        self.distinct
    }
}

/// Collects the answers.
#[derive(Debug, Default)]
pub struct Collector {
    /// STAT's count.
    pub counted: Option<u64>,
    sizes: BTreeMap<u32, u64>,
    names: BTreeMap<u32, Vec<u8>>,
    repeated: bool,
}

/// What waits, by number, and what is wrong with the answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every message of LIST.
    pub messages: Vec<Listed>,
    /// Sentences; when there are any, nothing may be deleted in this session.
    pub problems: Vec<String>,
}

impl Collector {
    /// A line of LIST.
    pub fn size(&mut self, number: u32, size: u64) {
        self.repeated |= self.sizes.insert(number, size).is_some();
    }

    /// A line of UIDL.
    pub fn name(&mut self, number: u32, name: Vec<u8>) {
        self.repeated |= self.names.insert(number, name).is_some();
    }

    /// Compares the answers. `names` tells whether UIDL was answered at all.
    #[must_use]
    pub fn finish(mut self, names: bool) -> Listing {
        let mut problems = Vec::new();
        let (listed, counted) = (self.sizes.len() as u64, self.counted.unwrap_or_default());
        if listed != counted {
            problems.push(format!("STAT counts {counted} messages and LIST {listed}"));
        }
        if names && !self.names.keys().eq(self.sizes.keys()) {
            problems.push("LIST and UIDL name different messages".to_owned());
        }
        if self.repeated {
            problems.push("LIST or UIDL names a message number twice".to_owned());
        }
        let doubles = doubles(&self.names);
        if !doubles.is_empty() {
            problems.push(format!("{} names stand for more than one message each", doubles.len()));
        }
        let messages = std::mem::take(&mut self.sizes).into_iter().map(|(number, size)| {
            let uidl = self.names.remove(&number).unwrap_or_default();
            let distinct = is_name(&uidl) && !doubles.contains(&uidl);
            Listed { number, size, uidl, distinct }
        });
        let messages: Vec<Listed> = messages.collect();
        let nameless = messages.iter().filter(|m| !is_name(&m.uidl)).count();
        if nameless > 0 {
            problems.push(format!("{nameless} messages have no usable name (UIDL)"));
        }
        Listing { messages, problems }
    }
}

/// Names that are there more than once. Only these are copied: a million names are honest most of the time.
fn doubles(names: &BTreeMap<u32, Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let mut sorted: Vec<&Vec<u8>> = names.values().collect();
    sorted.sort_unstable();
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    pairs.filter(|(one, next)| one == next).map(|(one, _)| (*one).clone()).collect()
}

/// RFC 1939 §7: 1 to 70 characters in the range 0x21 to 0x7E.
fn is_name(uidl: &[u8]) -> bool {
    !uidl.is_empty() && uidl.len() <= MAX_NAME && uidl.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(count: u64, sizes: &[(u32, u64)], names: &[(u32, &str)]) -> Listing {
        let mut collector = Collector { counted: Some(count), ..Collector::default() };
        sizes.iter().for_each(|(n, s)| collector.size(*n, *s));
        names.iter().for_each(|(n, u)| collector.name(*n, u.as_bytes().to_vec()));
        collector.finish(true)
    }

    #[test]
    fn answers_that_agree() {
        let listing = listing(2, &[(1, 5), (2, 7)], &[(1, "a"), (2, "b")]);
        assert!(listing.problems.is_empty());
        assert!(listing.messages.iter().all(Listed::is_distinct));
        assert_eq!(listing.messages[1].size(), 7);
    }

    #[test]
    fn answers_that_disagree_are_problems() {
        let long = "x".repeat(71);
        for (count, names) in [
            (3, vec![(1, "a"), (2, "b")]),
            (2, vec![(1, "a")]),
            (2, vec![(1, "a"), (3, "b")]),
            (2, vec![(1, "a"), (2, "a")]),
            (2, vec![(1, "a"), (2, "b"), (2, "c")]),
            (2, vec![(1, "a"), (2, "")]),
            (2, vec![(1, "a"), (2, long.as_str())]),
            (2, vec![(1, "a"), (2, "nul\0")]),
        ] {
            let listing = listing(count, &[(1, 5), (2, 7)], &names);
            assert_eq!(listing.messages.len(), 2, "everything is still fetched: {names:?}");
            assert!(!listing.problems.is_empty(), "{names:?}");
        }
        let doubles = listing(2, &[(1, 5), (2, 7)], &[(1, "a"), (2, "a")]);
        assert!(doubles.messages.iter().all(|m| !m.is_distinct()));
        let path = listing(1, &[(1, 5)], &[(1, "../../etc/passwd")]);
        assert!(path.problems.is_empty(), "a name is never a path, so this one is as good as any");
    }
}
