//! What an authority gave us, in `tls/acme/<directory>/`: one folder per directory, so that a test certificate is never
//! taken for a real one.
//!
//! | file | what |
//! |---|---|
//! | `account.key` | key of the account, PKCS#8 in PEM |
//! | `account.url` | its URL, once the authority has given it |
//! | `certificate.pem` | private key and chain in **one** file, so that one rename replaces both |
//! | `next.key` | key of the first or the next new certificate |
//! | `request` | `renew` or `new-key`: asked for by a command, taken by the server |
//!
//! Invariants: every file 0600, written through [`Disk`], synced before it gets its name. A key that others can read is
//! refused. A key is on disk before anything is ordered with it.

use super::super::{Pair, TlsError};
use postkeep_shared::{
    disk::{Disk, create_dirs, replace_file, write_new_file},
    mail::Digest,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

const MAX: u64 = 256 * 1024;

/// What a command asked the server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A certificate now, with the key that is in use.
    Renew,
    /// A certificate now, with another key.
    NewKey,
}

/// The folder of one directory.
#[derive(Clone)]
pub struct Store {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Store {
    /// The folder in a data directory; nothing is made yet.
    #[must_use]
    pub fn new(data_dir: &Path, directory: &str, disk: Arc<dyn Disk>) -> Self {
        let host = directory.strip_prefix("https://").unwrap_or(directory).split(['/', '?']).next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        let host: String = host.chars().take(100).map(plain).collect();
        let digest = Digest::of(directory.as_bytes()).to_string();
        let label = format!("{host}-{}", digest.get(..8).unwrap_or_default());
        Self { folder: data_dir.join("tls/acme").join(label), disk }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a file with a secret; `None` where there is none.
    fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, TlsError> {
        let file = self.file(name);
        match self.disk.entry(&file) {
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(entry) if entry.mode & 0o077 != 0 => return Err(TlsError::Readable(file)),
            Ok(_) => {}
        }
        Ok(Some(Zeroizing::new(self.disk.read(&file, MAX)?)))
    }

    fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, TlsError> {
        let content = || TlsError::Content { file: self.file(name), what: "is not a PEM file" };
        let Some(octets) = self.secret(name)? else { return Ok(None) };
        std::str::from_utf8(&octets).map(|text| Some(Zeroizing::new(text.to_owned()))).map_err(|_| content())
    }

    /// The certificate and its key; `None` where there is none yet.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(in super::super) fn certificate(&self) -> Result<Option<Pair>, TlsError> {
        let Some(octets) = self.secret("certificate.pem")? else { return Ok(None) };
        let file = self.file("certificate.pem");
        let content = |what| TlsError::Content { file: file.clone(), what };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
        let chain = chain.ok().filter(|c| !c.is_empty()).ok_or_else(|| content("holds no certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&octets).map_err(|_| content("holds no private key"))?;
        Ok(Some(Pair { chain, key, key_file: file }))
    }

    /// Puts a key and its chain in the place of what is there; the next key, if it is this one, is used up.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays.
    pub fn keep(&self, key: &str, chain: &str) -> Result<(), TlsError> {
        create_dirs(self.disk.as_ref(), &self.folder)?;
        let both = Zeroizing::new(format!("{}\n{chain}", key.trim_end()));
        replace_file(self.disk.as_ref(), &self.file("certificate.pem"), both.as_bytes())?;
        if self.text("next.key")?.is_some_and(|next| next.trim_end() == key.trim_end()) {
            self.remove("next.key")?;
        }
        Ok(())
    }

    /// The key for the next order: the one in use, or the next one where there is none or `new` is wanted.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn key(&self, new: bool) -> Result<Zeroizing<String>, TlsError> {
        match self.current_key()? {
            Some(key) if !new => Ok(key),
            _ => self.next_key(),
        }
    }

    /// The next key, made where there is none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn next_key(&self) -> Result<Zeroizing<String>, TlsError> {
        let (next, current) = (self.text("next.key")?, self.current_key()?);
        match (next, current) {
            // A crash between the two steps of `keep`: it is in use already.
            (Some(next), Some(current)) if next.trim_end() == current.trim_end() => self.remove("next.key")?,
            (Some(next), _) => return Ok(next),
            (None, _) => {}
        }
        let unusable = |e: rcgen::Error| TlsError::Unusable(e.to_string());
        let key = Zeroizing::new(rcgen::KeyPair::generate().map_err(unusable)?.serialize_pem());
        self.make("next.key", key.as_bytes())?;
        Ok(key)
    }

    /// The next key, if there is one.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn announced_key(&self) -> Result<Option<Zeroizing<String>>, TlsError> {
        self.text("next.key")
    }

    /// The private key's part of `certificate.pem`, as it was written.
    fn current_key(&self) -> Result<Option<Zeroizing<String>>, TlsError> {
        let end = "-----END PRIVATE KEY-----\n";
        Ok(self.text("certificate.pem")?.and_then(|both| {
            let (key, _) = both.split_once(end)?;
            Some(Zeroizing::new(format!("{key}{end}")))
        }))
    }

