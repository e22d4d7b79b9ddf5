//! One certificate for SMTP and POP3: from files, or made here at the first start.
//!
//! Invariants: nothing below TLS 1.2; a private key that others can read is refused; a handshake ends within
//! [`HANDSHAKE_DEADLINE`]; a POP3 client that offers protocols without `pop3` is refused (cross-protocol attacks, see
//! RFC 7301 §3.2); SMTP clients are asked for a certificate and need none ([`ClientAuthorities`]). What it does not do:
//! ACME, OCSP.

mod accept;
mod client;
mod files;
mod self_signed;

pub use accept::{Acceptor, HANDSHAKE_DEADLINE, Protocol, TlsFacts, TlsStream};
pub use client::{ClientAuthorities, ClientCertificate};

use crate::config::{CertificateSource, TlsConfig};
use postkeep_shared::{
    disk::{Disk, DiskError},
    tls::provider,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};
use tokio_rustls::rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// What can be wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file holds no usable PEM block of that kind.
    #[error("{}: {what}; put a PEM file there", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Others can read the private key.
    #[error("{}: others can read this private key; run chmod 600 on it", .0.display())]
    Readable(PathBuf),
    /// The key does not belong to the certificate.
    #[error("{}: this key does not belong to the certificate; name the key it was made with", .0.display())]
    Mismatch(PathBuf),
    /// The library cannot use it.
    #[error("the certificate cannot be used: {0}; use an RSA or ECDSA certificate")]
    Unusable(String),
}

/// The certificate in use; replaced at [`Certificates::reload`] without touching connections.
pub struct Certificates {
    source: CertificateSource,
    data_dir: PathBuf,
    names: Vec<String>,
    disk: Arc<dyn Disk>,
    current: Arc<Current>,
}

impl Certificates {
    /// Reads the certificate, or makes a self-signed one for `names` where there is none yet.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(config: &TlsConfig, data_dir: &Path, names: &[String], disk: Arc<dyn Disk>) -> Result<Self, TlsError> {
        let key = obtain(&config.source, data_dir, names, disk.as_ref())?;
        Ok(Self {
            source: config.source.clone(),
            data_dir: data_dir.to_owned(),
            names: names.to_vec(),
            disk,
            current: Arc::new(Current(RwLock::new(Arc::new(key)))),
        })
    }

    /// Reads the certificate again; open connections keep the old one.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let key = obtain(&self.source, &self.data_dir, &self.names, self.disk.as_ref())?;
        *self.current.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(key);
        Ok(())
    }

    /// What makes TLS connections of TCP ones. Cheap to clone; sees every reload.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn acceptor(&self, protocol: Protocol) -> Result<Acceptor, TlsError> {
        Acceptor::new(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>, protocol)
    }
}

/// Checks the files that the configuration names, without making anything.
///
/// # Errors
/// [`TlsError`].
pub fn check(config: &TlsConfig, disk: &dyn Disk) -> Result<(), TlsError> {
    match &config.source {
        CertificateSource::Files { certificate, key } => files::read(disk, certificate, key).and_then(usable).map(drop),
        CertificateSource::SelfSigned => Ok(()),
    }
}

/// A certificate chain and its key, as read.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_file: PathBuf,
}

fn obtain(
    source: &CertificateSource,
    data_dir: &Path,
    names: &[String],
    disk: &dyn Disk,
) -> Result<CertifiedKey, TlsError> {
    usable(match source {
        CertificateSource::Files { certificate, key } => files::read(disk, certificate, key)?,
        CertificateSource::SelfSigned => self_signed::obtain(disk, &data_dir.join("tls"), names)?,
    })
}

fn usable(pair: Pair) -> Result<CertifiedKey, TlsError> {
    use tokio_rustls::rustls::{Error, InconsistentKeys};
    let key = CertifiedKey::from_der(pair.chain, pair.key, &provider());
    key.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch(pair.key_file),
        other => TlsError::Unusable(other.to_string()),
    })
}

struct Current(RwLock<Arc<CertifiedKey>>);

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())))
    }
}
