//! The archiver's signing key, and notes signed with it (`docs/formats/checkpoint.md`).
//!
//! `data/archiver.key` holds the seed of an Ed25519 key (RFC 8032), readable by the service alone. What it signs are
//! notes in the form of C2SP signed-note v1: text that people can read, an empty line, signature lines. A note is
//! verified before a word of its text is believed. Checkpoints, restore drills and export manifests are such notes;
//! the first line of each says which, so that none can pass for another.
//!
//! Not here: what a note says (`checkpoint`). A lost key cannot be made again: the next one is another key, and that
//! shows wherever two notes are compared.

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, create_dirs, write_new_file},
    mail::Digest,
    run::{Exit, Failure},
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The name that signature lines carry.
pub const SIGNER: &str = "postkeep-archiver";

const FIRST_LINE: &str = "postkeep-archiver-key-v1";
/// Ed25519 in the algorithm octet of a signed note.
const ED25519: u8 = 1;
/// What begins a signature line: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// The archiver's secret key. Wiped when dropped; no `Debug`.
pub struct ArchiverKey(SigningKey);

/// Who signed a note. Written as one word: name, key hash, algorithm and key (`postkeep-archiver+1f2e…+AQ…=`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not there.
    #[error("{} is not there; restore it from a backup", .0.display())]
    Missing(PathBuf),
    /// Others could read it.
    #[error("{} can be read by other users; run `chmod 600` on it", .0.display())]
    Exposed(PathBuf),
    /// Not a key.
    #[error("{} is not an archiver key; restore it from a backup", .0.display())]
    Damaged(PathBuf),
}

/// Why a note cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not text, an empty line and signature lines.
    #[error("it is not a signed note: {0}")]
    Form(&'static str),
    /// No signature line is by this key.
    #[error("it is not signed by {0}")]
    OtherKey(String),
    /// A signature line is by the key and does not fit the text.
    #[error("its signature does not fit its text: it was changed")]
    Signature,
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Disk(error) => error.into(),
            KeyError::Damaged(_) => Self::new(Exit::WrongKey, error.to_string()),
            other => Self::cannot(other),
        }
    }
}

impl ArchiverKey {
    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path, disk: &dyn Disk) -> Result<Self, KeyError> {
        let entry = match disk.entry(path) {
            Err(error) if error.is_missing() => return Err(KeyError::Missing(path.to_owned())),
            other => other?,
        };
        if entry.mode & 0o077 != 0 {
            return Err(KeyError::Exposed(path.to_owned()));
        }
        let text = Zeroizing::new(disk.read(path, 1024)?);
        let seed = read_seed(&text).ok_or_else(|| KeyError::Damaged(path.to_owned()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads the key at `path`, or makes one where there is none: at the first use.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_create(path: &Path, disk: &dyn Disk) -> Result<Self, KeyError> {
        match Self::load(path, disk) {
            Err(KeyError::Missing(_)) => {}
            other => return other,
        }
        if let Some(folder) = path.parent() {
            create_dirs(disk, folder)?;
        }
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(random());
        let encoded = Zeroizing::new(BASE64.encode(seed.as_ref()));
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", encoded.as_str()));
        match write_new_file(disk, path, text.as_bytes()) {
            // Another process was first: its key is the one.
            Err(error) if error.is_present() => Self::load(path, disk),
            other => {
                other?;
                tracing::info!("{} is made: the key that signs checkpoints", path.display());
                Ok(Self(SigningKey::from_bytes(&seed)))
            }
        }
    }

    /// The key that verifies.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs octets as they are, for a signature that lies beside them. What is signed must say on its first line what
    /// it is.
    #[must_use]
    pub fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.0.sign(octets).to_bytes()
    }

    /// Signs a text: whole lines, no empty line at its end, no control characters but line ends.
    ///
    /// # Errors
    /// [`NoteError::Form`] for a text that could be read in two ways.
    pub fn sign_note(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        let public = self.public();
        let signature = self.0.sign(text.as_bytes()).to_bytes();
        let signed = BASE64.encode(&[&public.hash()[..], &signature].concat());
        Ok(format!("{text}\n{DASH}{SIGNER} {signed}\n"))
    }
}

fn read_seed(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let octets = Zeroizing::new(BASE64.decode(lines.next()?.as_bytes()).ok()?);
    octets.as_slice().try_into().ok().map(Zeroizing::new)
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Form("the text does not end with a line end"));
    }
    if text.ends_with("\n\n") || text == "\n" {
        return Err(NoteError::Form("the text ends with an empty line"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Form("the text has control characters"));
    }
    Ok(())
}

impl PublicKey {
    /// The first four octets of the SHA-256 of name, line end, algorithm and key.
    fn hash(&self) -> [u8; 4] {
        let octets = [SIGNER.as_bytes(), b"\n", &[ED25519], &self.0].concat();
        let mut hash = [0; 4];
        hash.iter_mut().zip(Digest::of(&octets).0).for_each(|(to, from)| *to = from);
        hash
    }