    /// The account's key as PKCS#8, made by `generate` where there is none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn account_key(&self, generate: impl FnOnce() -> Vec<u8>) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        if let Some(octets) = self.secret("account.key")? {
            let content = || TlsError::Content { file: self.file("account.key"), what: "holds no private key" };
            let key = PrivateKeyDer::from_pem_slice(&octets).map_err(|_| content())?;
            return Ok(Zeroizing::new(key.secret_der().to_vec()));
        }
        let key = Zeroizing::new(generate());
        let text = Zeroizing::new(data_encoding::BASE64.encode(&key));
        let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        self.make("account.key", pem.as_bytes())?;
        Ok(key)
    }

    /// The account's URL.
    #[must_use]
    pub fn account_url(&self) -> Option<String> {
        let octets = self.disk.read(&self.file("account.url"), MAX).ok()?;
        Some(String::from_utf8(octets).ok()?.trim().to_owned()).filter(|url| !url.is_empty())
    }

    /// Remembers the account's URL.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn keep_account_url(&self, url: &str) -> Result<(), TlsError> {
        if self.account_url().as_deref() != Some(url) {
            create_dirs(self.disk.as_ref(), &self.folder)?;
            replace_file(self.disk.as_ref(), &self.file("account.url"), format!("{url}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Leaves a request for the server.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn ask(&self, request: Request) -> Result<(), TlsError> {
        let word: &[u8] = match request {
            Request::Renew => b"renew\n",
            Request::NewKey => b"new-key\n",
        };
        create_dirs(self.disk.as_ref(), &self.folder)?;
        Ok(replace_file(self.disk.as_ref(), &self.file("request"), word)?)
    }

    /// What was asked for and not done yet.
    #[must_use]
    pub fn asked(&self) -> Option<Request> {
        match self.disk.read(&self.file("request"), MAX).ok()?.as_slice() {
            b"renew\n" => Some(Request::Renew),
            b"new-key\n" => Some(Request::NewKey),
            _ => None,
        }
    }

    /// Takes the request away: it was done.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn answered(&self) -> Result<(), TlsError> {
        self.remove("request")
    }

    fn make(&self, name: &str, octets: &[u8]) -> Result<(), TlsError> {
        create_dirs(self.disk.as_ref(), &self.folder)?;
        Ok(write_new_file(self.disk.as_ref(), &self.file(name), octets)?)
    }

    fn remove(&self, name: &str) -> Result<(), TlsError> {
        match self.disk.remove_file(&self.file(name)) {
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(self.disk.open_dir(&self.folder)?.sync()?),
        }
    }
}

/// The SHA-256 of a key's public half (SPKI in DER), hex: what a TLSA `3 1 1` record holds.
///
/// # Errors
/// [`TlsError::Unusable`].
pub fn public_key_sha256(key: &str) -> Result<String, TlsError> {
    use rcgen::PublicKeyData as _;
    let key = rcgen::KeyPair::from_pem(key).map_err(|e| TlsError::Unusable(e.to_string()))?;
    Ok(Digest::of(&key.subject_public_key_info()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::os::unix::fs::PermissionsExt as _;

    fn store(folder: &Path) -> Store {
        Store::new(folder, "https://acme.example:14000/dir", Arc::new(LocalDisk))
    }

    fn chain(key: &str) -> String {
        let key = rcgen::KeyPair::from_pem(key).expect("key");
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
        params.self_signed(&key).expect("signed").pem()
    }

    #[test]
    fn keys_are_kept_until_another_is_wanted_and_survive_a_crash_in_between() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = store(folder.path());
        assert!(store.certificate().expect("reads").is_none());
        let first = store.key(false).expect("made");
        assert_eq!(*first, *store.key(true).expect("the same until it is used"));
        store.keep(&first, &chain(&first)).expect("kept");
        assert_eq!(*store.key(false).expect("reads"), *first);
        let pair = store.certificate().expect("reads").expect("there");
        assert_eq!(pair.chain.len(), 1);
        let next = store.next_key().expect("made");
        assert_ne!(*next, *first);
        assert_eq!(*store.key(true).expect("reads"), *next);
        // The crash: the certificate has the next key, and the next key is still there.
        replace_file(&LocalDisk, &store.file("certificate.pem"), format!("{}{}", *next, chain(&next)).as_bytes())
            .expect("writes");
        assert_eq!(*store.key(false).expect("reads"), *next);
        let third = store.next_key().expect("made");
        assert_ne!(*third, *next);
        store.keep(&third, &chain(&third)).expect("kept");
        assert_eq!(*store.key(false).expect("reads"), *third);
        assert!(store.text("next.key").expect("reads").is_none());
    }

    #[test]
    fn every_file_is_private_and_one_that_is_not_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = store(folder.path());
        let key = store.key(false).expect("made");
        store.next_key().expect("made");
        store.keep(&key, &chain(&key)).expect("kept");
        store.next_key().expect("made");
        let account = store.account_key(|| vec![7; 100]).expect("made");
        assert_eq!(*account, *store.account_key(|| vec![8; 100]).expect("reads"));
        store.keep_account_url("https://acme.example/1").expect("kept");
        assert_eq!(store.account_url().as_deref(), Some("https://acme.example/1"));
        store.ask(Request::NewKey).expect("asked");
        assert_eq!(store.asked(), Some(Request::NewKey));
        let files = LocalDisk.list(store.folder()).expect("lists");
        let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["account.key", "account.url", "certificate.pem", "next.key", "request"]);
        assert!(files.iter().all(|f| f.mode & 0o777 == 0o600), "{files:?}");
        store.answered().expect("removed");
        assert_eq!(store.asked(), None);
        for name in ["certificate.pem", "next.key", "account.key"] {
            let file = store.file(name);
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changes");
            let error = match name {
                "certificate.pem" => store.certificate().map(drop),
                "next.key" => store.text("next.key").map(drop),
                _ => store.account_key(Vec::new).map(drop),
            };
            assert!(matches!(error, Err(TlsError::Readable(_))), "{name}");
        }
    }
}
