//! A look at the key a server has, before anybody trusts it: for `source pin`.
//!
//! Invariants: the handshake goes as far as the server's signature, which proves that it holds the key, and is broken off
//! there; so this connection can carry nothing, whatever the server says, and no certificate is ever accepted by it.

use super::{session::Session, tls::Connector};
use crate::config::Host;
use postkeep_shared::{mail::Digest, run::printable};
use std::sync::{Arc, Mutex, PoisonError};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_rustls::rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::{extensions::GeneralName, prelude::parse_x509_certificate};

/// What a server presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Subject, made fit for a terminal.
    pub subject: String,
    /// Alternative names.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Its end, RFC 3339.
    pub expires: String,
    /// Whether that has passed.
    pub expired: bool,
    /// SHA-256 of the public key (SPKI in DER).
    pub public_key: Digest,
}

/// Connects, looks and breaks off.
///
/// # Errors
/// A sentence: no connection, no TLS, or no certificate that can be read.
pub async fn look(host: &Host) -> Result<Seen, String> {
    describe(&certificate(host).await?)
}

/// As [`look`]: begin and end of the certificate, seconds since 1970-01-01 UTC.
///
/// # Errors
/// A sentence.
pub async fn look_at_validity(host: &Host) -> Result<(i64, i64), String> {
    let certificate = certificate(host).await?;
    let (_, parsed) = parse_x509_certificate(&certificate).map_err(|_| "the certificate cannot be read".to_owned())?;
    Ok((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

async fn certificate(host: &Host) -> Result<Vec<u8>, String> {
    let eye = Arc::new(Eye { seen: Mutex::default(), provider: postkeep_shared::tls::provider() });
    let opened = Session::open(host, &Connector::with(Arc::clone(&eye) as Arc<dyn ServerCertVerifier>)?).await;
    let certificate = eye.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (certificate, opened) {
        (Some(certificate), _) => Ok(certificate),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(_)) => Err("the server has no certificate".to_owned()),
    }
}

fn describe(certificate: &[u8]) -> Result<Seen, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| "the certificate cannot be read".to_owned())?;
    let names = parsed.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.clone());
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(printable(name.as_bytes())),
        _ => None,
    };
    let end = parsed.validity().not_after.timestamp();
    let expires = OffsetDateTime::from_unix_timestamp(end).ok().and_then(|end| end.format(&Rfc3339).ok());
    Ok(Seen {
        subject: printable(parsed.subject().to_string().as_bytes()),
        names: names.unwrap_or_default().iter().filter_map(name).collect(),
        issuer: if parsed.issuer().as_raw() == parsed.subject().as_raw() {
            "itself (self-signed)".to_owned()
        } else {
            printable(parsed.issuer().to_string().as_bytes())
        },
        expires: expires.unwrap_or_else(|| end.to_string()),
        expired: end < OffsetDateTime::now_utc().unix_timestamp(),
        public_key: Digest::of(parsed.public_key().raw),
    })
}

#[derive(Debug)]
struct Eye {
    seen: Mutex<Option<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
}

impl Eye {
    /// The signature was right: enough was seen.
    fn enough(&self, certificate: &CertificateDer<'_>) -> Result<HandshakeSignatureValid, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate.to_vec());
        Err(Error::General("seen enough".to_owned()))
    }
}

impl ServerCertVerifier for Eye {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Judged by the person who reads it; the signature below ends the handshake in every case.
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms).and_then(|_| self.enough(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms).and_then(|_| self.enough(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
