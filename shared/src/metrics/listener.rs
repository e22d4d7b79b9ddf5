//! A listener that answers `GET` and `HEAD` of three paths (RFC 9110, RFC 9112) and closes.
//!
//! Everything is bounded: connections at once, the head of a request, the time a request and an answer may take. A body
//! is never read. There is no TLS and no password here: it belongs on loopback, or behind something that has them.

use super::{Exposition, Health, Told};
use crate::run::Shutdown;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

/// Connections at once; more wait in the kernel.
const MOST: usize = 16;
/// Octets of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// How long a client may take to ask, and how long to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the program may take to answer: one that takes longer does not answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Binds the addresses, all or none.
///
/// # Errors
/// The address that cannot be had, and why.
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(TcpListener::bind(address).await.map_err(|error| (*address, error))?);
    }
    Ok(listeners)
}

/// Answers until `shutdown`; `prefix` is that of the figures' names.
pub async fn serve(listener: TcpListener, told: Arc<dyn Told>, prefix: &'static str, mut shutdown: Shutdown) {
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.fired() => return,
            Some(_) = sessions.join_next(), if sessions.len() >= MOST => continue,
            accepted = listener.accept(), if sessions.len() < MOST => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let told = Arc::clone(&told);
                sessions.spawn(async move {
                    if let Err(error) = session(stream, told, prefix).await {
                        tracing::debug!(%peer, %error, "metrics");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, perhaps: the next scrape may find some.
                tracing::warn!(%error, "metrics");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn session(mut stream: TcpStream, told: Arc<dyn Told>, prefix: &'static str) -> io::Result<()> {
    let head = timeout(PATIENCE, read_head(&mut stream)).await??;
    let (only_head, answer) = answer(&head, told, prefix).await;
    let Answer { status, kind, body } = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let write = async {
        stream.write_all(head.as_bytes()).await?;
        if !only_head {
            stream.write_all(body.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    timeout(PATIENCE, write).await?
}

/// Octets up to the empty line; what comes after it is not wanted.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The answer, and whether only its head was asked for.
async fn answer(head: &[u8], told: Arc<dyn Told>, prefix: &'static str) -> (bool, Answer) {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if words.next().is_none_or(|version| !version.starts_with("HTTP/1.")) {
        return (false, plain("400 Bad Request", "this is not HTTP\n"));
    }
    if !matches!(method, "GET" | "HEAD") {
        return (false, plain("405 Method Not Allowed", "only GET and HEAD\n"));
    }
    let path = target.split('?').next().unwrap_or_default();
    let answer = match path {
        "/metrics" => asked(move || figures(&*told, prefix)).await.map(|body| Answer {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body,
        }),
        "/healthz" => asked(move || told.alive()).await.map(|health| of(&health)),
        "/readyz" => asked(move || told.ready()).await.map(|health| of(&health)),
        _ => Some(plain("404 Not Found", "here are /metrics, /healthz and /readyz\n")),
    };
    let answer = answer
        .unwrap_or_else(|| of(&Health::of(vec![format!("the program did not answer within {} s", ANSWER.as_secs())])));
    (method == "HEAD", answer)
}

/// Asks the program, which may block; `None`: it takes too long, or panicked.
async fn asked<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(ANSWER, spawn_blocking(ask)).await.ok()?.ok()
}

fn figures(told: &dyn Told, prefix: &'static str) -> String {
    let mut out = Exposition::new(prefix);
    told.figures(&mut out);
    out.finish()
}

fn of(health: &Health) -> Answer {
    let status = if health.ok { "200 OK" } else { "503 Service Unavailable" };
    let mut body = serde_json::to_string(health).unwrap_or_default();
    body.push('\n');
    Answer { status, kind: "application/json", body }
}

fn plain(status: &'static str, text: &str) -> Answer {
    Answer { status, kind: TEXT, body: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ShutdownTrigger;

    struct Program;

    impl Told for Program {
        fn alive(&self) -> Health {
            Health::of(Vec::new())
        }

        fn ready(&self) -> Health {
            Health::of(vec!["the disk is full".into()])
        }

        fn figures(&self, out: &mut Exposition) {
            out.gauge("up", "Up.").value(1.0);
        }
    }

    struct Stuck;

    impl Told for Stuck {
        fn alive(&self) -> Health {
            std::thread::sleep(ANSWER + Duration::from_secs(1));
            Health::of(Vec::new())
        }

        fn ready(&self) -> Health {
            Health::default()
        }

        fn figures(&self, _: &mut Exposition) {
            panic!("on purpose");
        }
    }

    async fn started(told: Arc<dyn Told>) -> (SocketAddr, ShutdownTrigger) {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let listener = bind(&["127.0.0.1:0".parse().expect("an address")]).await.expect("binds").remove(0);
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, told, "postkeep_test_", shutdown));
        (address, trigger)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        // What was not read of a request may come back as a reset behind the answer.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn three_paths_and_nothing_else() {
        let (address, _trigger) = started(Arc::new(Program)).await;
        for (request, status, body) in [
            ("GET /metrics HTTP/1.1", "200 OK", "\r\n\r\n# HELP postkeep_test_up Up.\n"),
            ("GET /metrics?x=y HTTP/1.0", "200 OK", "postkeep_test_up 1\n"),
            ("GET /healthz HTTP/1.1", "200 OK", "{\"ok\":true,\"reasons\":[]}\n"),
            ("GET /readyz HTTP/1.1", "503 Service", "{\"ok\":false,\"reasons\":[\"the disk is full\"]}\n"),
            ("HEAD /healthz HTTP/1.1", "200 OK", "Connection: close\r\n\r\n"),
            ("GET /../etc/passwd HTTP/1.1", "404 Not Found", "here are"),
            ("POST /metrics HTTP/1.1", "405 Method", "only GET"),
            ("EHLO x", "400 Bad", "not HTTP"),
        ] {
            let answer = ask(address, &format!("{request}\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(body), "{request}: {answer}");
        }
        assert!(ask(address, "HEAD /healthz HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\n"));
        assert_eq!(ask(address, &"x".repeat(MAX_HEAD + 1)).await, "");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_not_alive() {
        let (address, _trigger) = started(Arc::new(Stuck)).await;
        let (alive, figures) =
            tokio::join!(ask(address, "GET /healthz HTTP/1.1\r\n\r\n"), ask(address, "GET /metrics HTTP/1.1\r\n\r\n"));
        assert!(alive.starts_with("HTTP/1.1 503") && alive.contains("did not answer within 5 s"), "{alive}");
        assert!(figures.starts_with("HTTP/1.1 503"), "{figures}");
    }
}
