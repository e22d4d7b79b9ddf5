//! As much SMTP as the sender needs: EHLO, STARTTLS, MAIL, RCPT, DATA to CRLF.CRLF, QUIT.

use super::{Kind, store::Store};
use anyhow::{Context as _, Result, bail};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

const BLOCK: usize = 64 * 1024;
const HELLO: &[u8] = b"250-floor\r\n250-PIPELINING\r\n250-SIZE 335544320\r\n250 STARTTLS\r\n";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves until the process is ended; says where, as the gateway does.
pub(crate) fn serve(kind: Kind, folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::new(kind, folder)?;
        let acceptor = acceptor()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("listening smtp {}", listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (store, acceptor) = (store.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Err(error) = connection(socket, &store, &acceptor).await {
                    eprintln!("{error:#}");
                }
            });
        }
    })
}

fn acceptor() -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(vec!["msgw.archive.example".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(mut socket: TcpStream, store: &Store, acceptor: &TlsAcceptor) -> Result<()> {
    socket.write_all(b"220 floor ESMTP\r\n").await?;
    let mut session = Session { stream: Box::new(socket), buffer: Vec::new(), at: 0 };
    let mut replies: Vec<u8> = Vec::new();
    loop {
        if session.at == session.buffer.len() {
            session.send(&mut replies).await?;
        }
        let Some(line) = session.line().await? else { return Ok(()) };
        match line.get(..4).unwrap_or_default() {
            b"EHLO" => replies.extend_from_slice(HELLO),
            b"MAIL" | b"RCPT" => replies.extend_from_slice(b"250 2.1.0 fine\r\n"),
            b"DATA" => {
                replies.extend_from_slice(b"354 go on\r\n");
                session.send(&mut replies).await?;
                let message = session.message().await?;
                store.keep(message).await?;
                replies.extend_from_slice(b"250 2.6.0 taken\r\n");
            }
            b"STAR" => {
                replies.extend_from_slice(b"220 go on\r\n");
                session.send(&mut replies).await?;
                let stream = Box::new(acceptor.accept(session.stream).await?);
                session = Session { stream, buffer: Vec::new(), at: 0 };
            }
            b"QUIT" => {
                replies.extend_from_slice(b"221 bye\r\n");
                return session.send(&mut replies).await;
            }
            _ => bail!("a floor does not know {:?}", String::from_utf8_lossy(&line)),
        }
    }
}

struct Session {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    at: usize,
}

impl Session {
    async fn send(&mut self, replies: &mut Vec<u8>) -> Result<()> {
        if !replies.is_empty() {
            self.stream.write_all(replies).await?;
            self.stream.flush().await?;
            replies.clear();
        }
        Ok(())
    }

    /// `false` at the end of the connection.
    async fn fill(&mut self) -> Result<bool> {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.reserve(BLOCK);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.at..]) {
                let line = self.buffer[self.at..self.at + end].to_vec();
                self.at += end + 1;
                return Ok(Some(line));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn message(&mut self) -> Result<Vec<u8>> {
        const END: &[u8] = b"\r\n.\r\n";
        let mut scanned = 0;
        loop {
            let waiting = &self.buffer[self.at..];
            if let Some(end) = memchr::memmem::find(&waiting[scanned..], END).map(|at| scanned + at) {
                let message = unstuffed(&waiting[..end + 2]);
                self.at += end + END.len();
                return Ok(message);
            }
            scanned = waiting.len().saturating_sub(END.len());
            self.fill().await?.then_some(()).context("the client left within a message")?;
        }
    }
}

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
