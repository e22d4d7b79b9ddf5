//! One certificate for SMTP and POP3: from an authority (ACME), from files, or made here at the first start.
//!
//! Invariants: nothing below TLS 1.2; a private key that others can read is refused; a handshake ends within
//! [`HANDSHAKE_DEADLINE`]; a POP3 client that offers protocols without `pop3` is refused (cross-protocol attacks, see
//! RFC 7301 §3.2); SMTP clients are asked for a certificate and need none ([`ClientAuthorities`]); while the gateway runs
//! there is always a certificate of ours, and a new one that is broken never takes the place of the old one. What it
//! does not do: OCSP.

mod accept;
pub mod acme;
mod alarms;
mod client;
pub mod clock;
mod facts;
mod files;
pub mod renewal;
mod report;
mod self_signed;
pub mod upkeep;
mod watch;

pub use accept::{Acceptor, HANDSHAKE_DEADLINE, Protocol, TlsFacts, TlsStream};
pub use alarms::{Alarm, Alarms, DAYS};
pub use client::{ClientAuthorities, ClientCertificate};
pub use facts::Facts;
pub use report::{Report, Trouble};

use crate::config::{CertificateSource, TlsConfig};
use acme::{AcmeSettings, Store};
use clock::{Clock, SystemClock, moment};
use postkeep_shared::{
    disk::{Disk, DiskError},
    run::Failure,
    tls::provider,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use tokio_rustls::rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
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
    /// Its time is over.
    #[error("{}: this certificate ended on {at}; put a new one there", file.display())]
    Expired {
        /// The file.
        file: PathBuf,
        /// When.
        at: String,
    },
    /// The key of an external account binding cannot be used.
    #[error("{0}")]
    Binding(String),
    /// Nothing to check the certificate of an ACME directory with.
    #[error("this system has no certificate authorities; install ca-certificates or set tls.acme.directory_ca_file")]
    NoRoots,
    /// The library cannot use it.
    #[error("the certificate cannot be used: {0}; use an RSA or ECDSA certificate")]
    Unusable(String),
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Disk(error) => error.into(),
            error => Self::usage(error),
        }
    }
}

/// The certificate in use; replaced at [`Certificates::reload`] without touching connections.
pub struct Certificates {
    source: CertificateSource,
    data_dir: PathBuf,
    names: Vec<String>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    current: Arc<Current>,
    state: Mutex<State>,
}

/// What is served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// `acme`, `files` or `self-signed`: where it came from, which is not always what was configured.
    pub source: &'static str,
    /// What it says about itself.
    pub facts: Facts,
}

struct State {
    serving: Serving,
    read: Option<watch::Stamp>,
    trouble: Option<Trouble>,
    account: Option<String>,
    nudged: bool,
}

struct Loaded {
    key: CertifiedKey,
    serving: Serving,
}

impl Certificates {
    /// Reads the certificate, or makes a self-signed one for `names` where there is none yet.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(config: &TlsConfig, data_dir: &Path, names: &[String], disk: Arc<dyn Disk>) -> Result<Self, TlsError> {
        Self::load_at(config, data_dir, names, disk, Arc::new(SystemClock))
    }

    /// As [`Certificates::load`], with a clock of choice.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_at(
        config: &TlsConfig,
        data_dir: &Path,
        names: &[String],
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let read = files_stamp(&config.source, disk.as_ref());
        let Loaded { key, serving } = obtain(&config.source, data_dir, names, &disk, clock.now())?;
        let account = match &config.source {
            CertificateSource::Acme(settings) => store(settings, data_dir, &disk).account_url(),
            _ => None,
        };
        Ok(Self {
            source: config.source.clone(),
            data_dir: data_dir.to_owned(),
            names: names.to_vec(),
            disk,
            clock,
            current: Arc::new(Current(RwLock::new(Arc::new(key)))),
            state: Mutex::new(State { serving, read, trouble: None, account, nudged: false }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the certificate again; open connections keep the old one.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = files_stamp(&self.source, self.disk.as_ref());
        let now = self.clock.now();
        let loaded = obtain(&self.source, &self.data_dir, &self.names, &self.disk, now);
        let mut state = self.state();
        state.read = read;
        match loaded {
            Ok(Loaded { key, serving }) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                state.serving = serving;
                state.trouble = None;
                Ok(())
            }
            Err(error) => {
                state.trouble = Some(Trouble { time: now, text: error.to_string() });
                Err(error)
            }
        }
    }

    /// What makes TLS connections of TCP ones. Cheap to clone; sees every reload.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn acceptor(&self, protocol: Protocol) -> Result<Acceptor, TlsError> {
        Acceptor::new(Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>, protocol)
    }

    /// `acme`, `files` or `self-signed`, as configured.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        self.source.name()
    }

    /// What is served.
    #[must_use]
    pub fn serving(&self) -> Serving {
        self.state().serving.clone()
    }

    /// An operator wants another try now, if there is something to try.
    pub fn nudge(&self) {
        self.state().nudged = true;
    }

    fn take_nudge(&self) -> bool {
        std::mem::take(&mut self.state().nudged)
    }

    fn note(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble;
    }

    /// What went wrong last, if nothing went well since.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    fn account(&self, url: Option<String>) {
        self.state().account = url;
    }

    /// The certificate files as they were read, and as they are; `None` where there are none.
    fn stamps(&self) -> Option<(watch::Stamp, watch::Stamp)> {
        let found = files_stamp(&self.source, self.disk.as_ref())?;
        Some((self.state().read?, found))
    }

    fn try_pair(&self, key: &str, chain: &str) -> Result<(), TlsError> {
        let unusable = |e: &dyn std::fmt::Display| TlsError::Unusable(e.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| unusable(&e))?;
        usable(Pair { chain: chain.map_err(|e| unusable(&e))?, key, key_file: "the private key".into() }).map(drop)
    }

    fn report(&self) -> Report {
        let state = self.state();
        Report {
            mode: self.source.name().to_owned(),
            source: state.serving.source.to_owned(),
            facts: Some(state.serving.facts.clone()),
            last_error: state.trouble.clone(),
            account: state.account.clone(),
            ..Report::default()
        }
    }

    fn kept_report(&self) -> Option<Report> {
        Report::read(self.disk.as_ref(), &self.data_dir)
    }

    fn keep_report(&self, report: &Report) {
        report.write(self.disk.as_ref(), &self.data_dir);
    }
}