    /// What the octets verify with.
    #[must_use]
    pub fn octets(&self) -> [u8; 32] {
        self.0
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = BASE64.encode(&[&[ED25519], &self.0[..]].concat());
        write!(f, "{SIGNER}+{}+{key}", HEXLOWER.encode(&self.hash()))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for PublicKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Form("the key is not `postkeep-archiver+<8 hex digits>+<base64>`");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(SIGNER), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad);
        };
        let key = BASE64.decode(key.as_bytes()).ok();
        let key = key.as_deref().and_then(|octets| octets.strip_prefix(&[ED25519]));
        let Some(key) = key.and_then(|octets| octets.try_into().ok()).map(Self) else { return Err(bad) };
        if HEXLOWER.encode(&key.hash()) == hash { Ok(key) } else { Err(bad) }
    }
}

/// The text of a note, verified with `key`. Lines by other keys are no matter.
///
/// # Errors
/// [`NoteError`].
pub fn open_note<'a>(note: &'a str, key: &PublicKey) -> Result<&'a str, NoteError> {
    let (text, lines) = split(note)?;
    let verifying = VerifyingKey::from_bytes(&key.0).map_err(|_| NoteError::Form("the key is no Ed25519 key"))?;
    let mut found = false;
    for (name, signed) in lines {
        let Some((hash, signature)) = signed.split_first_chunk::<4>() else { continue };
        if name != SIGNER || *hash != key.hash() {
            continue;
        }
        let signature = signature.try_into().map_err(|_| NoteError::Signature)?;
        verifying
            .verify_strict(text.as_bytes(), &Signature::from_bytes(signature))
            .map_err(|_| NoteError::Signature)?;
        found = true;
    }
    if found { Ok(text) } else { Err(NoteError::OtherKey(key.to_string())) }
}

/// Text, and name and octets of each signature line.
type Split<'a> = (&'a str, Vec<(&'a str, Vec<u8>)>);

fn split(note: &str) -> Result<Split<'_>, NoteError> {
    let end = note.rfind("\n\n").ok_or(NoteError::Form("there is no empty line before the signature"))?;
    let (text, rest) = note.split_at(end + 1);
    check_text(text)?;
    let rest = rest.strip_prefix('\n').unwrap_or_default();
    if !rest.ends_with('\n') {
        return Err(NoteError::Form("the last line is cut short"));
    }
    let mut signatures = Vec::new();
    for line in rest.lines() {
        let parts = line.strip_prefix(DASH).and_then(|line| line.split_once(' '));
        let (name, signed) = parts.ok_or(NoteError::Form("a signature line is not one"))?;
        let octets = BASE64.decode(signed.as_bytes()).map_err(|_| NoteError::Form("a signature is not base64"))?;
        signatures.push((name, octets));
    }
    if signatures.is_empty() {
        return Err(NoteError::Form("there is no signature"));
    }
    Ok((text, signatures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::os::unix::fs::PermissionsExt as _;

    fn key(seed: u8) -> ArchiverKey {
        ArchiverKey(SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn made_once_private_and_read_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("data/archiver.key");
        assert!(matches!(ArchiverKey::load(&path, &LocalDisk), Err(KeyError::Missing(_))));
        let made = ArchiverKey::load_or_create(&path, &LocalDisk).expect("makes").public();
        assert_eq!(ArchiverKey::load_or_create(&path, &LocalDisk).expect("reads").public(), made);
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changes");
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        mode(0o644);
        assert!(matches!(ArchiverKey::load_or_create(&path, &LocalDisk), Err(KeyError::Exposed(_))));
        mode(0o600);
        std::fs::write(&path, "postkeep-archiver-key-v1\nAAAA\n").expect("writes");
        assert!(matches!(ArchiverKey::load_or_create(&path, &LocalDisk), Err(KeyError::Damaged(_))));
    }

    #[test]
    fn a_note_opens_with_its_key_alone() {
        let note = key(1).sign_note("postkeep test\n\na line\n").expect("signs");
        assert_eq!(open_note(&note, &key(1).public()), Ok("postkeep test\n\na line\n"));
        assert!(matches!(open_note(&note, &key(2).public()), Err(NoteError::OtherKey(_))));
        let both = note.clone()
            + key(2).sign_note("postkeep test\n\na line\n").expect("signs").rsplit_once("\n\n").expect("is signed").1;
        assert!(open_note(&both, &key(1).public()).is_ok() && open_note(&both, &key(2).public()).is_ok());
        let named = key(1).public().to_string();
        assert_eq!(named.parse(), Ok(key(1).public()));
        let (_, key) = named.rsplit_once("+A").expect("has a key");
        assert!(format!("{SIGNER}+00000000+A{key}").parse::<PublicKey>().is_err());
    }

    #[test]
    fn every_changed_octet_and_every_cut_is_noticed() {
        let note = key(1).sign_note("postkeep test\nnumber 12\n").expect("signs");
        for at in 0..note.len() {
            let mut octets = note.clone().into_bytes();
            octets[at] ^= 1;
            let opened = String::from_utf8(octets).map(|text| open_note(&text, &key(1).public()).map(str::to_owned));
            assert!(!matches!(opened, Ok(Ok(_))), "octet {at}");
            if note.is_char_boundary(at) {
                assert!(open_note(&note[..at], &key(1).public()).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn texts_that_could_be_read_in_two_ways_are_not_signed() {
        for text in ["", "\n", "a", "a\n\n", "a\r\n", "a\u{1b}[2J\n"] {
            assert!(matches!(key(1).sign_note(text), Err(NoteError::Form(_))), "{text:?}");
        }
    }
}
