//! How a server proves who it is: a pinned public key, an authority of the system, or an authority of a file.
//!
//! There is no fourth way. A pin replaces name and authority, not the handshake: its signatures are checked as ever,
//! so the server must hold the private key.

use crate::config::{Host, Verify};
use postkeep_shared::{drive::Stream, mail::Digest, tls};
use std::{io, path::Path, sync::Arc};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    },
};

/// Makes connections to servers that were proved to be the right ones.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// Prepares the check.
    ///
    /// # Errors
    /// A sentence: no usable authority, or a file that cannot be read.
    pub fn new(verify: &Verify) -> Result<Self, String> {
        let provider = tls::provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(tls::VERSIONS)
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let mut config = match verify {
            Verify::Pin(pins) => {
                let pins = Pins { pins: pins.clone(), provider };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(pins)).with_no_client_auth()
            }
            Verify::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
            Verify::Ca(file) => builder.with_root_certificates(file_roots(file)?).with_no_client_auth(),
        };
        // A server of another protocol that checks this refuses us (ALPACA).
        config.alpn_protocols = vec![b"pop3".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// With a check of the caller's, which must not accept what nobody proved.
    ///
    /// # Errors
    /// A sentence: TLS cannot be set up.
    pub(super) fn with(check: Arc<dyn ServerCertVerifier>) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(tls::VERSIONS)
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(check).with_no_client_auth();
        config.alpn_protocols = vec![b"pop3".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake; the caller sets the deadline.
    ///
    /// # Errors
    /// The certificate is not the expected one, or the connection fails.
    pub async fn connect(&self, host: &Host, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "the operating system has no certificate authorities; install the package ca-certificates, or use \
                    tls = { verify = \"pin\", … }"
                .to_owned(),
        );
    }
    Ok(roots)
}

fn file_roots(file: &Path) -> Result<RootCertStore, String> {
    let error = |e: String| format!("{}: {e}; it must hold the authority's certificate as PEM", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| error(e.to_string()))? {
        let certificate = certificate.map_err(|e| error(e.to_string()))?;
        roots.add(certificate).map_err(|e| error(e.to_string()))?;
    }
    if roots.is_empty() { Err(error("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo in DER): what a pin names.
///
/// # Errors
/// A certificate that cannot be read.
pub fn public_key_digest(certificate: &[u8]) -> Result<Digest, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(Digest::of(parsed.public_key().raw))
}

#[derive(Debug)]
struct Pins {
    pins: Vec<Digest>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = public_key_digest(end_entity)?;
        if self.pins.contains(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(format!(
            "the server's public key is not the pinned one, its SHA-256 is {found}; \
            where it was changed on purpose, `source pin` stores the new one"
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
