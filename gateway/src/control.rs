//! Orders that only the holder of the spool can carry out, from a command to the running server: one line of JSON
//! each way over a local socket (`control.sock` in the data directory, mode 0600, this user and root only).
//!
//! Where no server runs, [`perform`] takes the data directory's lock and does the same itself, so a command never has
//! to know. Definitions of mailboxes are files and need none of this.

use crate::spool::{Spool, SpoolError};
use postkeep_shared::{
    disk::LocalDisk,
    mail::MailboxId,
    run::{Exit, Failure, Shutdown},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream as Client},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

/// An order or an answer is short.
const MAX_LINE: u64 = 64 * 1024;
/// A server that is starting or stopping holds the lock without listening.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Order {
    /// Remove everything that waits in a mailbox, which must be exactly so many messages.
    Discard {
        /// The mailbox.
        mailbox: String,
        /// How many wait.
        messages: u64,
    },
    /// Take over what waits in another node's data folder.
    MoveIn {
        /// The folder, absolute.
        folder: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Answer {
    /// An exit code; 0: `result` is the answer.
    exit: u8,
    text: String,
    result: Value,
}

/// Has the order carried out: by the running server, or here where none runs.
///
/// # Errors
/// [`Failure`].
pub fn perform(data_dir: &Path, hostname: &str, order: &Order) -> Result<Value, Failure> {
    let started = Instant::now();
    loop {
        match Client::connect(socket(data_dir)) {
            Ok(stream) => return ask(stream, order),
            Err(e) if is_nobody(&e) => {}
            Err(e) => return Err(Failure::cannot(format!("{}: {e}", socket(data_dir).display()))),
        }
        match Spool::open(data_dir, hostname, Arc::new(LocalDisk)) {
            Ok((spool, _)) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start threads: {e}")))?;
                let done = runtime.block_on(carry_out(&spool, order));
                spool.close();
                return done;
            }
            Err(SpoolError::Locked(_)) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The socket of a data directory.
fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn ask(mut stream: Client, order: &Order) -> Result<Value, Failure> {
    let broken = |e: io::Error| Failure::cannot(format!("the running server did not answer: {e}; see its log"));
    let mut line = serde_json::to_vec(order).map_err(Failure::cannot)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(io::Read::take(stream, MAX_LINE)).read_line(&mut answer).map_err(broken)?;
    let answer: Answer = serde_json::from_str(&answer).map_err(|e| broken(e.into()))?;
    let exit = match answer.exit {
        0 => return Ok(answer.result),
        1 => Exit::Attention,
        2 => Exit::Usage,
        4 => Exit::WrongKey,
        5 => Exit::Refused,
        _ => Exit::Cannot,
    };
    Err(Failure::new(exit, answer.text))
}

async fn carry_out(spool: &Spool, order: &Order) -> Result<Value, Failure> {
    match order {
        Order::Discard { mailbox, messages } => {
            let id: MailboxId = mailbox.parse().map_err(|_| Failure::usage("the order names no mailbox"))?;
            spool.discard(id, *messages).await?;
            tracing::warn!(mailbox = %id, messages, "ALARM: waiting messages were discarded by command");
            Ok(json!({ "discarded": messages }))
        }
        Order::MoveIn { folder } => {
            let (spool, folder) = (spool.clone(), folder.clone());
            let moved =
                tokio::task::spawn_blocking(move || spool.move_in(&folder)).await.map_err(Failure::cannot)??;
            tracing::info!(moved = moved.moved, known = moved.known, "another node's messages were moved here");
            serde_json::to_value(moved).map_err(Failure::cannot)
        }
    }
}

/// Makes the socket. The caller holds the data directory's lock, so one that lies there is stale.
///
/// # Errors
/// [`Failure`]: the socket cannot be made.
pub fn bind(data_dir: &Path) -> Result<UnixListener, Failure> {
    let path = socket(data_dir);
    let failed = |e: io::Error| Failure::cannot(format!("cannot listen at {}: {e}", path.display()));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Takes orders until `shutdown`.
pub async fn serve(listener: UnixListener, spool: Spool, mut shutdown: Shutdown) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.fired() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // One after the other: orders are rare, and two at once would only wait for each other.
            Ok((stream, _)) => tokio::select! {
                () = shutdown.fired() => return,
                done = session(stream, &spool) => {
                    if let Err(error) = done {
                        tracing::warn!(%error, "an order by the control socket broke off");
                    }
                }
            },
            Err(error) => {
                tracing::error!(%error, "the control socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn session(mut stream: UnixStream, spool: &Spool) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::getuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let reading = tokio::io::BufReader::new(reader.take(MAX_LINE)).read_line(&mut line).await;
    reading?;
    let done = match serde_json::from_str(&line) {
        Ok(order) => carry_out(spool, &order).await,
        Err(e) => Err(Failure::usage(format!("the server does not know this order: {e}; use the same release"))),
    };
    let answer = match done {
        Ok(result) => Answer { exit: 0, text: String::new(), result },
        Err(failure) => Answer { exit: failure.exit as u8, text: failure.text, result: Value::Null },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
}
