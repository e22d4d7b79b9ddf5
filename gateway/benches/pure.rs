//! The parts of the gateway between a socket and a disk: reading DATA and BDAT, sealing, opening, ledger entries.
//!
//! `cargo bench -p postkeep-gateway` times them; `postkeep-bench count` counts their instructions. Sealing and opening
//! work on files, unsynced, since that is how they are used.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput};
use ed25519_dalek::SigningKey;
use postkeep_bench::{
    corpus,
    subject::{Subject, once},
};
use postkeep_gateway::{
    mailbox::{Identity, Mailbox, Mailboxes},
    smtp::{Config, Event, Found, Smtp},
    spool::{Maildrop, Origin, Spool},
};
use postkeep_shared::{
    disk::LocalDisk,
    mail::{Digest, MailboxId, Uidl},
    receipt::{EntryBody, Event as LedgerEvent, Flags},
    wire::{DotDecoder, DotEncoder, Machine as _, Step},
};
use std::{hint::black_box, io::Read as _, sync::Arc};

fn main() {
    let report = report();
    let place = Place::new(&report);
    let mut subjects = subjects(&report, &place);
    if once(&mut subjects) {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("gateway");
    for subject in &mut subjects {
        group.throughput(Throughput::Bytes(subject.octets));
        group.bench_function(subject.name, |bencher| bencher.iter(&mut subject.work));
    }
    group.finish();
    criterion.final_summary();
}

/// A report of some 300 KB, so that sealing takes several blocks.
fn report() -> Vec<u8> {
    let large = corpus::reports(corpus::SEED, 100).map(|report| report.octets).find(|octets| octets.len() > 250_000);
    large.expect("the corpus has one among its first")
}

fn subjects<'a>(report: &'a [u8], place: &'a Place) -> Vec<Subject<'a>> {
    let mut wire = Vec::new();
    let mut encoder = DotEncoder::default();
    encoder.encode(report, &mut wire);
    encoder.finish(&mut wire);
    let chunk = [format!("BDAT {} LAST\r\n", report.len()).as_bytes(), report].concat();
    let data = [b"DATA\r\n".as_slice(), &wire].concat();
    let decoded = wire.clone();
    let key = SigningKey::from_bytes(&[7; 32]);
    let entry = body().sign(&key);
    vec![
        Subject::new("dot decoding", report.len(), move || {
            let mut out = Vec::with_capacity(64 * 1024);
            let mut decoder = DotDecoder::default();
            for piece in decoded.chunks(16 * 1024) {
                out.clear();
                decoder.decode(piece, &mut out);
                black_box(&out);
            }
        }),
        Subject::new("DATA through the machine", report.len(), move || through(&data)),
        Subject::new("BDAT through the machine", report.len(), move || through(&chunk)),
        Subject::new("sealing", report.len(), || {
            let mut incoming = place.spool.begin(&place.mailbox, &origin()).unwrap();
            report.chunks(64 * 1024).for_each(|block| incoming.write(block).unwrap());
            incoming
        }),
        Subject::new("opening", report.len(), || {
            let mut reader = place.maildrop.open(0, &place.identity).unwrap();
            let mut block = vec![0; 64 * 1024];
            while reader.read(&mut block).unwrap() > 0 {
                black_box(&block);
            }
        }),
        Subject::new("ledger entry, signed", 276, move || body().sign(&key).encode()),
        Subject::new("ledger entry, verified", 276, move || entry.verify()),
    ]
}

/// Feeds a session up to the end of its message in the pieces a socket gives; octets of content that came out.
fn through(message: &[u8]) -> usize {
    let config = Config {
        hostname: "gw.example".into(),
        domains: vec!["gw.example".into()],
        max_message_size: 320 << 20,
        offer_tls: false,
        require_tls: false,
        tls: false,
    };
    let mut machine = Smtp::new(config);
    let recipient = MailboxId([7; 16]);
    machine.input(format!("EHLO a.example\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}@gw.example>\r\n").as_bytes());
    let (mut content, mut pieces) = (0, message.chunks(16 * 1024));
    loop {
        match machine.next().unwrap() {
            Step::NeedInput => machine.input(pieces.next().unwrap()),
            Step::Event(Event::Room(_)) => machine.room(Ok(())),
            Step::Event(Event::Lookup(_)) => machine.found(Found::Active),
            Step::Event(Event::Begin) => machine.begun(Ok(())),
            Step::Event(Event::Content(block)) => {
                content += block.len();
                machine.written(Ok(()));
            }
            Step::Event(Event::Commit) => return content,
            _ => {}
        }
    }
}

/// A spool with one message in it.
struct Place {
    spool: Spool,
    mailbox: Mailbox,
    identity: Identity,
    maildrop: Maildrop,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new(report: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk)).unwrap();
        let (mailbox, password) = all.create("bench", None).unwrap();
        let identity = mailbox.unlock(&password.unwrap()).unwrap();
        let (spool, _) = Spool::open(folder.path(), "gw.example", Arc::new(LocalDisk)).unwrap();
        let mut incoming = spool.begin(&mailbox, &origin()).unwrap();
        incoming.write(report).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(spool.commit(vec![incoming])).unwrap();
        let maildrop = spool.open_session(&mailbox).unwrap();
        Self { spool, mailbox, identity, maildrop, _folder: folder }
    }
}

fn origin() -> Origin {
    Origin {
        ip: "192.0.2.7".parse().unwrap(),
        reverse_name: None,
        helo: "mail.example".into(),
        mail_from: String::new(),
        rcpt_to: "mbx@gw.example".into(),
        tls: Some("TLSv1.3".into()),
        certificate: None,
        verified: None,
        protocol: "ESMTPS",
    }
}

fn body() -> EntryBody {
    EntryBody {
        event: LedgerEvent::Accepted,
        flags: Flags::default(),
        seq: 4711,
        time_ms: 1_787_040_000_000,
        mailbox: MailboxId([7; 16]),
        uidl: Uidl([7; 16]),
        size: 30_000,
        sealed_content: 31_000,
        refers_to: 0,
        sealed_sha256: Digest([7; 32]),
        digest: Digest([8; 32]),
        prev: Digest([9; 32]),
    }
}
