//! The messages of a session by number, and what STAT, LIST and UIDL say of them.

use postkeep_shared::mail::{Digest, Uidl};

/// What the protocol says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its unique-id.
    pub uidl: Uidl,
    /// Exact octets of RETR, without dot-stuffing and the final dot.
    pub retr_size: u64,
    /// Exact octets of XRETR.
    pub xretr_size: u64,
    /// The receipt's digest.
    pub digest: Digest,
}

/// The messages of a session: does not change while the session lasts. Position 0 is message 1.
pub trait Listing: Send {
    /// Number of messages.
    fn count(&self) -> usize;
    /// The message at a position.
    fn item(&self, position: usize) -> Option<Item>;
}

impl Listing for Vec<Item> {
    fn count(&self) -> usize {
        self.len()
    }

    fn item(&self, position: usize) -> Option<Item> {
        self.get(position).cloned()
    }
}

/// Lines of one step of a long answer: a mailbox of a million messages is listed in pieces.
const LINES: usize = 1000;

/// Which list is being sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Sizes,
    Names,
}

/// The messages with their deletion marks.
pub(super) struct Messages {
    listing: Box<dyn Listing>,
    marked: Vec<bool>,
    octets: u64,
    left: usize,
}

impl Messages {
    pub(super) fn new(listing: Box<dyn Listing>) -> Self {
        let mut messages = Self { marked: vec![false; listing.count()], listing, octets: 0, left: 0 };
        messages.reset();
        messages
    }

    /// Takes all marks away.
    pub(super) fn reset(&mut self) {
        self.marked.fill(false);
        self.left = self.marked.len();
        self.octets = (0..self.left).filter_map(|i| self.listing.item(i)).map(|item| item.retr_size).sum();
    }

    /// Messages and octets that are not marked.
    pub(super) fn left(&self) -> (usize, u64) {
        (self.left, self.octets)
    }

    /// The message with this number, unless marked.
    pub(super) fn get(&self, number: u32) -> Option<(usize, Item)> {
        let position = usize::try_from(number).ok()?.checked_sub(1)?;
        if *self.marked.get(position)? { None } else { self.listing.item(position).map(|item| (position, item)) }
    }

    /// Marks a message; `false` when there is none or it is marked already.
    pub(super) fn mark(&mut self, number: u32) -> bool {
        let Some((position, item)) = self.get(number) else { return false };
        let Some(mark) = self.marked.get_mut(position) else { return false };
        *mark = true;
        self.left -= 1;
        self.octets -= item.retr_size;
        true
    }

    /// Positions of the marked messages.
    pub(super) fn marked(&self) -> Vec<usize> {
        self.marked.iter().enumerate().filter(|(_, marked)| **marked).map(|(position, _)| position).collect()
    }

    /// Appends lines from position `from` on; gives where to go on, `None` when the list is complete.
    pub(super) fn lines(&self, column: Column, from: usize, out: &mut Vec<u8>) -> Option<usize> {
        let until = from.saturating_add(LINES).min(self.marked.len());
        for position in from..until {
            if self.marked.get(position) == Some(&false)
                && let Some(item) = self.listing.item(position)
            {
                out.extend_from_slice(line(column, position, &item).as_bytes());
            }
        }
        (until < self.marked.len()).then_some(until)
    }
}

/// One line of a list, which is also the text of the answer about one message.
pub(super) fn line(column: Column, position: usize, item: &Item) -> String {
    match column {
        Column::Sizes => format!("{} {}\r\n", position + 1, item.retr_size),
        Column::Names => format!("{} {}\r\n", position + 1, item.uidl),
    }
}
