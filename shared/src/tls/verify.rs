//! How a server that we connect to proves who it is: a pinned public key, an authority of the system, or one of a file.
//!
//! There is no fourth way. A pin replaces name and authority, not the handshake: its signatures are checked as ever,
//! so the server must hold the private key.

use super::{VERSIONS, provider};
use crate::{
    config::{Config, Section},
    mail::Digest,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// How a server's certificate is checked. There is no way to accept any certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// SHA-256 of the public key (SPKI DER) is one of these.
    Pin(Vec<Digest>),
    /// Signed by an authority the operating system trusts, for this name.
    System,
    /// Signed by an authority of this PEM file, for this name.
    Ca(PathBuf),
}

impl Verify {
    /// Reads `{ verify = "system" }`, `{ verify = "ca", ca_file = … }` or `{ verify = "pin", pin_sha256 = […] }`.
    #[must_use]
    pub fn take(config: &Config, section: &Section) -> Self {
        let mode = section.choice("verify", &["pin", "system", "ca"]);
        let pins = section.list("pin_sha256");
        let ca_file = section.text("ca_file");
        match (mode.as_deref(), pins, ca_file) {
            (Some("pin"), Some(pins), None) if !pins.is_empty() => {
                let parsed = pins.iter().filter_map(|pin| {
                    let digest = Digest::from_hex(&pin.replace(':', ""));
                    if digest.is_none() {
                        section.mistake("pin_sha256", "a pin is 64 hex digits: the SHA-256 of the server's public key");
                    }
                    digest
                });
                Self::Pin(parsed.collect())
            }
            (Some("pin"), None | Some(_), None) => {
                if section.list("pin_sha256").is_none_or(|pins| pins.is_empty()) {
                    section.mistake("pin_sha256", "missing; add the hex SHA-256 of the server's public key");
                }
                Self::Pin(Vec::new())
            }
            (Some("ca"), None, Some(file)) => Self::Ca(config.resolve(&file)),
            (Some("ca"), None, None) => {
                section.mistake("ca_file", "missing; name the PEM file with the authority's certificate");
                Self::System
            }
            (Some("system") | None, None, None) => Self::System,
            (mode, _, _) => {
                let mode = mode.unwrap_or("system");
                section.mistake(
                    "verify",
                    format!(
                        "`{mode}` does not go with the other settings here: `pin_sha256` needs \"pin\", `ca_file` needs \
                         \"ca\""
                    ),
                );
                Self::System
            }
        }
    }
}

/// The client's side of TLS with this check.
///
/// # Errors
/// A sentence: no usable authority, or a file that cannot be read.
pub fn client_config(verify: &Verify) -> Result<ClientConfig, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(VERSIONS)
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    Ok(match verify {
        Verify::Pin(pins) => {
            let pins = Pins { pins: pins.clone(), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pins)).with_no_client_auth()
        }
        Verify::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        Verify::Ca(file) => builder.with_root_certificates(file_roots(file)?).with_no_client_auth(),
    })
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
