//! The handshake: a deadline, and what the peer has to know about it afterwards.

use super::{ClientAuthorities, ClientCertificate, TlsError, client::Asked};
use postkeep_shared::{
    drive::Stream,
    tls::{VERSIONS, provider},
};
use std::{io, sync::Arc, time::Duration};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::CryptoProvider,
        server::{NoServerSessionStorage, ResolvesServerCert},
    },
};

/// Longest time for a handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);

/// A TLS connection.
pub type TlsStream = tokio_rustls::server::TlsStream<Box<dyn Stream>>;

/// What is spoken inside: decides which ALPN offers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Has no registered ALPN name; offers are ignored, since senders differ.
    Smtp,
    /// A client that offers anything must offer `pop3` (RFC 7301 §6, IANA registry).
    Pop3,
}

/// What is known of a TLS connection after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    pub version_and_suite: String,
    /// What the client proved with a certificate, where it was asked for one.
    pub client: ClientCertificate,
}

/// Makes TLS connections of TCP ones.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// Whose certificates are believed; `None` asks clients for none.
    clients: Option<Arc<ClientAuthorities>>,
}

impl Acceptor {
    pub(super) fn new(certificate: Arc<dyn ResolvesServerCert>, protocol: Protocol) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(VERSIONS).map_err(unusable)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
        if protocol == Protocol::Pop3 {
            config.alpn_protocols = vec![b"pop3".to_vec()];
        }
        Ok(Self { config: Arc::new(config), clients: None })
    }

    /// The same, but clients are asked for a certificate. Whatever they answer, the handshake goes on.
    #[must_use]
    pub fn asking_clients(self, authorities: Arc<ClientAuthorities>) -> Self {
        Self { clients: Some(authorities), ..self }
    }

    /// What does the next handshake. The one that asks notes what it learns, so it serves one handshake only.
    fn for_one(&self) -> Result<(TlsAcceptor, Option<Arc<Asked>>), TlsError> {
        let Some(authorities) = &self.clients else { return Ok((TlsAcceptor::from(Arc::clone(&self.config)), None)) };
        let provider: &Arc<CryptoProvider> = self.config.crypto_provider();
        let asked = authorities.ask(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
        let builder = builder.with_protocol_versions(VERSIONS).map_err(unusable)?;
        let verifier = Arc::clone(&asked) as Arc<_>;
        let certificate = Arc::clone(&self.config.cert_resolver);
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(certificate);
        config.alpn_protocols.clone_from(&self.config.alpn_protocols);
        // A resumed session would carry a certificate over without a word of proof, past its expiry.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((TlsAcceptor::from(Arc::new(config)), Some(asked)))
    }

    /// Does the handshake as the server, within [`HANDSHAKE_DEADLINE`].
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], or what the connection or the peer's TLS gave.
    pub async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<(TlsStream, TlsFacts)> {
        self.accept_within(stream, HANDSHAKE_DEADLINE).await
    }

    async fn accept_within(&self, stream: Box<dyn Stream>, deadline: Duration) -> io::Result<(TlsStream, TlsFacts)> {
        let (acceptor, asked) = self.for_one().map_err(io::Error::other)?;
        let handshake = tokio::time::timeout(deadline, acceptor.accept(stream));
        let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (_, connection) = stream.get_ref();
        let version = connection.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS").replace('_', ".");
        let suite = connection.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or_default();
        let client = asked.map(|asked| asked.outcome()).unwrap_or_default();
        let facts = TlsFacts { version_and_suite: format!("{version} {suite}"), client };
        Ok((stream, facts))
    }
}

fn unusable(error: tokio_rustls::rustls::Error) -> TlsError {
    TlsError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, tls::Certificates};
    use postkeep_shared::disk::LocalDisk;

    #[tokio::test]
    async fn a_silent_peer_does_not_hold_a_handshake() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = config::TlsConfig { source: config::CertificateSource::SelfSigned };
        let certificates = Certificates::load(&config, folder.path(), &["a.example".into()], Arc::new(LocalDisk));
        let acceptor = certificates.and_then(|c| c.acceptor(Protocol::Smtp)).expect("made");
        let (ours, _silent) = tokio::io::duplex(1024);
        let error =
            acceptor.accept_within(Box::new(ours), Duration::from_millis(50)).await.map(drop).expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
