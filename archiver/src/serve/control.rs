//! How commands speak to the running service: one line of JSON each way over a local socket (`control.sock` in the data
//! folder, mode 0600, this user and root only).
//!
//! Commands that change the store are not carried out by the service: it **lends** them the store. It ends the batches
//! in work, closes the store, lets go of the writer's lock and says so; the command works as if it were alone, with its
//! own eyes and permissions, and the service takes everything back when the connection ends, however the command did.
//! Meanwhile mail waits at its gateways, where it is safe.

use super::{
    board::{Board, Snapshot},
    schedule::Order,
};
use postkeep_shared::run::{Failure, Shutdown};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream as Client},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

/// An order is short; the answer to `status` grows with sources and hosts.
const MAX_ORDER: u64 = 4096;
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// Commands at once: each holds a descriptor.
const MOST: usize = 32;
/// A command that connects says at once what it wants.
const SAYING: Duration = Duration::from_secs(10);
/// The batch in work may be of a slow server, and two passwords of an escrow are not typed at once.
const LENDING: Duration = Duration::from_secs(600);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Asked {
    /// What is on the board?
    Status,
    /// Step aside until this connection ends.
    Lend {
        /// Who asks, for people.
        to: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Status(Box<Snapshot>),
    Lent,
    Failed(String),
}

/// The store, lent by a service; given back when dropped.
#[derive(Debug)]
pub struct Loan(#[expect(dead_code, reason = "held, not read: its end is the message")] Client);

/// What the running service knows; `None` where none runs.
///
/// # Errors
/// It does not answer.
pub fn status(socket: &Path) -> Result<Option<Snapshot>, Failure> {
    let Some(stream) = connect(socket)? else { return Ok(None) };
    match ask(&stream, &Asked::Status, SAYING)? {
        Answer::Status(snapshot) => Ok(Some(*snapshot)),
        other => Err(strange(&other)),
    }
}

/// Asks the running service for the store; `None` where none runs. Waits until its batches in work have ended.
///
/// # Errors
/// It does not answer, or cannot.
pub fn borrow(socket: &Path, to: &str) -> Result<Option<Loan>, Failure> {
    let Some(stream) = connect(socket)? else { return Ok(None) };
    match ask(&stream, &Asked::Lend { to: to.to_owned() }, LENDING)? {
        Answer::Lent => Ok(Some(Loan(stream))),
        other => Err(strange(&other)),
    }
}

fn connect(socket: &Path) -> Result<Option<Client>, Failure> {
    match Client::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(e) => Err(Failure::cannot(format!("{}: {e}", socket.display()))),
    }
}

fn ask(mut stream: &Client, order: &Asked, patience: Duration) -> Result<Answer, Failure> {
    let broken = |e: io::Error| Failure::cannot(format!("the running service did not answer: {e}; see its log"));
    let mut line = serde_json::to_vec(order).map_err(Failure::cannot)?;
    line.push(b'\n');
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    stream.write_all(&line).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(io::Read::take(stream, MAX_ANSWER)).read_line(&mut answer).map_err(broken)?;
    serde_json::from_str(&answer).map_err(|e| broken(e.into()))
}

fn strange(answer: &Answer) -> Failure {
    match answer {
        Answer::Failed(text) => Failure::cannot(text),
        _ => Failure::cannot("the running service gave another answer than was asked for; use the same release"),
    }
}

/// Makes the socket. The caller holds the writer's lock, so one that lies there is stale.
///
/// # Errors
/// The socket cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, Failure> {
    let failed = |e: io::Error| Failure::cannot(format!("cannot listen at {}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Takes orders until `shutdown`.
pub async fn serve(listener: UnixListener, board: Arc<Board>, orders: mpsc::Sender<Order>, mut shutdown: Shutdown) {
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.fired() => return,
            Some(_) = sessions.join_next(), if sessions.len() >= MOST => continue,
            accepted = listener.accept(), if sessions.len() < MOST => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (board, orders) = (Arc::clone(&board), orders.clone());
                sessions.spawn(async move {
                    if let Err(error) = session(stream, &board, &orders).await {
                        tracing::warn!(%error, "an order by the control socket broke off");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "the control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn session(mut stream: UnixStream, board: &Board, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::getuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader.take(MAX_ORDER));
    let mut line = String::new();
    timeout(SAYING, reader.read_line(&mut line)).await??;
    match serde_json::from_str(&line) {
        Ok(Asked::Status) => answer(&mut writer, &Answer::Status(Box::new(board.snapshot()))).await,
        Ok(Asked::Lend { to }) => {
            let ((ready, lent), (back_sender, back)) = (oneshot::channel(), oneshot::channel());
            let order = Order::Lend { to: printable(&to), ready, back };
            let stopping = || "the service is stopping; try again".to_owned();
            let lent = match orders.send(order).await {
                Ok(()) => lent.await.unwrap_or_else(|_| Err(stopping())),
                Err(_) => Err(stopping()),
            };
            match lent {
                Ok(()) => answer(&mut writer, &Answer::Lent).await?,
                Err(text) => return answer(&mut writer, &Answer::Failed(text)).await,
            }
            // Nothing more is said: the connection ends when the command does.
            let mut rest = Vec::new();
            let ended = reader.read_to_end(&mut rest).await;
            drop(back_sender);
            ended.map(drop)
        }
        Err(e) => {
            let text = format!("the service does not know this order: {e}; use the same release");
            answer(&mut writer, &Answer::Failed(text)).await
        }
    }
}

async fn answer(writer: &mut tokio::net::unix::WriteHalf<'_>, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

fn printable(text: &str) -> String {
    postkeep_shared::run::printable(text.as_bytes())
}
