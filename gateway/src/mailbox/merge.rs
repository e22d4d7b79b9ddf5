//! Two definitions of one mailbox become one, or a conflict that a person has to decide. Pure.
//!
//! Keys and state are counted apart (`Revisions`); the higher count wins, so a password changed here and a suspension
//! there both hold. A definition wins only if it opens all that the other one opens: its keys must include the other's
//! present key, and the earlier ones too while anything waits. What cannot be told apart by counts is a conflict, and
//! both sides stay as they are.

use super::Mailbox;

/// Why two definitions cannot become one: a sentence that names both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict(pub String);

impl Mailbox {
    /// Whether this mailbox's keys open what was sealed to `recipient`.
    #[must_use]
    pub fn has_key(&self, recipient: &str) -> bool {
        self.recipient == recipient || self.earlier.iter().any(|earlier| earlier == recipient)
    }

    /// What this definition becomes beside `theirs`, of the same mailbox, from `peer`: `None` where it stays as it is.
    /// `waits`: whether anything waits here.
    ///
    /// # Errors
    /// [`Conflict`].
    pub fn merged(&self, theirs: &Self, peer: &str, waits: impl Fn() -> bool) -> Result<Option<Self>, Conflict> {
        let mut merged = self.clone();
        if self.keys(theirs, peer, waits)? {
            merged.key_id.clone_from(&theirs.key_id);
            merged.recipient.clone_from(&theirs.recipient);
            merged.earlier.clone_from(&theirs.earlier);
            merged.escrow.clone_from(&theirs.escrow);
            merged.wrapped.clone_from(&theirs.wrapped);
            merged.revisions.key = theirs.revisions.key;
        }
        if theirs.revisions.state > self.revisions.state {
            merged.state = theirs.state;
            merged.revisions.state = theirs.revisions.state;
        } else if theirs.revisions.state == self.revisions.state && theirs.state != self.state {
            let text = self.between(theirs, peer);
            return Err(Conflict(format!(
                "{text}: one is suspended, one not; suspend or resume it once more on one of them"
            )));
        }
        Ok((merged != *self).then_some(merged))
    }

    /// Whether their keys take the place of ours.
    fn keys(&self, theirs: &Self, peer: &str, waits: impl Fn() -> bool) -> Result<bool, Conflict> {
        let conflict = |what: &str| Err(Conflict(format!("{}: {what}", self.between(theirs, peer))));
        let (ours, other) = (self.revisions.key, theirs.revisions.key);
        let (newer, older) = if other > ours { (theirs, self) } else { (self, theirs) };
        if !newer.has_key(&older.recipient) {
            return conflict(
                "they have different keys, and neither opens the other's mail; empty, suspend and delete it on one node",
            );
        }
        if ours == other {
            let same = self.wrapped == theirs.wrapped && self.earlier == theirs.earlier && self.escrow == theirs.escrow;
            if same && self.recipient == theirs.recipient {
                return Ok(false);
            }
            return conflict(
                "password or key were changed on both; change the password once more on the node that is right",
            );
        }
        if other > ours && !self.earlier.iter().all(|key| theirs.has_key(key)) && waits() {
            return conflict("earlier keys were given up there while messages wait here; collect those first");
        }
        Ok(other > ours)
    }

    fn between(&self, theirs: &Self, peer: &str) -> String {
        let side = |mailbox: &Self| {
            let (key, state) = (mailbox.revisions.key, mailbox.revisions.state);
            format!("key {} change {key}, {} change {state}", mailbox.key_id, mailbox.state.name())
        };
        format!("mailbox {}: here {}; {peer}: {}", self.id, side(self), side(theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mailboxes, State};
    use postkeep_shared::{crypt::Password, disk::LocalDisk};
    use std::sync::Arc;

    #[test]
    fn newer_wins_field_by_field_and_different_keys_never() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
        let [one, two, three] =
            ["password one", "password two", "password three"].map(|p| Password::received(p.as_bytes()));
        let (first, _) = all.create("", Some(&one)).expect("makes");
        let id = first.id;
        let merged = |ours: &super::Mailbox, theirs: &super::Mailbox| ours.merged(theirs, "there", || true);
        assert_eq!(merged(&first, &first), Ok(None));

        let changed = all.passwd(&id, &one, &two).expect("changes");
        assert_eq!(merged(&first, &changed), Ok(Some(changed.clone())));
        assert_eq!(merged(&changed, &first), Ok(None));
        let mut suspended = first.clone();
        suspended.state = State::Suspended;
        suspended.revisions.state = 2;
        let both = merged(&changed, &suspended).expect("no conflict").expect("a change");
        assert_eq!((both.state, both.revisions.key, &both.wrapped), (State::Suspended, 2, &changed.wrapped));

        // The same count with another password: nobody knows which one is meant.
        let mut other = changed.clone();
        other.wrapped[60] ^= 1;
        let conflict = merged(&changed, &other).expect_err("a conflict").0;
        assert!(conflict.contains("changed on both") && conflict.contains("there: key"), "{conflict}");

        // A rotation carries the key before; one that does not know our key never wins.
        let rotated = all.rotate(&id, &two, &three, false).expect("rotates");
        assert_eq!(merged(&changed, &rotated), Ok(Some(rotated.clone())));
        let mut elsewhere = rotated.clone();
        elsewhere.earlier.clear();
        elsewhere.revisions.key = 9;
        for (ours, theirs) in [(&changed, &elsewhere), (&elsewhere, &changed)] {
            assert!(merged(ours, theirs).expect_err("a conflict").0.contains("different keys"));
        }
        // Keys given up there: only while nothing waits here.
        let again = all.rotate(&id, &three, &one, true).expect("rotates");
        let mut forgot = again.clone();
        forgot.earlier.truncate(1);
        assert!(rotated.merged(&forgot, "there", || false).is_ok());
        assert!(rotated.merged(&forgot, "there", || true).expect_err("a conflict").0.contains("given up"));
    }
}