/// What the configuration would serve from this data directory, without making anything; `None` where nothing is there.
///
/// # Errors
/// [`TlsError`].
pub fn stored(config: &TlsConfig, data_dir: &Path, disk: &Arc<dyn Disk>) -> Result<Option<Serving>, TlsError> {
    let self_signed = data_dir.join("tls/self-signed.pem");
    let made = || disk.entry(&self_signed).is_ok();
    match &config.source {
        CertificateSource::SelfSigned if !made() => return Ok(None),
        CertificateSource::Acme(s) if store(s, data_dir, disk).certificate()?.is_none() && !made() => return Ok(None),
        _ => {}
    }
    obtain(&config.source, data_dir, &[], disk, i64::MIN).map(|loaded| Some(loaded.serving))
}

/// Checks the files that the configuration names, without making anything.
///
/// # Errors
/// [`TlsError`].
pub fn check(config: &TlsConfig, disk: &dyn Disk) -> Result<(), TlsError> {
    match &config.source {
        CertificateSource::Files { certificate, key } => {
            from_files(disk, certificate, key, SystemClock.now()).map(drop)
        }
        CertificateSource::Acme(settings) => acme::check(settings, disk),
        CertificateSource::SelfSigned => Ok(()),
    }
}

/// The folder of an authority in this data directory.
#[must_use]
pub fn store(settings: &AcmeSettings, data_dir: &Path, disk: &Arc<dyn Disk>) -> Store {
    Store::new(data_dir, &settings.directory, Arc::clone(disk))
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
    disk: &Arc<dyn Disk>,
    now: i64,
) -> Result<Loaded, TlsError> {
    match source {
        CertificateSource::Files { certificate, key } => from_files(disk.as_ref(), certificate, key, now),
        CertificateSource::SelfSigned => self_made(data_dir, names, disk.as_ref()),
        CertificateSource::Acme(settings) => match store(settings, data_dir, disk).certificate()? {
            Some(pair) => loaded(pair, "acme"),
            None => self_made(data_dir, names, disk.as_ref()),
        },
    }
}

fn self_made(data_dir: &Path, names: &[String], disk: &dyn Disk) -> Result<Loaded, TlsError> {
    loaded(self_signed::obtain(disk, &data_dir.join("tls"), names)?, "self-signed")
}

/// Files are somebody's work: what cannot be meant is told, not served.
fn from_files(disk: &dyn Disk, certificate: &Path, key: &Path, now: i64) -> Result<Loaded, TlsError> {
    let loaded = loaded(files::read(disk, certificate, key)?, "files").map_err(|error| match error {
        TlsError::Unusable(what) => TlsError::Unusable(format!("{}: {what}", certificate.display())),
        other => other,
    })?;
    let facts = &loaded.serving.facts;
    if facts.is_expired(now) {
        return Err(TlsError::Expired { file: certificate.to_owned(), at: moment(facts.not_after) });
    }
    if now > i64::MIN && now < facts.not_before {
        let (file, from) = (certificate.display(), moment(facts.not_before));
        tracing::warn!(alarm = "certificate", %file, from, "ALARM: the certificate is not valid yet; compare the clock");
    }
    Ok(loaded)
}

fn loaded(pair: Pair, source: &'static str) -> Result<Loaded, TlsError> {
    let key = usable(pair)?;
    let facts = key.cert.first().and_then(|der| Facts::of(der));
    let facts = facts.ok_or_else(|| TlsError::Unusable("it cannot be read".into()))?;
    Ok(Loaded { key, serving: Serving { source, facts } })
}

fn files_stamp(source: &CertificateSource, disk: &dyn Disk) -> Option<watch::Stamp> {
    match source {
        CertificateSource::Files { certificate, key } => Some(watch::stamp(disk, certificate, key)),
        _ => None,
    }
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
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
