//! What the floors do with a message.

use super::Kind;
use anyhow::{Context as _, Result, anyhow};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce, aead::AeadInOut as _};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};
use tokio::sync::oneshot;

/// Folders the files go to, as many as there are mailboxes elsewhere.
const FOLDERS: usize = 8;
const BLOCK: usize = 64 * 1024;
/// Octets that one sync of the log covers at most.
const BATCH: usize = 32 << 20;

/// Where messages go.
#[derive(Clone)]
pub(super) struct Store {
    kind: Kind,
    folder: Arc<PathBuf>,
    number: Arc<AtomicUsize>,
    log: Option<mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>>,
}

impl Store {
    pub(super) fn new(kind: Kind, folder: &Path) -> Result<Self> {
        for number in 0..FOLDERS {
            fs::create_dir_all(folder.join(number.to_string()))?;
        }
        let mut store =
            Self { kind, folder: Arc::new(folder.to_owned()), number: Arc::new(AtomicUsize::new(0)), log: None };
        if kind == Kind::Log {
            let (sender, waiting) = mpsc::channel();
            let file = File::create(folder.join("log"))?;
            std::thread::spawn(move || append(file, &waiting));
            store.log = Some(sender);
        }
        Ok(store)
    }

    pub(super) async fn keep(&self, message: Vec<u8>) -> Result<()> {
        match self.kind {
            Kind::None => Ok(()),
            Kind::Crypt => seal(&message).map(|sealed| drop(std::hint::black_box(sealed))),
            Kind::File | Kind::Sealed => {
                let (folder, number) = (Arc::clone(&self.folder), self.number.fetch_add(1, Ordering::Relaxed));
                let sealed = self.kind == Kind::Sealed;
                let work = move || match sealed {
                    true => file(&folder, number, &seal(&message)?),
                    false => file(&folder, number, &message),
                };
                tokio::task::spawn_blocking(work).await?
            }
            Kind::Log => {
                let (done, synced) = oneshot::channel();
                let log = self.log.as_ref().context("a log")?;
                log.send((seal(&message)?, done)).map_err(|_| anyhow!("the log has ended"))?;
                Ok(synced.await?)
            }
        }
    }
}

fn file(folder: &Path, number: usize, octets: &[u8]) -> Result<()> {
    let folder = folder.join((number % FOLDERS).to_string());
    let (from, to) = (folder.join(format!("tmp.{number}")), folder.join(number.to_string()));
    let mut file = File::create(&from)?;
    file.write_all(octets)?;
    file.sync_all()?;
    drop(file);
    fs::rename(from, to)?;
    Ok(File::open(folder)?.sync_all()?)
}

fn append(mut file: File, waiting: &mpsc::Receiver<(Vec<u8>, oneshot::Sender<()>)>) {
    let mut write = |octets: &[u8]| file.write_all(octets).and_then(|()| file.sync_data());
    while let Ok((mut batch, done)) = waiting.recv() {
        let mut answers = vec![done];
        while batch.len() < BATCH
            && let Ok((octets, done)) = waiting.try_recv()
        {
            batch.extend_from_slice(&octets);
            answers.push(done);
        }
        if let Err(error) = write(&batch) {
            eprintln!("the log cannot be written: {error}");
            return;
        }
        // Whoever asked may be gone.
        for done in answers {
            let _ = done.send(());
        }
    }
}

/// ChaCha20-Poly1305 in blocks of 64 KiB, each with its tag; the same implementation that age uses.
fn seal(message: &[u8]) -> Result<Vec<u8>> {
    let cipher = ChaCha20Poly1305::new(&Key::from([7; 32]));
    let mut sealed = Vec::with_capacity(message.len() + (message.len() / BLOCK + 1) * 16);
    for (number, block) in message.chunks(BLOCK).enumerate() {
        let start = sealed.len();
        sealed.extend_from_slice(block);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), &[], (&mut sealed[start..]).into());
        sealed.extend_from_slice(&tag.map_err(|_| anyhow!("sealing failed"))?);
    }
    Ok(sealed)
}
