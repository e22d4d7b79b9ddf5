//! The key that nodes share, and the TLS it makes.
//!
//! From the key an Ed25519 key pair is derived, the same on every node: a self-made certificate with it is shown by both
//! ends, and each accepts exactly that public key. So a handshake succeeds between holders of the key and nobody else,
//! with TLS 1.3's own signatures as the proof. Nothing of the key itself goes over the wire.

use data_encoding::BASE64;
use postkeep_shared::{
    crypt::random,
    disk::{self, Disk},
    mail::Digest,
    run::Failure,
    tls::provider,
};
use std::{path::Path, sync::Arc};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
        version::TLS13,
    },
};
use zeroize::Zeroizing;

const FIRST_LINE: &str = "postkeep-sync-key-v1";
/// The name in the certificate; what counts is its key.
pub(super) const NAME: &str = "postkeep-sync";
/// PKCS #8 of an Ed25519 key up to its seed (RFC 8410 §7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// 32 random octets that every node of a group holds. Wiped when dropped.
pub struct SyncKey(Zeroizing<[u8; 32]>);

impl SyncKey {
    /// Makes a key file; there must be none.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn create(file: &Path, disk: &dyn Disk) -> Result<(), Failure> {
        let octets: Zeroizing<[u8; 32]> = Zeroizing::new(random());
        let encoded = Zeroizing::new(BASE64.encode(octets.as_ref()));
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n", encoded.as_str()));
        disk::write_new_file(disk, file, text.as_bytes()).map_err(|e| match e.is_present() {
            true => Failure::refused(format!("{} is there already and is not overwritten", file.display())),
            false => e.into(),
        })
    }

    /// Reads a key file, which only its owner may be able to read.
    ///
    /// # Errors
    /// [`Failure`] with the remedy.
    pub fn load(file: &Path, disk: &dyn Disk) -> Result<Self, Failure> {
        let fail = |text: &str| Failure::usage(format!("sync key {}: {text}", file.display()));
        let entry = disk.entry(file).map_err(|e| match e.is_missing() {
            true => fail("is missing; make it once with `mailbox sync --make-key` and copy it to the other node"),
            false => e.into(),
        })?;
        if entry.mode & 0o077 != 0 {
            return Err(fail("others than its owner may read it; run `chmod 600` on it"));
        }
        let octets = Zeroizing::new(disk.read(file, 1024)?);
        let mut lines = std::str::from_utf8(&octets).unwrap_or_default().lines();
        let first = lines.next();
        let key = lines.next().and_then(|line| BASE64.decode(line.as_bytes()).ok()).map(Zeroizing::new);
        let key = key.and_then(|key| key.as_slice().try_into().ok()).filter(|_| first == Some(FIRST_LINE));
        key.map(|key| Self(Zeroizing::new(key)))
            .ok_or_else(|| fail("is not a sync key; make one with `mailbox sync --make-key`"))
    }

    /// What connects to peers.
    ///
    /// # Errors
    /// A sentence.
    pub fn connector(&self) -> Result<TlsConnector, String> {
        let (chain, key, same) = self.parts()?;
        let text = |e: Error| e.to_string();
        let builder =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(text)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(same));
        Ok(TlsConnector::from(Arc::new(builder.with_client_auth_cert(chain, key).map_err(text)?)))
    }

    /// What peers connect to.
    ///
    /// # Errors
    /// A sentence.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let (chain, key, same) = self.parts()?;
        let text = |e: Error| e.to_string();
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(text)?;
        let builder = builder.with_client_cert_verifier(Arc::new(same));
        Ok(TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).map_err(text)?)))
    }

    fn parts(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, SameKey), String> {
        // A uniform key of 32 octets needs no more than a hash with a purpose in front.
        let seed = Zeroizing::new(
            Digest::of(&Zeroizing::new([b"postkeep sync tls v1\0".as_slice(), self.0.as_ref()].concat())).0,
        );
        let der = PrivatePkcs8KeyDer::from([PKCS8.as_slice(), seed.as_ref()].concat());
        let unusable = |e: rcgen::Error| e.to_string();
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).map_err(unusable)?;
        let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).map_err(unusable)?;
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let certificate = params.self_signed(&pair).map_err(unusable)?.der().clone();
        let public_key = public_key(&certificate).map_err(|e| e.to_string())?;
        Ok((vec![certificate], PrivateKeyDer::Pkcs8(der), SameKey { public_key, provider: provider() }))
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(parsed.public_key().raw.to_vec())
}

/// Accepts a peer that shows our own public key, and has TLS check that it holds the private one.
#[derive(Debug)]
struct SameKey {
    public_key: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl SameKey {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if public_key(certificate)? == self.public_key {
            return Ok(());
        }
        Err(Error::General("the peer holds another sync key".into()))
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

/// TLS 1.2 is not offered; asked all the same, it is refused.
fn too_old() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.3 only".into()))
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
