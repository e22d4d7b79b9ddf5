//! A byte stream in clear or under TLS, with lines, exact counts, and a certificate known by its public key.

use anyhow::{Context as _, Result, bail, ensure};
use postkeep_shared::mail::Digest;
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

const SILENCE: Duration = Duration::from_secs(120);

/// Either kind of connection.
enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A connection that reads lines.
pub struct Wire(BufReader<Stream>);

impl Wire {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self(BufReader::with_capacity(64 * 1024, Stream::Clear(stream))))
    }

    /// Starts TLS; the peer's public key must be `pin`.
    pub fn start_tls(self, pin: &str) -> Result<Self> {
        ensure!(self.0.buffer().is_empty(), "octets in clear after the command that starts TLS");
        let Stream::Clear(stream) = self.0.into_inner() else { bail!("TLS already") };
        let name = ServerName::try_from("gateway.example")?;
        let connection = ClientConnection::new(Arc::new(client_config(pin)?), name)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(BufReader::with_capacity(64 * 1024, Stream::Tls(Box::new(stream)))))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(bytes)?;
        stream.flush()?;
        Ok(())
    }

    /// One line without its CRLF.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        ensure!(line.ends_with(b"\r\n"), "the connection ended inside a line: {:?}", String::from_utf8_lossy(&line));
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// Octets up to and with the next LF.
    pub fn until_lf(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let count = self.0.read_until(b'\n', out)?;
        ensure!(count > 0 && out.ends_with(b"\n"), "the connection ended before the final dot");
        Ok(())
    }

    /// Exactly `count` octets.
    pub fn exact(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The pin of the first certificate in a PEM file: hex SHA-256 of its public key (SPKI).
pub fn pin_of(file: &Path) -> Result<String> {
    let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|e| anyhow::anyhow!("{}: {e:?}", file.display()))?;
    pin(&certificate)
}

fn pin(certificate: &CertificateDer<'_>) -> Result<String> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Digest::of(&parsed.subject_public_key_info()).to_string())
}

/// Trusts the certificate with this public key and nothing else.
pub fn client_config(pin: &str) -> Result<ClientConfig> {
    let provider = postkeep_shared::tls::provider();
    let pinned = Pinned { pin: pin.to_owned(), provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(postkeep_shared::tls::VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth())
}

/// Trusts one public key and nothing else.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match pin(end_entity) {
            Ok(pin) if pin == self.pin => Ok(ServerCertVerified::assertion()),
            Ok(pin) => Err(rustls::Error::General(format!("public key {pin} instead of {}", self.pin))),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
