//! A connection in clear or under TLS, read by lines and by counted octets.
//!
//! The certificate is not judged: every server here was started by this program on the loopback.

use anyhow::{Context as _, Result, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// No answer for this long is a failure.
const PATIENCE: Duration = Duration::from_secs(120);
const BLOCK: usize = 64 * 1024;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to a server.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// A second handle on the socket while it is in clear.
    socket: Option<TcpStream>,
    buffer: Vec<u8>,
    at: usize,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let again = socket.try_clone()?;
        Ok(Self { stream: Box::new(again), socket: Some(socket), buffer: Vec::new(), at: 0 })
    }

    /// Goes on under TLS.
    pub(crate) fn start_tls(self) -> Result<Self> {
        static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(config);
        let config = CONFIG.clone().map_err(anyhow::Error::msg)?;
        let mut socket = self.socket.context("TLS already")?;
        let mut session = ClientConnection::new(config, ServerName::try_from("msgw.archive.example")?)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let stream = Box::new(StreamOwned::new(session, socket));
        Ok(Self { stream, socket: None, buffer: Vec::new(), at: 0 })
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.stream.write_all(octets)?;
        Ok(self.stream.flush()?)
    }

    /// A line without its end.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut from = self.at;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[from..]).map(|at| from + at) {
                let line = String::from_utf8_lossy(&self.buffer[self.at..end]).trim_end().to_owned();
                self.at = end + 1;
                return Ok(line);
            }
            let known = self.buffer.len() - self.at;
            self.fill()?;
            from = self.at + known;
        }
    }

    /// Exactly `count` octets.
    pub(crate) fn counted(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut octets = Vec::with_capacity(count);
        let there = count.min(self.buffer.len() - self.at);
        octets.extend_from_slice(&self.buffer[self.at..self.at + there]);
        self.at += there;
        let have = octets.len();
        octets.resize(count, 0);
        self.stream.read_exact(&mut octets[have..])?;
        Ok(octets)
    }

    /// What stands before the line that is only a dot, with dot-stuffing undone.
    pub(crate) fn dotted(&mut self) -> Result<Vec<u8>> {
        const END: &[u8] = b"\r\n.\r\n";
        let mut scanned = 0;
        loop {
            let waiting = &self.buffer[self.at..];
            if waiting.starts_with(b".\r\n") {
                self.at += 3;
                return Ok(Vec::new());
            }
            if let Some(end) = memchr::memmem::find(&waiting[scanned..], END).map(|at| scanned + at) {
                let message = unstuffed(&waiting[..end + 2]);
                self.at += end + END.len();
                return Ok(message);
            }
            scanned = waiting.len().saturating_sub(END.len());
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let have = self.buffer.len();
        self.buffer.resize(have + BLOCK, 0);
        let count = self.stream.read(&mut self.buffer[have..])?;
        self.buffer.truncate(have + count);
        if count == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// Dot-stuffing undone.
fn unstuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut from = usize::from(content.starts_with(b"."));
    for at in memchr::memmem::find_iter(content, b"\n.") {
        out.extend_from_slice(&content[from..=at]);
        from = at + 2;
    }
    out.extend_from_slice(content.get(from..).unwrap_or_default());
    out
}

fn config() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    Ok(Arc::new(config.with_no_client_auth()))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
