//! One message to one server (RFC 5321), and the library that speaks to it (mail-send).

use super::Security;
use crate::{
    run::printable,
    tls::{Verify, client_config, provider},
};
use mail_send::{Credentials, Error, SmtpClient, SmtpClientBuilder, smtp::message::Message};
use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};
use zeroize::Zeroizing;

/// One connection, one command.
const STEP: Duration = Duration::from_secs(30);
/// A whole delivery. Five minutes per command (RFC 5321 §4.5.3.2) are for servers that have nothing else to do.
const WHOLE: Duration = Duration::from_secs(90);

/// A server and how to speak to it.
pub struct Server {
    /// Its name, for the certificate and for people.
    pub name: String,
    /// Where it is; `None`: the system resolves the name.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
    /// Where TLS begins.
    pub security: Security,
    /// How its certificate is checked; needed unless `security` says that it is not.
    pub verify: Option<Verify>,
    /// Who we are to it.
    pub login: Option<Login>,
    /// Our name in EHLO.
    pub helo: String,
}

/// User and password. No `Debug`.
pub struct Login {
    /// The name.
    pub user: String,
    /// The password; wiped when dropped.
    pub password: Zeroizing<String>,
}

/// Nobody took the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Our side: a file, the DNS.
    #[error("{0}")]
    Way(String),
    /// A server could not be reached, or says no.
    #[error("{server}: {text}")]
    Server {
        /// Name and port.
        server: String,
        /// What went wrong, or what it answered.
        text: String,
    },
}

/// A text that is wiped when dropped, in the form the library asks for.
#[derive(PartialEq, Eq)]
struct Text(Zeroizing<String>);

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

/// Gives `message` to the server; who took it.
///
/// # Errors
/// [`SendError`]; then it may have been taken all the same, where the connection broke at the very end.
pub async fn deliver(server: &Server, from: &str, to: &str, message: &[u8]) -> Result<String, SendError> {
    let shown = format!("{}:{}", server.name, server.port);
    let fail = |text: String| SendError::Server { server: shown.clone(), text };
    match tokio::time::timeout(WHOLE, converse(server, from, to, message)).await {
        Ok(Ok(())) => Ok(shown),
        Ok(Err(error)) => Err(fail(error)),
        Err(_) => Err(fail("it took too long".to_owned())),
    }
}

async fn converse(server: &Server, from: &str, to: &str, message: &[u8]) -> Result<(), String> {
    let config = match (&server.verify, server.security) {
        (Some(verify), Security::StartTls | Security::Tls) => client_config(verify)?,
        (None, Security::StartTls | Security::Tls) => {
            return Err("nothing says how to check its certificate".to_owned());
        }
        (_, Security::Opportunistic | Security::Clear) => anybody()?,
    };
    let connector = TlsConnector::from(Arc::new(config));
    let mut builder =
        SmtpClientBuilder::new_with_tls_connector(Text::from(server.name.as_str()), server.port, connector)
            .helo_host(server.helo.as_str())
            .timeout(STEP)
            .implicit_tls(server.security == Security::Tls);
    builder.addr = match server.address {
        Some(ip) => SocketAddr::new(ip, server.port).to_string(),
        None if server.name.contains(':') => format!("[{}]:{}", server.name, server.port),
        None => format!("{}:{}", server.name, server.port),
    };
    if let Some(login) = &server.login {
        builder = builder.credentials(Credentials::Plain {
            username: Text::from(login.user.as_str()),
            secret: Text(login.password.clone()),
        });
    }
    let letter = Message::new(from, [to], message);
    if server.security == Security::Clear {
        return send(builder.connect_plain().await.map_err(|e| text(&e))?, letter).await;
    }
    match builder.connect().await {
        Ok(client) => send(client, letter).await,
        Err(Error::MissingStartTls) if server.security == Security::Opportunistic => {
            send(builder.connect_plain().await.map_err(|e| text(&e))?, letter).await
        }
        Err(error) => Err(text(&error)),
    }
}

async fn send<T: AsyncRead + AsyncWrite + Unpin>(mut client: SmtpClient<T>, letter: Message<'_>) -> Result<(), String> {
    client.send(letter).await.map_err(|e| text(&e))?;
    // It is taken; how the connection ends changes nothing.
    drop(client.quit().await);
    Ok(())
}

/// One line that can stand in a log.
fn text(error: &Error) -> String {
    let text = match error {
        Error::UnexpectedReply(reply) | Error::AuthenticationFailed(reply) => {
            format!("it answered {} {}", reply.code, reply.message)
        }
        Error::MissingStartTls => {
            "it offers no STARTTLS; set security = \"tls\", or \"none\" on the same machine".to_owned()
        }
        Error::Timeout => "no answer in time".to_owned(),
        other => other.to_string(),
    };
    printable(text.replace("\r\n", " ").as_bytes())
}

/// TLS with whoever answers: without a relay that was agreed on, a name in the DNS proves nothing either, and the choice
/// is between this and clear text.
fn anybody() -> Result<ClientConfig, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(crate::tls::VERSIONS)
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
