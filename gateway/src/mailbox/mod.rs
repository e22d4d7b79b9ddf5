//! Mailboxes: one definition file each, with the recipient key in clear and the secret key wrapped by the password
//! (`docs/formats/keys.md`).
//!
//! Files are replaced whole, so commands and a running server need no lock between them, and every lookup reads the
//! file: what a command changed counts for the next connection. No password and no secret key is ever stored.

mod claim;
mod definition;
mod key;

pub use claim::Claim;
pub use key::{Identity, UnlockError};

use crate::node::{Node, NodeError};
use postkeep_shared::{
    crypt::{KdfParams, Password, random, wrap_key},
    disk::{self, Disk, DiskError},
    mail::MailboxId,
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
    /// Where set, the secret key is also wrapped to this recipient.
    pub escrow: Option<Escrow>,
    wrapped: Vec<u8>,
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
}

impl From<MailboxError> for Failure {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Unlock(UnlockError::WrongPassword) => Self::wrong_key(error),
            MailboxError::Escrow | MailboxError::Description => Self::usage(error),
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

/// All mailboxes of a data directory. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    node: Arc<Node>,
}

impl Mailboxes {
    /// The mailboxes of `data_dir`, which must have a node key or be unused.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn open(data_dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, MailboxError> {
        let node = Arc::new(Node::load_or_create(data_dir, disk.as_ref())?);
        Ok(Self { folder: data_dir.join("mailboxes"), disk, node })
    }

    /// As [`Self::open`], for a data directory that must be there: nothing is made.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn existing(data_dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, MailboxError> {
        let node = Arc::new(Node::load(data_dir, disk.as_ref())?);
        Ok(Self { folder: data_dir.join("mailboxes"), disk, node })
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
        let text = String::from_utf8(octets).map_err(|_| "not UTF-8".to_owned());
        let mailbox = text.and_then(|text| definition::read(&text, *id, self.node.public()));
        mailbox.map(Some).map_err(|detail| MailboxError::Damaged { file, detail })
    }

    /// Names of every definition file, sorted.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn ids(&self) -> Result<Vec<MailboxId>, MailboxError> {
        let entries = match self.disk.list(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.is_missing() => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        Ok(entries.iter().filter_map(|e| e.name.strip_suffix(".toml")?.parse().ok()).collect())
    }

    /// Every mailbox, by name.
    ///
    /// # Errors
    /// [`MailboxError`] for the first that cannot be read.
    pub fn list(&self) -> Result<Vec<Mailbox>, MailboxError> {
        let mailboxes = self.ids()?.into_iter().map(|id| self.lookup(&id)).collect::<Result<Vec<_>, _>>()?;
        Ok(mailboxes.into_iter().flatten().collect())
    }

    /// A new mailbox. Without `password` one is made and returned: it is not stored and cannot be shown again.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn create(
        &self,
        description: &str,
        password: Option<&Password>,
    ) -> Result<(Mailbox, Option<Password>), MailboxError> {
        self.create_with_escrow(description, password, None)
    }

    /// As [`Self::create`], with the secret key also wrapped to the recipient `escrow`.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn create_with_escrow(
        &self,
        description: &str,
        password: Option<&Password>,
        escrow: Option<&str>,
    ) -> Result<(Mailbox, Option<Password>), MailboxError> {
        if description.chars().any(char::is_control) || description.chars().count() > MAX_DESCRIPTION {
            return Err(MailboxError::Description);
        }
        let (id, identity) = (MailboxId(random()), Identity::generate());
        let escrow = escrow.map(|recipient| identity.escrow(recipient)).transpose()?;
        let recipient = identity.recipient();
        let key_id = definition::key_id(&recipient);
        let context = key::context(id, &key_id);
        let (made, wrapped) = match password {
            Some(password) => (None, identity.wrap(password, KdfParams::CHOSEN, &context)?),
            None => {
                let made = Password::generate();
                let wrapped = identity.wrap(&made, KdfParams::GENERATED, &context)?;
                (Some(made), wrapped)
            }
        };
        let created = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let description = description.to_owned();
        let mailbox = Mailbox { id, description, created, state: State::Active, key_id, recipient, escrow, wrapped };
        disk::create_dirs(self.disk.as_ref(), &self.folder)?;
        disk::write_new_file(self.disk.as_ref(), &self.file(id), self.text(&mailbox)?.as_bytes())?;
        Ok((mailbox, made))
    }

    /// Wraps the secret key with another password. Messages waiting stay readable: they are sealed to the key pair,
    /// which does not change.
    ///
    /// # Errors
    /// [`MailboxError`]; [`UnlockError::WrongPassword`] when `old` is not the password.
    pub fn passwd(&self, mailbox: &Mailbox, old: &Password, new: &Password) -> Result<Mailbox, MailboxError> {
        let identity = mailbox.unlock(old)?;
        let context = key::context(mailbox.id, &mailbox.key_id);
        let changed = Mailbox { wrapped: identity.wrap(new, KdfParams::CHOSEN, &context)?, ..mailbox.clone() };
        disk::replace_file(self.disk.as_ref(), &self.file(mailbox.id), self.text(&changed)?.as_bytes())?;
        Ok(changed)
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
        assert!(matches!(all.passwd(&mailbox, &new, &old), Err(MailboxError::Unlock(UnlockError::WrongPassword))));
        all.passwd(&mailbox, &old, &new).expect("changes");
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
            text.replace("version = 1", "version = 2"),
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
