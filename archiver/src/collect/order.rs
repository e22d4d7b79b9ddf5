//! The order of one round as disk and server saw it, and whether this check notices a missing or late step.
//!
//! What must stand between the octets of a message and its DELE: the pack synced and both its names, the record written
//! behind that and synced, and both read again past the page cache. A power cut does not show every missing step
//! (`docs/durability.md`); this does.

use super::{
    Prepared, Rounds,
    hostile::{Identity, archive, identity, message},
    samples,
};
use crate::archive::Archive;
use data_encoding::{BASE64, HEXLOWER};
use postkeep_shared::{
    disk::{
        Disk, LocalDisk,
        faulty::{Done, FaultyDisk, Operation},
    },
    run::ShutdownTrigger,
    wire::DotEncoder,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What is done to a step of the protocol.
#[derive(Clone, Copy)]
enum Change {
    Omit(Operation, &'static str),
    /// Done only when the server has heard DELE.
    Late(Operation, &'static str),
}

/// Every step, left out or late, and what the check must say.
const MUTANTS: &[(Change, &str)] = &[
    (Change::Omit(Operation::Sync, ".pack"), "no sync of the pack"),
    (Change::Omit(Operation::SyncDir, "/packs/"), "no sync of the pack's directory"),
    (Change::Omit(Operation::SyncDir, "/packs"), "no sync of the directory of packs"),
    (Change::Omit(Operation::Sync, ".rec"), "no sync of the record"),
    (Change::Omit(Operation::SyncDir, "/records"), "no sync of the directory of records"),
    (Change::Omit(Operation::DropCache, ".rec"), "no dropped cache of the record"),
    (Change::Omit(Operation::Read, ".rec"), "no read-back of the record"),
    (Change::Omit(Operation::DropCache, ".pack"), "no dropped cache of the pack"),
    (Change::Omit(Operation::Read, ".pack"), "no read-back of the pack"),
    (Change::Late(Operation::Sync, ".pack"), "DELE before the sync of the pack"),
    (Change::Late(Operation::SyncDir, "/packs/"), "DELE before the sync of the pack's directory"),
    (Change::Late(Operation::Sync, ".rec"), "DELE before the sync of the record"),
    (Change::Late(Operation::SyncDir, "/records"), "DELE before the sync of the directory of records"),
];

/// What was done, and where the first DELE came.
struct Log {
    done: Vec<Done>,
    dele: usize,
}

impl Log {
    fn new(done: Vec<Done>) -> Result<Self, String> {
        let is_dele = |d: &Done| d.operation == Operation::Note && d.path.to_string_lossy().starts_with("DELE");
        let dele = done.iter().position(is_dele).ok_or("no DELE")?;
        Ok(Self { done, dele })
    }

    /// The place behind the first operation of this kind from `from` on; it must come before the first DELE.
    fn after(
        &self,
        from: usize,
        operation: Operation,
        what: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<usize, String> {
        let found = |d: &Done| d.operation == operation && fits(&d.path.to_string_lossy());
        match self.done.iter().skip(from).position(found) {
            Some(at) if from + at < self.dele => Ok(from + at + 1),
            Some(_) => Err(format!("DELE before the {what}")),
            None => Err(format!("no {what}")),
        }
    }

    /// The last write to a file with this ending before the first DELE.
    fn last_write(&self, ending: &str) -> Result<usize, String> {
        let before = self.done.get(..self.dele).unwrap_or_default();
        let is_it = |d: &Done| d.operation == Operation::Write && d.path.to_string_lossy().ends_with(ending);
        before.iter().rposition(is_it).ok_or(format!("nothing was written to a {ending} file"))
    }

    /// Everything that has to stand between the octets of a message and its DELE.
    fn is_kept(&self) -> Result<(), String> {
        let written = self.last_write(".pack")?;
        let recorded = self.last_write(".rec")?;
        let pack = |p: &str| p.ends_with(".pack");
        let record = |p: &str| p.ends_with(".rec");
        let synced = self.after(written, Operation::Sync, "sync of the pack", pack)?;
        // Names may come before content; a pack that another process began is named by this one again.
        let is_new = |d: &Done| d.operation == Operation::Create && pack(&d.path.to_string_lossy());
        let from = self.done.iter().position(is_new).unwrap_or(0);
        let root = self.after(from, Operation::SyncDir, "sync of the directory of packs", |p| p.ends_with("/packs"))?;
        let named = self.after(from, Operation::SyncDir, "sync of the pack's directory", |p| p.contains("/packs/"))?;
        if synced.max(root).max(named) > recorded {
            return Err("the record was written before its pack was on the disk".into());
        }
        self.after(0, Operation::SyncDir, "sync of the directory of records", |p| p.ends_with("/records"))?;
        let committed = self.after(recorded, Operation::Sync, "sync of the record", record)?;
        let dropped = self.after(committed, Operation::DropCache, "dropped cache of the record", record)?;
        self.after(dropped, Operation::Read, "read-back of the record", record)?;
        let dropped = self.after(committed, Operation::DropCache, "dropped cache of the pack", pack)?;
        self.after(dropped, Operation::Read, "read-back of the pack", pack).map(drop)
    }
}

/// A server with messages 1 to `count` that removes what it is told to at QUIT and notes when it was told.
async fn serve(listener: &TcpListener, identity: &Identity, disk: &FaultyDisk, waiting: &mut BTreeSet<usize>) {
    let (tcp, _) = listener.accept().await.expect("accepts");
    let stream = TlsAcceptor::from(Arc::clone(&identity.config)).accept(tcp).await.expect("handshake");
    let mut stream = BufReader::new(stream);
    let numbers: Vec<usize> = waiting.iter().copied().collect();
    let messages: Vec<_> = numbers.iter().map(|n| message(&n.to_string())).collect();
    let last = numbers.last().copied().unwrap_or(0);
    let all = |line: &dyn Fn(usize) -> String| (0..messages.len()).map(line).collect::<String>();
    let mut marked = BTreeSet::new();
    let mut answer = "+OK ready\r\n".as_bytes().to_vec();
    loop {
        stream.write_all(&answer).await.expect("writes");
        stream.flush().await.expect("flushes");
        let mut line = String::new();
        if stream.read_line(&mut line).await.expect("reads") == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (word, number) = (words.next().unwrap_or_default(), words.next().and_then(|n| n.parse::<usize>().ok()));
        answer = match (word, number) {
            ("CAPA", _) => "+OK\r\nXLEDGER\r\n.\r\n".into(),
            ("XLEDGER", from) => {
                let entries: String = (from.unwrap_or(1)..=last)
                    .map(|n| BASE64.encode(&message(&n.to_string()).1.encode()) + "\r\n")
                    .collect();
                format!("+OK node={} entries follow\r\n{entries}.\r\n", HEXLOWER.encode(&samples::node().0)).into()
            }
            ("STAT", _) => {
                let octets: usize = messages.iter().map(|(octets, _)| octets.len()).sum();
                format!("+OK {} {octets}\r\n", messages.len()).into()
            }
            ("LIST", _) => {
                let lines = all(&|i| format!("{} {}\r\n", i + 1, messages[i].0.len()));
                format!("+OK\r\n{lines}.\r\n").into()
            }
            ("UIDL", _) => {
                let lines = all(&|i| format!("{} {}\r\n", i + 1, messages[i].1.body.uidl));
                format!("+OK\r\n{lines}.\r\n").into()
            }
            ("RETR", Some(number)) => {
                let (mut out, mut encoder) = (b"+OK message follows\r\n".to_vec(), DotEncoder::default());
                encoder.encode(&messages[number - 1].0, &mut out);
                encoder.finish(&mut out);
                out
            }
            ("DELE", Some(number)) => {
                disk.note(&format!("DELE {number}"));
                disk.carry_out().expect("carries out");
                marked.insert(numbers[number - 1]);
                "+OK\r\n".into()
            }
            ("QUIT", _) => {
                waiting.retain(|n| !marked.contains(n));
                stream.write_all(b"+OK\r\n").await.expect("writes");
                stream.flush().await.expect("flushes");
                return;
            }
            _ => "+OK\r\n".into(),
        };
    }
}

/// An archive, its server and the disk between them.
struct Scene {
    folder: tempfile::TempDir,
    identity: Identity,
    listener: TcpListener,
    disk: FaultyDisk,
    waiting: BTreeSet<usize>,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let (folder, identity) = (tempfile::tempdir().expect("temporary folder"), identity("msgw.example", false));
        archive(folder.path(), listener.local_addr().expect("address").port(), identity.pin);
        let (disk, waiting) = (FaultyDisk::new(Arc::new(LocalDisk)), BTreeSet::new());
        Self { folder, identity, listener, disk, waiting }
    }

    fn config(&self) -> crate::config::ArchiverConfig {
        crate::config::ArchiverConfig::load(&self.folder.path().join("c.toml")).expect("valid")
    }

    /// One round of a new process; what was done, and what it has to say.
    async fn round(&mut self) -> (Vec<Done>, Vec<String>) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        drop(self.disk.take_done());
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let config = self.config();
        let rounds = Rounds::open(config.clone(), &disk, shutdown).expect("opens");
        let prepared = Prepared::new(&config.sources[0], &*disk).expect("prepared");
        let serving = serve(&self.listener, &self.identity, &self.disk, &mut self.waiting);
        let ((), report) = tokio::join!(serving, rounds.round(&prepared));
        let report = report.expect("a round");
        (self.disk.take_done(), report.hosts[0].problems.clone())
    }

    /// The messages in the store, each read whole by another process.
    fn stored(&self) -> Vec<String> {
        let (config, disk): (_, Arc<dyn Disk>) = (self.config(), Arc::new(LocalDisk));
        let store = Archive::open_read(&config, &disk).expect("opens");
        let names: Vec<_> = store.collected("s").map(|one| one.expect("reads").uidl).collect();
        let mailbox = samples::MAILBOX.to_string();
        for name in &names {
            store.read_report("s", Some(&mailbox), name, &mut std::io::sink()).expect("reads and compares");
        }
        names
    }
}

/// Two rounds, of an empty archive and of one that goes on, under a change; what the check says of both.
async fn observed(change: Option<Change>) -> [Result<(), String>; 2] {
    let mut scene = Scene::new().await;
    match change {
        Some(Change::Omit(operation, path)) => scene.disk.omit(operation, path),
        Some(Change::Late(operation, path)) => scene.disk.put_off(operation, path),
        None => {}
    }
    let mut verdicts = [Ok(()), Ok(())];
    for (verdict, numbers) in verdicts.iter_mut().zip([1..=2, 3..=5]) {
        scene.waiting.extend(numbers);
        let (done, problems) = scene.round().await;
        assert!(problems.is_empty() && scene.waiting.is_empty(), "{problems:?}");
        *verdict = Log::new(done).and_then(|log| log.is_kept());
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_or_late_step_is_noticed() {
    assert_eq!(observed(None).await, [Ok(()), Ok(())]);
    for (change, says) in MUTANTS {
        let said = Err((*says).to_owned());
        assert_eq!(observed(Some(*change)).await, [said.clone(), said]);
    }
    println!("order of a round: as promised; {0} of {0} mutants noticed", MUTANTS.len());
}

/// A disk that said "synced" and has nothing: only the read-back past the page cache can know. Nothing is deleted then,
/// and with the next round everything is there once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_that_cannot_be_read_back() {
    let mut scene = Scene::new().await;
    scene.waiting.extend(1..=3);
    scene.disk.lose(".pack", 64);
    let (done, problems) = scene.round().await;
    assert!(Log::new(done).is_err(), "a DELE was sent");
    assert_eq!(problems.iter().filter(|p| p.contains("could not be read back")).count(), 3, "{problems:?}");
    assert_eq!(scene.waiting.len(), 3);

    scene.disk = FaultyDisk::new(Arc::new(LocalDisk));
    let (done, problems) = scene.round().await;
    assert!(scene.waiting.is_empty(), "{problems:?}");
    assert_eq!(Log::new(done).and_then(|log| log.is_kept()), Ok(()));
    println!("octets lost by the disk: 3 messages, 0 deleted, 3 fetched again and deleted then");
    let names = scene.stored();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
}
