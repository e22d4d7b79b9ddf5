//! What a login names, checked so that nobody can tell from the time whether there is such a mailbox.
//!
//! A name without a mailbox is checked against the definition of another one: same reads, same signature, same cost of
//! the key derivation, and the result is thrown away. Which one is decided by a keyed hash of the name, so the same
//! name always costs the same, in the proportions of this node's real mailboxes, and outsiders cannot compute it. A new
//! mailbox changes the choice for one name in as many as there are mailboxes (rendezvous hashing).

use super::{Identity, Mailbox, MailboxError, Mailboxes, UnlockError};
use postkeep_shared::{
    crypt::{KdfParams, Password, wrapped_params},
    mail::{Digest, MailboxId},
};
use zeroize::Zeroizing;

/// The mailbox a login is checked against: the one it names, or one that stands for it.
pub struct Claim {
    mailbox: Mailbox,
    genuine: bool,
}

impl Mailboxes {
    /// What to check a login with the user name `user` against, which reads as `name`. `None`: there is no mailbox at
    /// all; call [`Self::pretend_unlock`].
    ///
    /// # Errors
    /// [`MailboxError`] for the named mailbox; one that only stands for it reports nothing.
    pub fn claim(&self, name: Option<MailboxId>, user: &[u8]) -> Result<Option<Claim>, MailboxError> {
        // Everything is done for known names too, or the time would tell.
        let ids = self.ids()?;
        let known = name.filter(|name| ids.contains(name));
        let user = name.map_or_else(|| user.to_vec(), |name| name.to_string().into_bytes());
        let key = self.claim_key();
        let weight = |id: &MailboxId| Digest::of(&[key.as_slice(), id.0.as_slice(), &user].concat()).0;
        let stand_in = ids.iter().min_by_key(|id| weight(id)).copied();
        match (known, stand_in) {
            (Some(name), _) => Ok(self.lookup(&name)?.map(|mailbox| Claim { mailbox, genuine: true })),
            (None, Some(other)) => {
                let found = self.lookup(&other).ok().flatten();
                Ok(found.map(|mailbox| Claim { mailbox, genuine: false }))
            }
            (None, None) => Ok(None),
        }
    }

    fn claim_key(&self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new(b"postkeep login claim v1\0".to_vec());
        secret.extend_from_slice(Zeroizing::new(self.node.signing_key().to_bytes()).as_slice());
        Zeroizing::new(Digest::of(&secret).0)
    }
}

impl Claim {
    /// As [`Mailbox::unlock`]; always [`UnlockError::WrongPassword`] where the name has no mailbox.
    ///
    /// # Errors
    /// [`UnlockError`].
    pub fn unlock(&self, password: &Password) -> Result<Identity, UnlockError> {
        match self.mailbox.unlock(password) {
            Err(UnlockError::Memory) => Err(UnlockError::Memory),
            result if self.genuine => result,
            _ => Err(UnlockError::WrongPassword),
        }
    }

    /// What checking it costs.
    #[must_use]
    pub fn cost(&self) -> KdfParams {
        // Parameters that cannot be read cost nothing: the definition is refused as damaged.
        wrapped_params(&self.mailbox.wrapped).unwrap_or(KdfParams { memory_kib: 0, passes: 0, lanes: 0 })
    }

    /// The mailbox that was named; `None` where there is none of that name.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        self.genuine.then_some(&self.mailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::sync::Arc;

    #[test]
    fn a_stand_in_opens_for_nobody_and_stays_the_same() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
        assert!(all.claim(None, b"root").expect("reads").is_none());
        let (mailbox, password) = all.create("", None).expect("makes");
        let password = password.expect("made one");
        let known = all.claim(Some(mailbox.id), b"").expect("reads").expect("there");
        assert_eq!(known.mailbox().map(|m| m.id), Some(mailbox.id));
        assert!(known.unlock(&password).is_ok());
        // The only mailbox stands for every other name; its password must not open it under that name.
        for (name, user) in [(None, b"root".as_slice()), (Some(MailboxId([7; 16])), b"")] {
            let unknown = all.claim(name, user).expect("reads").expect("a stand-in");
            assert!(unknown.mailbox().is_none());
            assert_eq!(unknown.unlock(&password).err(), Some(UnlockError::WrongPassword));
        }
        let chosen = |user: &[u8]| all.claim(None, user).expect("reads").map(|claim| claim.mailbox.id);
        let (second, _) = all.create("", None).expect("makes");
        let users: Vec<String> = (0..64).map(|n| format!("user{n}")).collect();
        let before: Vec<_> = users.iter().map(|user| chosen(user.as_bytes())).collect();
        assert_eq!(before, users.iter().map(|user| chosen(user.as_bytes())).collect::<Vec<_>>());
        for id in [mailbox.id, second.id] {
            assert!(before.contains(&Some(id)), "never stands in: {id}");
        }
    }
}
