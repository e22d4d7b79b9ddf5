use super::*;
use crate::spool::{Origin, Spool};
use postkeep_shared::{disk::LocalDisk, receipt::Entry};

struct Data {
    folder: tempfile::TempDir,
    id: MailboxId,
    entries: Vec<Entry>,
}

impl Data {
    /// Four accepted messages, the first removed.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (spool, _) = Spool::open(folder.path(), "gw.example", Arc::new(LocalDisk)).expect("opens");
        let (mailbox, _) = spool.mailboxes().create("", None).expect("makes");
        let origin = Origin {
            ip: "192.0.2.7".parse().expect("address"),
            reverse_name: None,
            helo: "x".into(),
            mail_from: String::new(),
            rcpt_to: "y".into(),
            tls: None,
            certificate: None,
            verified: None,
            protocol: "ESMTP",
        };
        let mut entries = Vec::new();
        for i in 0..4 {
            let mut incoming = spool.begin(&mailbox, &origin).expect("begins");
            incoming.write(format!("message {i}\r\n").as_bytes()).expect("writes");
            entries.push(spool.commit(vec![incoming]).await.expect("commits")[0].entry().clone());
        }
        spool.open_session(&mailbox).expect("opens").remove(&[0]).await.expect("removes");
        spool.close();
        Self { folder, id: mailbox.id, entries }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.folder.path())
    }

    fn verifier(&self) -> Verifier {
        let mailboxes = Mailboxes::existing(self.folder.path(), Arc::new(LocalDisk)).expect("opens");
        Verifier::new(self.folder.path(), Arc::new(LocalDisk), mailboxes)
    }

    fn problems(&self) -> Vec<(ProblemKind, Option<u64>)> {
        self.verifier().run(None).expect("runs").problems.iter().map(|p| (p.kind, p.seq)).collect()
    }

    fn change_ledger(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.layout().ledger(self.id);
        let mut octets = std::fs::read(&path).expect("reads");
        change(&mut octets);
        std::fs::write(&path, octets).expect("writes");
    }

    fn file(&self, i: usize) -> PathBuf {
        self.layout().message(self.id, Folder::New, self.entries[i].body.uidl)
    }
}

#[tokio::test]
async fn a_sound_spool_has_no_problems() {
    let data = Data::new().await;
    let outcome = data.verifier().run(None).expect("runs");
    assert_eq!((outcome.messages, outcome.problems.len()), (3, 0));
    let summary = data.verifier().summary(data.id).expect("counts");
    assert_eq!((summary.messages, summary.accepted, summary.removed), (3, 4, 1));
    assert_eq!(summary.bytes, 3 * 11);
    let unknown = data.verifier().summary(MailboxId([0; 16])).expect("counts");
    assert_eq!(unknown, Summary::default());
}

