//! How a server proves who it is: a pinned public key, an authority of the system, or an authority of a file.
//!
//! The checks are in `postkeep_shared::tls`; here is what POP3 adds.

use crate::config::Host;
use postkeep_shared::{
    drive::Stream,
    tls::{self, Verify},
};
use std::{io, sync::Arc};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, client::danger::ServerCertVerifier, pki_types::ServerName},
};

pub use postkeep_shared::tls::public_key_digest;

/// Makes connections to servers that were proved to be the right ones.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// Prepares the check.
    ///
    /// # Errors
    /// A sentence: no usable authority, or a file that cannot be read.
    pub fn new(verify: &Verify) -> Result<Self, String> {
        let mut config = tls::client_config(verify)?;
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
