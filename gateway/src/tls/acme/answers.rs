//! What an authority that tries our ports is answered: TLS-ALPN-01 (RFC 8737) and HTTP-01 (RFC 8555 §8.3).
//!
//! Invariants: outside an order both ports answer nothing; port 443 completes a handshake only with somebody who offers
//! `acme-tls/1` and nothing else, and carries no data; port 80 knows one kind of path. Connections are bounded in number
//! by the listener and in time and octets here.

use crate::tls::{HANDSHAKE_DEADLINE, TlsError};
use postkeep_shared::tls::{VERSIONS, provider};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

/// RFC 8737 §6.2.
const ALPN: &[u8] = b"acme-tls/1";
/// RFC 8555 §8.3.
const PATH: &str = "/.well-known/acme-challenge/";
/// Longest request: an authority's has a few hundred octets.
const REQUEST: usize = 8 * 1024;
/// Longest time for a request and its answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// The answers that are expected just now.
#[derive(Default)]
pub struct Answers(Mutex<Expected>);

#[derive(Default)]
struct Expected {
    tls: HashMap<String, Arc<CertifiedKey>>,
    http: HashMap<String, String>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects a handshake for `name`.
    pub fn expect_tls(&self, name: &str, certificate: CertifiedKey) {
        self.expected().tls.insert(name.to_ascii_lowercase(), Arc::new(certificate));
    }

    /// Expects a request for `token`.
    pub fn expect_http(&self, token: &str, answer: String) {
        self.expected().http.insert(token.to_owned(), answer);
    }

    /// The order is over.
    pub fn clear(&self) {
        *self.expected() = Expected::default();
    }
}

impl ResolvesServerCert for Answers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(ALPN) || offered.next().is_some() {
            return None;
        }
        self.expected().tls.get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}

/// Serves both kinds.
#[derive(Clone)]
pub struct Responder {
    answers: Arc<Answers>,
    tls: TlsAcceptor,
}

impl Responder {
    /// A responder that looks into `answers`.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn new(answers: Arc<Answers>) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(VERSIONS).map_err(|e| TlsError::Unusable(e.to_string()))?;
        let resolver = Arc::clone(&answers) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { answers, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// One handshake, then the end: RFC 8737 §3 asks for nothing else.
    pub async fn tls(&self, stream: TcpStream) {
        let handshake = async {
            let mut stream = self.tls.accept(stream).await?;
            stream.shutdown().await
        };
        match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
            Ok(Ok(())) => tracing::info!("the authority was answered by TLS-ALPN-01"),
            Ok(Err(error)) => tracing::debug!(%error, "not an authority"),
            Err(_) => tracing::debug!("no handshake in time"),
        }
    }

    /// One request, one answer, then the end.
    pub async fn http(&self, stream: TcpStream) {
        if tokio::time::timeout(DEADLINE, self.answer(stream)).await.is_err() {
            tracing::debug!("no request in time");
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            if request.len() > REQUEST || stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let found = token(&request).and_then(|token| self.answers.expected().http.get(token).cloned());
        let answer = match &found {
            Some(answer) => response("200 OK", answer),
            None => response("404 Not Found", ""),
        };
        if found.is_some() {
            tracing::info!("the authority was answered by HTTP-01");
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// The token of `GET /.well-known/acme-challenge/TOKEN HTTP/1.1`.
fn token(request: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(request).ok()?.lines().next()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (method == "GET" && version.starts_with("HTTP/1.")).then_some(())?;
    target.strip_prefix(PATH)
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_only() {
        assert_eq!(token(b"GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: a\r\n\r\n"), Some("abc"));
        for other in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /.well-known/acme-challenge/abc HTTP/1.1\r\n\r\n",
            "GET /.well-known/acme-challenge/abc\r\n\r\n",
            "GET /.well-known/acme-challenge HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(token(other.as_bytes()), None, "{other}");
        }
    }

    async fn ask(answers: &Arc<Answers>, request: &[u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let responder = Responder::new(Arc::clone(answers)).expect("made");
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            responder.http(stream).await;
        });
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let mut answer = Vec::new();
        // The other side may close before it has read everything.
        let _ = stream.write_all(request).await;
        let _ = stream.read_to_end(&mut answer).await;
        served.await.expect("served");
        String::from_utf8(answer).expect("text")
    }

    #[tokio::test]
    async fn a_token_is_answered_while_its_order_runs() {
        let answers = Arc::new(Answers::default());
        let request = b"GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(ask(&answers, request).await.starts_with("HTTP/1.1 404 "));
        answers.expect_http("abc", "abc.def".into());
        let answer = ask(&answers, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nabc.def"), "{answer}");
        assert!(
            ask(&answers, b"GET /.well-known/acme-challenge/xyz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404 ")
        );
        assert_eq!(ask(&answers, &[b'x'; 20_000]).await, "");
        answers.clear();
        assert!(ask(&answers, request).await.starts_with("HTTP/1.1 404 "));
    }
}