#[tokio::test]
async fn a_changed_or_resigned_entry_breaks_the_chain() {
    let data = Data::new().await;
    let at = 64 + postkeep_shared::receipt::ENTRY_LEN;
    data.change_ledger(|octets| octets[at + 40] ^= 1);
    assert_eq!(data.problems()[0], (ProblemKind::DamagedEntry, Some(2)));

    // Another signed entry in its place, checksum and all.
    let data = Data::new().await;
    let node = crate::node::Node::load(data.folder.path(), &LocalDisk).expect("reads");
    let body = postkeep_shared::receipt::EntryBody { time_ms: 1, ..data.entries[1].body.clone() };
    let other = body.clone().sign(node.signing_key());
    data.change_ledger(|octets| octets[at..at + other.encode().len()].copy_from_slice(&other.encode()));
    assert_eq!(data.problems(), [(ProblemKind::BrokenChain, Some(3))]);

    let stranger = body.sign(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
    data.change_ledger(|octets| octets[at..at + stranger.encode().len()].copy_from_slice(&stranger.encode()));
    assert_eq!(data.problems(), [(ProblemKind::WrongSignature, Some(2)), (ProblemKind::BrokenChain, Some(3))]);

    // An entry taken out.
    let data = Data::new().await;
    data.change_ledger(|octets| drop(octets.drain(at..at + postkeep_shared::receipt::ENTRY_LEN)));
    assert_eq!(data.problems()[0], (ProblemKind::BrokenChain, Some(3)));
}

#[tokio::test]
async fn files_that_are_missing_damaged_swapped_or_unknown_are_named() {
    let data = Data::new().await;
    let whole = std::fs::read(data.file(2)).expect("reads");
    std::fs::remove_file(data.file(1)).expect("removes");
    std::fs::write(data.file(2), &whole[..whole.len() - 1]).expect("writes");
    std::fs::write(data.file(3), &whole).expect("writes");
    std::fs::write(data.layout().message(data.id, Folder::New, Uidl::now()), b"x").expect("writes");
    let mut found = data.problems();
    found.sort_unstable();
    let expected = [
        (ProblemKind::MissingFile, Some(2)),
        (ProblemKind::UnrecordedFile, None),
        (ProblemKind::DamagedFile, Some(3)),
        (ProblemKind::DamagedFile, Some(4)),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn torn_tails_foreign_ledgers_and_lost_definitions_are_named() {
    let data = Data::new().await;
    data.change_ledger(|octets| octets.extend([0; 400]));
    assert_eq!(data.problems(), [(ProblemKind::TornTail, Some(6))]);
    data.change_ledger(|octets| octets[0] = b'X');
    assert_eq!(data.problems(), [(ProblemKind::DamagedLedger, None)]);
    let data = Data::new().await;
    let definition = data.folder.path().join(format!("mailboxes/{}.toml", data.id));
    std::fs::write(&definition, "x").expect("writes");
    assert_eq!(data.problems(), [(ProblemKind::MailboxDefinition, None)]);
    std::fs::remove_file(&definition).expect("removes");
    assert_eq!(data.problems(), [(ProblemKind::MailboxDefinition, None)]);
}

#[tokio::test]
async fn everything_a_start_found_is_told() {
    let data = Data::new().await;
    // A crash: one half written, one without entry, one gone, one that is none, a torn end.
    let layout = data.layout();
    let (half, whole) = (Uidl::now(), Uidl::now());
    std::fs::write(layout.message(data.id, Folder::Tmp, half), b"half").expect("writes");
    std::fs::copy(data.file(3), layout.message(data.id, Folder::New, whole)).expect("copies");
    std::fs::rename(data.file(1), data.folder.path().join("elsewhere")).expect("renames");
    std::fs::write(layout.folder(data.id, Folder::New).join("stray"), b"?").expect("writes");
    data.change_ledger(|octets| octets.extend([7; 100]));
    let before = data.verifier().run(None).expect("runs");
    let mut kinds: Vec<&str> = before.problems.iter().map(|p| p.kind.name()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["missing-file", "torn-tail", "unrecorded-file", "unrecorded-file"]);
    assert_eq!(before.notes, []);

    let (spool, recovery) = Spool::open(data.folder.path(), "gw.example", Arc::new(LocalDisk)).expect("opens");
    spool.close();
    let after = data.verifier().run(None).expect("runs");
    let mut told: Vec<(NoteKind, Option<Uidl>)> = after.notes.iter().map(|n| (n.kind, n.uidl)).collect();
    told.sort_unstable();
    let expected = [
        (NoteKind::Recovered, Some(whole)),
        (NoteKind::Quarantined, None),
        (NoteKind::Quarantined, Some(half)),
        (NoteKind::CutTail, None),
    ];
    assert_eq!(told, expected);
    assert_eq!((recovery.adopted, recovery.quarantined), (1, 3));
    assert_eq!(
        after.problems.iter().map(|p| (p.kind, p.seq)).collect::<Vec<_>>(),
        [(ProblemKind::MissingFile, Some(2))]
    );
}
