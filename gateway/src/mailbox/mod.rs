//! Mailboxes: one definition file each, with the recipient key in clear and the secret key wrapped by the password
//! (`docs/formats/keys.md`).
//!
//! Files are replaced whole, so readers need no lock, and every lookup reads the file: what a command changed counts
//! for the next connection of a running server. Changes exclude each other by a lock file. No password and no secret
//! key is ever stored.

mod change;
mod claim;
mod definition;
mod key;
mod memo;
mod merge;
mod take_in;

pub use change::Changing;
pub use claim::Claim;
pub use definition::Portable;
pub use key::{EscrowIdentity, Identity, MAX_KEYS, UnlockError};
pub use merge::Conflict;
pub use take_in::{OnConflict, TakenIn};

use crate::node::{Node, NodeError};
use postkeep_shared::{
    crypt::{KdfParams, Password, wrap_key},
    disk::{Disk, DiskError},
    mail::MailboxId,
    receipt::NodeKey,
    run::Failure,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use time::OffsetDateTime;

/// A definition larger than this is not one.
const MAX_FILE: u64 = 64 * 1024;
/// Characters of a description.
const MAX_DESCRIPTION: usize = 200;

/// Whether new mail is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// New mail is taken.
    Active,
    /// New mail gets `450 4.2.1`; POP3 goes on.
    Suspended,
}

/// A mailbox as its definition file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its name.
    pub id: MailboxId,
    /// What the administrator called it; may be empty.
    pub description: String,
    /// When it was made.
    pub created: OffsetDateTime,
    /// Whether it takes mail.
    pub state: State,
    /// First 16 hex digits of the SHA-256 of the recipient text.
    pub key_id: String,
    /// The age recipient messages are sealed to, `age1…`.
    pub recipient: String,
    /// Recipients before a rotation, the latest first: what was sealed to them opens with the same password.
    pub earlier: Vec<String>,
    /// How often keys and state were changed.
    pub revisions: Revisions,
    /// Where set, the secret key is also wrapped to this recipient.
    pub escrow: Option<Escrow>,
    wrapped: Vec<u8>,
}

/// Counts changes, so that two nodes can tell which definition is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revisions {
    /// Of password, keys and escrow.
    pub key: u64,
    /// Of the state.
    pub state: u64,
}

/// The secret key wrapped to a recipient whose identity is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escrow {
    /// `age1…`.
    pub recipient: String,
    /// An age file with the mailbox's identity text.
    pub sealed_identity: Vec<u8>,
}

/// Why mailbox definitions cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The node key cannot be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A definition cannot be used.
    #[error("{}: {detail}; restore it from a backup", file.display())]
    Damaged {
        /// The definition file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A key operation failed.
    #[error("{0}")]
    Key(String),
    /// Not a recipient.
    #[error("the escrow recipient is not an age X25519 recipient; give one that starts with age1")]
    Escrow,
    /// A description that would break lines.
    #[error("the description holds a control character or has more than {MAX_DESCRIPTION} characters; shorten it")]
    Description,
    /// The mailbox stays locked.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// No such mailbox any more.
    #[error("there is no mailbox {0}; see `postkeep-gateway mailbox list`")]
    Gone(MailboxId),
    /// Another change does not end.
    #[error("another command is changing mailboxes and does not end; see which one runs, then try again")]
    Busy,
    /// Deleting needs it.
    #[error("mailbox {0} takes mail; suspend it first with `mailbox suspend`")]
    NotSuspended(MailboxId),
    /// It was made without one.
    #[error(
        "mailbox {0} has no escrow: it was made without --escrow, so only its password opens it; nothing was changed"
    )]
    NoEscrow(MailboxId),
    /// The file holds another secret.
    #[error(
        "this is not the identity of the escrow of mailbox {id}, which was made for {recipient}; nothing was changed"
    )]
    OtherEscrow {
        /// The mailbox.
        id: MailboxId,
        /// What its escrow was sealed to.
        recipient: String,
    },
    /// It was rotated many times.
    #[error("mailbox {0} has {MAX_KEYS} keys; collect what waits, then rotate with --forget-earlier")]
    TooManyKeys(MailboxId),
}

