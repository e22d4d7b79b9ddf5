//! Everything that changes a definition. Commands and the server do it under one lock, and read the definition again
//! below it, so that no change is lost; readers need no lock, since files are replaced whole.

use super::{
    EscrowIdentity, Identity, Mailbox, MailboxError, Mailboxes, Revisions, State, UnlockError, check_description,
    definition, key,
};
use postkeep_shared::{
    crypt::{KdfParams, Password, random},
    disk::{self, DiskLock},
    mail::MailboxId,
    run::now_ms,
};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// How long a change waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// An escrow opens to a few lines.
const MAX_IDENTITY: u64 = 16 * 1024;

/// Held while definitions are changed.
pub struct Changing(#[expect(dead_code, reason = "held, not read")] Box<dyn DiskLock>);

impl Mailboxes {
    /// Keeps every other change out, those of other processes too.
    ///
    /// # Errors
    /// [`MailboxError::Busy`] where another change does not end.
    pub fn changing(&self) -> Result<Changing, MailboxError> {
        let started = Instant::now();
        let file = self.folder.with_extension("lock");
        loop {
            match self.disk.lock(&file) {
                Ok(lock) => return Ok(Changing(lock)),
                Err(e) if e.source.kind() == ErrorKind::WouldBlock && started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) if e.source.kind() == ErrorKind::WouldBlock => return Err(MailboxError::Busy),
                Err(e) => return Err(e.into()),
            }
        }
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
        check_description(description)?;
        let (id, identity) = (MailboxId(random()), Identity::generate());
        let escrow = escrow.map(|recipient| identity.escrow(recipient)).transpose()?;
        let recipient = identity.recipient();
        let key_id = definition::key_id(&recipient);
        let (made, wrapped) = wrapped(&identity, password, &key::context(id, &key_id))?;
        let created = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mailbox = Mailbox {
            id,
            description: description.to_owned(),
            created,
            state: State::Active,
            key_id,
            recipient,
            earlier: Vec::new(),
            escrow,
            revisions: Revisions { key: 1, state: 1 },
            wrapped,
        };
        disk::create_dirs(self.disk.as_ref(), &self.folder)?;
        disk::write_new_file(self.disk.as_ref(), &self.file(id), self.text(&mailbox)?.as_bytes())?;
        Ok((mailbox, made))
    }

    /// Wraps the secret keys with another password. Messages waiting stay readable: they are sealed to the key pair,
    /// which does not change.
    ///
    /// # Errors
    /// [`MailboxError`]; [`UnlockError::WrongPassword`] when `old` is not the password.
    pub fn passwd(&self, id: &MailboxId, old: &Password, new: &Password) -> Result<Mailbox, MailboxError> {
        self.change(id, |mailbox| {
            let identity = mailbox.unlock(old)?;
            let context = key::context(mailbox.id, &mailbox.key_id);
            let wrapped = identity.wrap(new, KdfParams::CHOSEN, &context)?;
            Ok(Mailbox { wrapped, revisions: mailbox.revisions.new_key(), ..mailbox })
        })
    }

    /// A new key pair and a new password. What waits stays readable with the new password: the earlier keys are kept,
    /// unless `forget_earlier` (only the latest of them stays then; the caller knows that nothing older waits).
    ///
    /// # Errors
    /// [`MailboxError`]; [`MailboxError::TooManyKeys`] after many rotations.
    pub fn rotate(
        &self,
        id: &MailboxId,
        old: &Password,
        new: &Password,
        forget_earlier: bool,
    ) -> Result<Mailbox, MailboxError> {
        self.change(id, |mailbox| {
            let identity = mailbox.unlock(old)?;
            if !forget_earlier && mailbox.earlier.len() + 2 > super::MAX_KEYS {
                return Err(MailboxError::TooManyKeys(mailbox.id));
            }
            let (made, _) = self.rekeyed(&mailbox, &identity.rotated(!forget_earlier), Some(new))?;
            Ok(made)
        })
    }

    /// A new password for a mailbox whose password is lost, with the secret that its escrow was made for. Without
    /// `password` one is made and returned.
    ///
    /// # Errors
    /// [`MailboxError::NoEscrow`], [`MailboxError::OtherEscrow`] and the usual ones.
    pub fn reset_by_escrow(
        &self,
        id: &MailboxId,
        secret: &EscrowIdentity,
        password: Option<&Password>,
    ) -> Result<(Mailbox, Option<Password>), MailboxError> {
        let mut made = None;
        let changed = self.change(id, |mailbox| {
            let escrow = mailbox.escrow.as_ref().ok_or(MailboxError::NoEscrow(mailbox.id))?;
            let other = || MailboxError::OtherEscrow { id: mailbox.id, recipient: escrow.recipient.clone() };
            let text = secret.open(&escrow.sealed_identity, MAX_IDENTITY).ok_or_else(other)?;
            let damaged = |text: &str| UnlockError::Damaged(mailbox.id, format!("its escrow: {text}"));
            let identity = mailbox.own(&text).map_err(damaged)?;
            let context = key::context(mailbox.id, &mailbox.key_id);
            let (new, wrapped) = wrapped(&identity, password, &context)?;
            made = new;
            Ok(Mailbox { wrapped, revisions: mailbox.revisions.new_key(), ..mailbox })
        })?;
        Ok((changed, made))
    }

    /// A new key and password for a mailbox whose password is lost for good; it takes mail again. The definition before
    /// is kept beside it (`<mailbox>.lost.<ms>`), should the password be found after all. The caller has seen to it
    /// that nothing waits any more.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn begin_anew(
        &self,
        id: &MailboxId,
        password: Option<&Password>,
    ) -> Result<(Mailbox, Option<Password>), MailboxError> {
        let mut made = None;
        let changed = self.change(id, |mailbox| {
            let copy = self.folder.join(format!("{id}.lost.{}", now_ms()));
            disk::write_new_file(self.disk.as_ref(), &copy, self.text(&mailbox)?.as_bytes())?;
            let (mailbox, new) = self.rekeyed(&mailbox, &Identity::generate(), password)?;
            made = new;
            Ok(mailbox.with_state(State::Active))
        })?;
        Ok((changed, made))
    }

    /// Suspends or resumes. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn set_state(&self, id: &MailboxId, state: State) -> Result<Mailbox, MailboxError> {
        self.change(id, |mailbox| Ok(mailbox.with_state(state)))
    }

    /// Ends a mailbox: its definition becomes `<mailbox>.deleted`, which tells the next start, `verify` and other nodes
    /// that it is gone on purpose. The ledger stays. The caller has seen to it that nothing waits.
    ///
    /// # Errors
    /// [`MailboxError::NotSuspended`] and the usual ones.
    pub fn delete(&self, id: &MailboxId) -> Result<(), MailboxError> {
        let _changing = self.changing()?;
        let mailbox = self.lookup(id)?.ok_or(MailboxError::Gone(*id))?;
        if mailbox.state != State::Suspended {
            return Err(MailboxError::NotSuspended(*id));
        }
        let folder = self.disk.open_dir(&self.folder)?;
        self.disk.rename_over(&self.file(*id), &self.tombstone(*id))?;
        Ok(folder.sync()?)
    }

    /// Reads the definition, changes it, puts it in the place of the old one, all under the lock.
    pub(super) fn change(
        &self,
        id: &MailboxId,
        change: impl FnOnce(Mailbox) -> Result<Mailbox, MailboxError>,
    ) -> Result<Mailbox, MailboxError> {
        let _changing = self.changing()?;
        let mailbox = self.lookup(id)?.ok_or(MailboxError::Gone(*id))?;
        let changed = change(mailbox.clone())?;
        if changed != mailbox {
            disk::replace_file(self.disk.as_ref(), &self.file(*id), self.text(&changed)?.as_bytes())?;
        }
        Ok(changed)
    }

    /// The mailbox with these keys, the escrow sealed anew.
    fn rekeyed(
        &self,
        mailbox: &Mailbox,
        identity: &Identity,
        password: Option<&Password>,
    ) -> Result<(Mailbox, Option<Password>), MailboxError> {
        let recipient = identity.recipient();
        let key_id = definition::key_id(&recipient);
        let (made, wrapped) = wrapped(identity, password, &key::context(mailbox.id, &key_id))?;
        let escrow = mailbox.escrow.as_ref().map(|e| identity.escrow(&e.recipient)).transpose()?;
        let earlier = identity.earlier_recipients();
        let revisions = mailbox.revisions.new_key();
        Ok((Mailbox { key_id, recipient, earlier, wrapped, escrow, revisions, ..mailbox.clone() }, made))
    }
}

impl Mailbox {
    fn with_state(self, state: State) -> Self {
        if self.state == state {
            return self;
        }
        let revisions = Revisions { state: self.revisions.state + 1, ..self.revisions };
        Self { state, revisions, ..self }
    }
}

impl Revisions {
    fn new_key(self) -> Self {
        Self { key: self.key + 1, ..self }
    }
}

/// The keys wrapped with `password`, or with one made here.
fn wrapped(
    identity: &Identity,
    password: Option<&Password>,
    context: &[u8],
) -> Result<(Option<Password>, Vec<u8>), MailboxError> {
    if let Some(password) = password {
        return Ok((None, identity.wrap(password, KdfParams::CHOSEN, context)?));
    }
    let made = Password::generate();
    let wrapped = identity.wrap(&made, KdfParams::GENERATED, context)?;
    Ok((Some(made), wrapped))
}
