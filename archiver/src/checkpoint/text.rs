//! The text of a checkpoint, line by line (`docs/formats/checkpoint.md`). Pure.

use crate::signing::PublicKey;
use postkeep_shared::{mail::Digest, receipt::NodeKey};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What a checkpoint's first line says.
const FIRST_LINE: &str = "postkeep checkpoint 1";
/// Lines of stores and ledgers that are read.
const MAX_LINES: usize = 100_000;

/// Where all chains stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// When, seconds since 1970-01-01 UTC.
    pub time: i64,
    /// The key that signs it.
    pub key: PublicKey,
    /// SHA-256 of the checkpoint before, the whole file.
    pub previous: Option<Digest>,
    /// Every store.
    pub stores: Vec<StoreHead>,
    /// Every ledger of which the stores keep entries.
    pub ledgers: Vec<LedgerHead>,
}

/// The end of a store's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHead {
    /// The store's name.
    pub name: String,
    /// The store's id.
    pub id: String,
    /// Number of the last record.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
}

/// The end of a ledger as far as the stores keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerHead {
    /// The source it was collected for.
    pub source: String,
    /// SHA-256 of the mailbox's name: the name itself is what keeps strangers from writing to it.
    pub mailbox: Digest,
    /// The node that signs.
    pub node: NodeKey,
    /// Number of the last entry.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the checkpoint is not {wanted}")]
pub struct TextError {
    /// Which.
    pub line: usize,
    /// What must stand there.
    pub wanted: &'static str,
}

impl Checkpoint {
    /// The text to sign.
    #[must_use]
    pub fn to_text(&self) -> String {
        let time = OffsetDateTime::from_unix_timestamp(self.time).ok().and_then(|time| time.format(&Rfc3339).ok());
        let previous = self.previous.map_or("none".to_owned(), |hash| hash.to_string());
        let mut text =
            format!("{FIRST_LINE}\ntime {}\nkey {}\nprevious {previous}\n", time.unwrap_or_default(), self.key);
        for StoreHead { name, id, number, hash } in &self.stores {
            text += &format!("store {name} {id} {number} {hash}\n");
        }
        for LedgerHead { source, mailbox, node, seq, hash } in &self.ledgers {
            text += &format!("ledger {source} {mailbox} {} {seq} {hash}\n", Digest(node.0));
        }
        text
    }

    /// Reads a text whose signature was verified.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let lines: Vec<&str> = text.lines().collect();
        let head = |at: usize, word: &str, wanted| {
            let rest = lines.get(at).and_then(|line| line.strip_prefix(word));
            rest.ok_or(TextError { line: at + 1, wanted })
        };
        head(0, FIRST_LINE, "`postkeep checkpoint 1`")?;
        let bad = |line, wanted| TextError { line, wanted };
        let time = head(1, "time ", "`time` and a time")?;
        let time = OffsetDateTime::parse(time, &Rfc3339).map_err(|_| bad(2, "`time` and a time"))?.unix_timestamp();
        let key = head(2, "key ", "`key` and a public key")?;
        let key = key.parse().map_err(|_| bad(3, "`key` and a public key"))?;
        let previous = match head(3, "previous ", "`previous` and a hash")? {
            "none" => None,
            hash => Some(Digest::from_hex(hash).ok_or(bad(4, "`previous` and a hash"))?),
        };
        let mut checkpoint = Self { time, key, previous, stores: Vec::new(), ledgers: Vec::new() };
        if lines.len() > MAX_LINES {
            return Err(bad(MAX_LINES, "the last one that is read"));
        }
        for (at, line) in lines.iter().enumerate().skip(4) {
            checkpoint.take(line).ok_or(bad(at + 1, "the head of a store or ledger"))?;
        }
        // One text for one checkpoint.
        if checkpoint.to_text() != text {
            return Err(bad(0, "written as this program writes it"));
        }
        Ok(checkpoint)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["store", name, id, number, hash] => self.stores.push(StoreHead {
                name: (*name).to_owned(),
                id: (*id).to_owned(),
                number: number.parse().ok()?,
                hash: Digest::from_hex(hash)?,
            }),
            ["ledger", source, mailbox, node, seq, hash] => self.ledgers.push(LedgerHead {
                source: (*source).to_owned(),
                mailbox: Digest::from_hex(mailbox)?,
                node: NodeKey(Digest::from_hex(node)?.0),
                seq: seq.parse().ok()?,
                hash: Digest::from_hex(hash)?,
            }),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::{NoteError, open_note};

    const PAGE: &str = include_str!("../../../docs/formats/checkpoint.md");

    fn block(name: &str) -> &'static str {
        let (_, rest) = PAGE.split_once(&format!("```text {name}\n")).expect("the page has it");
        rest.split_once("```").expect("it ends").0
    }

    #[test]
    fn the_example_of_the_page() {
        let key: PublicKey = block("key").trim().parse().expect("a key");
        let note = block("checkpoint");
        let checkpoint = Checkpoint::parse(open_note(note, &key).expect("signed")).expect("a checkpoint");
        assert_eq!(checkpoint.key, key);
        assert_eq!((checkpoint.stores.len(), checkpoint.ledgers.len()), (1, 2));
        assert_eq!((checkpoint.stores[0].name.as_str(), checkpoint.stores[0].number), ("main", 48_211));
        assert_eq!((checkpoint.ledgers[0].source.as_str(), checkpoint.ledgers[0].seq), ("m365", 39_116));
        assert_eq!(checkpoint.ledgers[0].mailbox, Digest::of(b"mbx-634dba1a2ef0ec0e5f7d7465fcfeb953"));
        let changed = note.replace("48211", "48212");
        assert_eq!(open_note(&changed, &key), Err(NoteError::Signature));
    }

    #[test]
    fn texts_that_are_not_checkpoints() {
        let key: PublicKey = block("key").trim().parse().expect("a key");
        let text = open_note(block("checkpoint"), &key).expect("signed");
        for (from, to, line) in [
            ("postkeep checkpoint 1", "postkeep export 1", 1),
            ("time 2", "time x2", 2),
            ("key postkeep", "key x", 3),
            ("previous ", "previous x", 4),
            ("store main", "store", 5),
            ("ledger m365", "ledger a m365", 6),
            (" 48211 ", " 048211 ", 0),
        ] {
            let error = Checkpoint::parse(&text.replacen(from, to, 1)).expect_err(from);
            assert_eq!(error.line, line, "{from}: {error}");
        }
    }
}