impl From<MailboxError> for Failure {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Unlock(UnlockError::WrongPassword)
            | MailboxError::NoEscrow(_)
            | MailboxError::OtherEscrow { .. } => Self::wrong_key(error),
            MailboxError::Escrow | MailboxError::Description | MailboxError::Gone(_) => Self::usage(error),
            MailboxError::NotSuspended(_) | MailboxError::TooManyKeys(_) => Self::refused(error),
            _ => Self::cannot(error),
        }
    }
}

impl State {
    /// `active` or `suspended`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Suspended].into_iter().find(|state| state.name() == name)
    }
}

fn check_description(description: &str) -> Result<(), MailboxError> {
    if description.chars().any(char::is_control) || description.chars().count() > MAX_DESCRIPTION {
        return Err(MailboxError::Description);
    }
    Ok(())
}

/// All mailboxes of a data directory. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    node: Arc<Node>,
    memo: memo::Memo,
}

impl Mailboxes {
    /// The mailboxes of `data_dir`, which must have a node key or be unused.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn open(data_dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, MailboxError> {
        let node = Arc::new(Node::load_or_create(data_dir, disk.as_ref())?);
        Ok(Self { folder: data_dir.join("mailboxes"), disk, node, memo: memo::Memo::default() })
    }

    /// As [`Self::open`], for a data directory that must be there: nothing is made.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn existing(data_dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, MailboxError> {
        let node = Arc::new(Node::load(data_dir, disk.as_ref())?);
        Ok(Self { folder: data_dir.join("mailboxes"), disk, node, memo: memo::Memo::default() })
    }

    /// The node that signs here.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The mailbox of this name, `None` when there is none.
    ///
    /// # Errors
    /// [`MailboxError`]: whether there is such a mailbox is then not known.
    pub fn lookup(&self, id: &MailboxId) -> Result<Option<Mailbox>, MailboxError> {
        let file = self.file(*id);
        let octets = match self.disk.read(&file, MAX_FILE) {
            Ok(octets) => octets,
            Err(e) if e.is_missing() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if let Some(mailbox) = self.memo.get(id, &octets) {
            return Ok(Some(mailbox));
        }
        let text = std::str::from_utf8(&octets).map_err(|_| "not UTF-8".to_owned());
        let mailbox = text.and_then(|text| definition::read(text, *id, self.node.public()));
        let mailbox = mailbox.map_err(|detail| MailboxError::Damaged { file, detail })?;
        self.memo.put(octets, &mailbox);
        Ok(Some(mailbox))
    }

    /// Names of every definition file, sorted.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn ids(&self) -> Result<Vec<MailboxId>, MailboxError> {
        self.names(".toml")
    }

    fn names(&self, suffix: &str) -> Result<Vec<MailboxId>, MailboxError> {
        let entries = match self.disk.list(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.is_missing() => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        Ok(entries.iter().filter_map(|e| e.name.strip_suffix(suffix)?.parse().ok()).collect())
    }

    /// Every mailbox, by name.
    ///
    /// # Errors
    /// [`MailboxError`] for the first that cannot be read.
    pub fn list(&self) -> Result<Vec<Mailbox>, MailboxError> {
        let mailboxes = self.ids()?.into_iter().map(|id| self.lookup(&id)).collect::<Result<Vec<_>, _>>()?;
        Ok(mailboxes.into_iter().flatten().collect())
    }

    /// The definition of a mailbox in another node's data folder, signed by `node`; `None` where it cannot be used.
    #[must_use]
    pub fn foreign(data_dir: &Path, disk: &dyn Disk, id: MailboxId, node: NodeKey) -> Option<Mailbox> {
        let octets = disk.read(&data_dir.join(format!("mailboxes/{id}.toml")), MAX_FILE).ok()?;
        definition::read(std::str::from_utf8(&octets).ok()?, id, node).ok()
    }

    /// Names of mailboxes that were deleted, sorted.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn deleted_ids(&self) -> Result<Vec<MailboxId>, MailboxError> {
        self.names(".deleted")
    }

    /// Whether there was a mailbox of this name and it was deleted.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn is_deleted(&self, id: &MailboxId) -> Result<bool, MailboxError> {
        match self.disk.entry(&self.tombstone(*id)) {
            Ok(_) => Ok(true),
            Err(e) if e.is_missing() => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The work of [`Mailbox::unlock`] where there is no mailbox at all, not even to be [`Self::claim`]ed in place of
    /// an unknown one.
    pub fn pretend_unlock(password: &Password) {
        // The result is of no use to anybody; only the time counts.
        let _ = wrap_key(password, KdfParams::GENERATED, b"nothing", b"");
    }

    fn file(&self, id: MailboxId) -> PathBuf {
        self.folder.join(format!("{id}.toml"))
    }

    fn tombstone(&self, id: MailboxId) -> PathBuf {
        self.folder.join(format!("{id}.deleted"))
    }

    fn text(&self, mailbox: &Mailbox) -> Result<String, MailboxError> {
        definition::write(mailbox, &self.node)
            .map_err(|detail| MailboxError::Damaged { file: self.file(mailbox.id), detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    fn mailboxes(folder: &Path) -> Mailboxes {
        Mailboxes::open(folder, Arc::new(LocalDisk)).expect("opens")
    }

    #[test]
    fn made_read_and_unlocked() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let (made, password) = all.create("Köln", None).expect("makes");
        let password = password.expect("made one");
        let read = all.lookup(&made.id).expect("reads").expect("there");
        assert_eq!(read, made);
        assert_eq!(all.list().expect("lists"), vec![made.clone()]);
        assert_eq!(read.unlock(&password).expect("opens").recipient(), made.recipient);
        let wrong = read.unlock(&Password::received(b"wrong")).err();
        assert_eq!(wrong, Some(UnlockError::WrongPassword));
        assert_eq!(all.lookup(&MailboxId([0; 16])).expect("reads"), None);
    }

    #[test]
    fn a_changed_password_opens_the_same_key_and_the_old_one_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let (old, new) = (Password::received(b"the old password"), Password::received(b"the new password"));
        let (mailbox, _) = all.create("", Some(&old)).expect("makes");
        assert!(matches!(all.passwd(&mailbox.id, &new, &old), Err(MailboxError::Unlock(UnlockError::WrongPassword))));
        all.passwd(&mailbox.id, &old, &new).expect("changes");
        let read = all.lookup(&mailbox.id).expect("reads").expect("there");
        assert_eq!(read.recipient, mailbox.recipient);
        assert!(read.unlock(&new).is_ok());
        assert_eq!(read.unlock(&old).err(), Some(UnlockError::WrongPassword));
    }

    #[test]
    fn the_escrow_identity_opens_the_mailbox_key() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let offline = age::x25519::Identity::generate();
        let recipient = offline.to_public().to_string();
        let (mailbox, password) = all.create_with_escrow("", None, Some(&recipient)).expect("makes");
        let escrow = mailbox.escrow.as_ref().expect("set");
        let text = age::decrypt(&offline, &escrow.sealed_identity).expect("opens");
        let identity = mailbox.unlock(&password.expect("made one")).expect("opens");
        assert_eq!(text, identity.to_text().as_bytes());
        assert!(matches!(all.create_with_escrow("", None, Some("age1x")), Err(MailboxError::Escrow)));
    }

    #[test]
    fn after_a_rotation_one_password_opens_both_keys_and_the_escrow_too() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let offline = age::x25519::Identity::generate();
        let recipient = offline.to_public().to_string();
        let (old, new) = (Password::received(b"the old password"), Password::received(b"the new password"));
        let (before, _) = all.create_with_escrow("", Some(&old), Some(&recipient)).expect("makes");
        let sealed = age::encrypt(&before.recipient.parse::<age::x25519::Recipient>().expect("is one"), b"waiting");
        assert!(all.rotate(&before.id, &new, &old, false).is_err());
        all.rotate(&before.id, &old, &new, false).expect("rotates");
        let after = all.lookup(&before.id).expect("reads").expect("there");
        assert_ne!(after.recipient, before.recipient);
        assert_eq!(after.earlier, std::slice::from_ref(&before.recipient));
        assert_eq!(after.unlock(&old).err(), Some(UnlockError::WrongPassword));
        let identity = after.unlock(&new).expect("opens");
        let secret = EscrowIdentity::from_text(&identity.to_text()).expect("an identity file");
        let waiting = secret.open(&sealed.expect("seals"), 100).expect("opens");
        assert_eq!(waiting.as_slice(), b"waiting");

        use age::secrecy::ExposeSecret as _;
        let text = format!("# created\n{}\n", offline.to_string().expose_secret());
        let file = EscrowIdentity::from_text(&text).expect("an identity file");
        let (reset, made) = all.reset_by_escrow(&before.id, &file, None).expect("resets");
        assert_eq!(reset.unlock(&made.expect("made one")).expect("opens").to_text(), identity.to_text());
        let other = EscrowIdentity::from_text(&identity.to_text()).expect("an identity file");
        let refused = all.reset_by_escrow(&before.id, &other, None);
        assert!(matches!(refused, Err(MailboxError::OtherEscrow { .. })));
        all.rotate(&before.id, &new, &new, true).expect_err("the password was reset");
    }

    #[test]
    fn deleted_only_when_suspended_and_remembered() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let (mailbox, _) = all.create("", None).expect("makes");
        assert!(matches!(all.delete(&mailbox.id), Err(MailboxError::NotSuspended(_))));
        let suspended = all.set_state(&mailbox.id, State::Suspended).expect("suspends");
        assert_eq!(all.set_state(&mailbox.id, State::Suspended).expect("again"), suspended);
        assert_eq!(suspended.revisions, Revisions { key: 1, state: 2 });
        all.delete(&mailbox.id).expect("deletes");
        assert_eq!(all.lookup(&mailbox.id).expect("reads"), None);
        assert!(all.is_deleted(&mailbox.id).expect("reads") && all.list().expect("lists").is_empty());
    }

    #[test]
    fn a_changed_definition_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = mailboxes(folder.path());
        let (mailbox, _) = all.create("first", None).expect("makes");
        let other = Identity::generate().recipient();
        let file = all.file(mailbox.id);
        let text = std::fs::read_to_string(&file).expect("reads");
        let changes = [
            text.replace(&mailbox.recipient, &other),
            text.replace("first", "second"),
            text.replace("state = \"active\"", "state = \"suspended\""),
            text.replace("version = 2", "version = 3"),
            text.replace("version = 2", "version = 1"),
            text.replace("key_revision = 1", "key_revision = 2"),
            format!("{text}surprise = 1\n"),
            text.replace("wrapped_key", "wrapped_kex"),
            String::new(),
        ];
        for changed in changes {
            assert_ne!(changed, text);
            std::fs::write(&file, changed).expect("writes");
            assert!(matches!(all.lookup(&mailbox.id), Err(MailboxError::Damaged { .. })));
        }
        let elsewhere = all.file(MailboxId([1; 16]));
        std::fs::write(elsewhere, &text).expect("writes");
        let error = all.lookup(&MailboxId([1; 16])).expect_err("another mailbox's");
        assert!(error.to_string().contains("is the definition of"), "{error}");
    }
}
