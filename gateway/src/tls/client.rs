//! Certificates of clients: asked for, never demanded, and what of them is proved.
//!
//! RFC 8446 §4.3.2 and RFC 5246 §7.4.4; names as in RFC 9525. Invariants: neither a missing certificate nor anything
//! wrong with one ends a handshake; a name counts only where the chain ends at a known authority, everything in it is
//! valid now, and the client has shown in this very handshake that it holds the key. What it does not do: revocation
//! lists, the common name, POP3.

use super::TlsError;
use postkeep_shared::{disk::Disk, tls::provider};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_cert_signed_by_trust_anchor},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

/// A file of authorities larger than this is not one; every public authority together takes a quarter of a MiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Octets of names kept as evidence. Real certificates hold some hundred; rules see every name.
const MAX_EVIDENCE: usize = 8 * 1024;

/// What a client proved with its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It sent none.
    #[default]
    None,
    /// It sent one that proves nothing; why, for people.
    Unverified(String),
    /// DNS names in a verified one, lower case, never none; one may begin with `*.`.
    Verified(Vec<String>),
}

impl ClientCertificate {
    /// The names that are proved.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::Verified(names) => names,
            _ => &[],
        }
    }

    /// The names for the trace header, with commas.
    #[must_use]
    pub fn evidence(&self) -> Option<String> {
        let mut text = String::new();
        for name in self.names().iter().take_while({
            let mut left = MAX_EVIDENCE;
            move |name| {
                let fits = name.len() < left;
                left = left.saturating_sub(name.len() + 1);
                fits
            }
        }) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
        }
        (!text.is_empty()).then_some(text)
    }
}

impl std::fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Unverified(why) => write!(f, "unverified: {why}"),
            Self::Verified(_) => f.write_str(&self.evidence().unwrap_or_default()),
        }
    }
}

/// The authorities whose clients are believed: those of a file, else those of the system.
pub struct ClientAuthorities {
    file: Option<PathBuf>,
    disk: Arc<dyn Disk>,
    current: RwLock<Trust>,
}

/// One state of the authorities.
#[derive(Clone)]
struct Trust {
    roots: Arc<RootCertStore>,
    /// `None` where there is no authority.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientAuthorities {
    /// Reads the authorities. A system without any is no error: then nothing is ever verified.
    ///
    /// # Errors
    /// [`TlsError`] when the file cannot be read or holds no certificate.
    pub fn load(file: Option<&Path>, disk: Arc<dyn Disk>) -> Result<Self, TlsError> {
        let current = RwLock::new(Trust::read(file, disk.as_ref())?);
        Ok(Self { file: file.map(Path::to_owned), disk, current })
    }

    /// Reads them again.
    ///
    /// # Errors
    /// As [`Self::load`]; the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Trust::read(self.file.as_deref(), self.disk.as_ref())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Whether no certificate can ever be verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trust().roots.is_empty()
    }

    fn trust(&self) -> Trust {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What asks one client in one handshake.
    pub(super) fn ask(&self, provider: &Arc<CryptoProvider>) -> Arc<Asked> {
        Arc::new(Asked {
            trust: self.trust(),
            provider: Arc::clone(provider),
            chain: Mutex::default(),
            holds_key: AtomicBool::new(false),
        })
    }
}

impl Trust {
    fn read(file: Option<&Path>, disk: &dyn Disk) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match file {
            Some(file) => {
                let content = |what| TlsError::Content { file: file.to_owned(), what };
                let pem = disk.read(&super::files::followed(file), MAX_FILE)?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|_| content("holds a damaged certificate"))?;
                    roots.add(certificate).map_err(|_| content("holds a certificate that cannot be an authority"))?;
                }
                if roots.is_empty() {
                    return Err(content("holds no certificate"));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let roots = Arc::new(roots);
        // Fails where there is no authority, and for nothing else without revocation lists.
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build().ok();
        Ok(Self { roots, clients })
    }

    /// The names of a certificate whose chain is good.
    fn names(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<Vec<String>, String> {
        let clients = self.clients.as_ref().ok_or("there are no authorities to check it with")?;
        let as_client = clients.verify_client_cert(end_entity, intermediates, now).map(drop);
        // Mail servers show the certificate they serve with, and public authorities no longer issue any for clients:
        // holding the key of a name proves as much in either role.
        let as_server = || {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
        };
        as_client.or_else(|error| as_server().map_err(|_| error)).map_err(|error| reason(&error))?;
        let names = dns_names(end_entity);
        if names.is_empty() { Err("it holds no DNS name".to_owned()) } else { Ok(names) }
    }
}

/// The DNS names among the alternative names (RFC 9525 §6.3: the common name does not count), lower case.
fn dns_names(certificate: &[u8]) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        // What no DNS name can hold must not get into a header or a log either.
        GeneralName::DNSName(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b)) => {
            Some(name.trim_end_matches('.').to_ascii_lowercase()).filter(|name| (1..=253).contains(&name.len()))
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "no known authority issued it".to_owned(),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "it has expired".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "it is not valid yet".to_owned()
        }
        other => other.to_string(),
    }
}

/// Asks one client, notes what its certificate is worth, and lets the handshake go on in any case.
pub(super) struct Asked {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    chain: Mutex<ClientCertificate>,
    /// Whether it signed the handshake with the certificate's key.
    holds_key: AtomicBool,
}

impl Asked {
    /// What came of it, once the handshake is done.
    pub(super) fn outcome(&self) -> ClientCertificate {
        let chain = std::mem::take(&mut *self.chain.lock().unwrap_or_else(PoisonError::into_inner));
        match chain {
            ClientCertificate::Verified(_) if !self.holds_key.load(Ordering::SeqCst) => {
                ClientCertificate::Unverified("the client did not show that it holds the key".to_owned())
            }
            chain => chain,
        }
    }

    fn signed(&self, checked: Result<HandshakeSignatureValid, Error>) -> HandshakeSignatureValid {
        // A key or a certificate that the library does not know cannot be checked and proves nothing; that is no
        // reason to refuse mail, which would have been taken without any certificate.
        self.holds_key.store(checked.is_ok(), Ordering::SeqCst);
        HandshakeSignatureValid::assertion()
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

impl ClientCertVerifier for Asked {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client that has a certificate shall send it, whoever issued it. The names of all authorities of a
    /// system would also make every handshake larger by some 15 KiB.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let names = self.trust.names(end_entity, intermediates, now, &self.provider);
        let found = names.map_or_else(ClientCertificate::Unverified, ClientCertificate::Verified);
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let checked = tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms);
        Ok(self.signed(checked))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let checked = tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms);
        Ok(self.signed(checked))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_rules_see_every_name() {
        let names: Vec<String> = (0..1000).map(|n| format!("host-{n}.some.where.example")).collect();
        let many = ClientCertificate::Verified(names.clone());
        let evidence = many.evidence().expect("names");
        assert!(evidence.len() < MAX_EVIDENCE && evidence.len() > MAX_EVIDENCE - 100, "{}", evidence.len());
        assert!(evidence.split(',').zip(&names).all(|(shown, name)| shown == name), "whole names, from the first one");
        assert_eq!(many.names().len(), 1000);
        assert_eq!(
            (ClientCertificate::None.evidence(), ClientCertificate::Unverified(String::new()).evidence()),
            (None, None)
        );
    }
}
