//! Content: DATA to its CRLF.CRLF, BDAT by count.

use super::{Event, Smtp, State};
use crate::smtp::replies::{self, Reply};
use postkeep_shared::wire::DotDecoder;

/// How the message comes.
pub(super) enum Way {
    /// DATA, dot-stuffed.
    Data(DotDecoder),
    /// One BDAT chunk.
    Chunk {
        /// Octets of the chunk.
        size: u64,
        /// Octets of the chunk that have not arrived.
        left: u64,
        /// It is the last one.
        last: bool,
    },
}

impl Way {
    /// Takes at most about `room` octets of the message off `input`: octets used, and whether the end was reached.
    fn take(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> (usize, bool) {
        match self {
            Self::Data(decoder) => {
                let decoded = decoder.decode(input.get(..room.min(input.len())).unwrap_or_default(), out);
                (decoded.consumed, decoded.done)
            }
            Self::Chunk { left, .. } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let piece = input.get(..most.min(room).min(input.len())).unwrap_or_default();
                out.extend_from_slice(piece);
                *left -= piece.len() as u64;
                (piece.len(), *left == 0)
            }
        }
    }

    /// Whether the end of this DATA or chunk is the end of the message.
    fn is_last(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Chunk { last: true, .. })
    }
}

impl Smtp {
    /// Moves on within the message; `false` when more octets are needed.
    pub(super) fn content(&mut self) -> bool {
        let State::Content(mut way) = std::mem::replace(&mut self.state, State::Command) else { return false };
        let Some(content) = self.transaction.as_mut().and_then(|t| t.content.as_mut()) else { return true };
        let (input, room) = (self.input.bytes(), content.room());
        let ((used, ended), refused_now) = content.append(|block| {
            // At once as much as comes, or the block grows in many steps that each copy it.
            block.reserve(room.min(input.len()));
            way.take(input, room, block)
        });
        if used == 0 && !ended {
            self.state = State::Content(way);
            return false;
        }
        self.input.consume(used);
        let hopeless = content.refused().is_some() && content.is_hopeless(0);
        let block = content.take_block(ended && way.is_last());
        if refused_now {
            self.event(Event::Discard);
        }
        if hopeless {
            self.stop(replies::TOO_BIG_BY_FAR);
        } else if let Some(block) = block {
            self.state = State::Written { way, ended };
            self.event(Event::Content(block));
        } else if ended {
            self.end_of(way);
        } else {
            self.state = State::Content(way);
        }
        true
    }

    /// Reads on past a chunk nobody wants; `false` when more octets are needed.
    pub(super) fn skip(&mut self) -> bool {
        let State::Skip { left, reply } = &mut self.state else { return false };
        let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
        self.input.consume(count);
        *left -= count as u64;
        if *left > 0 {
            return false;
        }
        let reply = *reply;
        self.state = State::Command;
        if reply.is_temporary() {
            self.answer(reply);
        } else {
            self.answer_bad(reply);
        }
        true
    }

    /// DATA or a chunk has ended.
    pub(super) fn end_of(&mut self, way: Way) {
        self.state = State::Command;
        match way {
            Way::Chunk { size, last: false, .. } => match self.refusal() {
                // The transaction stays refused, so that every chunk up to the last one hears the same.
                Some(reply) => self.answer(reply),
                None => self.answer_with(replies::CHUNK, replies::CHUNK.line_with(&format!("{size} octets noted"))),
            },
            Way::Data(_) | Way::Chunk { .. } => self.end_of_message(),
        }
    }

    /// The message has ended: to stable storage with it, or say why not.
    pub(super) fn end_of_message(&mut self) {
        let Some(reply) = self.refusal() else {
            self.state = State::Commit;
            return self.event(Event::Commit);
        };
        let size = self.transaction.take().map_or(0, |t| t.size());
        self.refused(reply, format!("message of {size} octets"));
    }

    /// Gives the message up; the rest of it is still read.
    pub(super) fn give_up(&mut self, reply: Reply) {
        let content = self.transaction.as_mut().and_then(|t| t.content.as_mut());
        if content.is_some_and(|content| content.refuse(reply)) {
            self.event(Event::Discard);
        }
    }

    fn refusal(&self) -> Option<Reply> {
        self.transaction.as_ref()?.content.as_ref()?.refused()
    }
}
