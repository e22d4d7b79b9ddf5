//! The spool as a whole: round trips, damage, recovery, failing disks.

mod damage;
mod failing;
mod lines;
mod order;
mod read_only;
mod recovery;
mod round_trip;

use super::*;
use crate::mailbox::Identity;
use postkeep_shared::{crypt::Password, disk::LocalDisk, mail::Uidl, receipt::Entry};
use std::{io::Read as _, path::PathBuf};

const PASSWORD: &[u8] = b"correct horse battery";

/// A data directory with mailboxes whose key derivation is cheap enough for tests.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("temporary folder") }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> (Spool, Recovery) {
        self.open_on(Arc::new(LocalDisk))
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> (Spool, Recovery) {
        Spool::open(self.data(), "gw.example", disk).expect("opens")
    }

    fn mailbox(&self) -> (Mailbox, Identity) {
        let all = Mailboxes::open(self.data(), Arc::new(LocalDisk)).expect("opens");
        let (mailbox, password) = all.create("test", None).expect("makes");
        let identity = mailbox.unlock(&password.expect("made")).expect("unlocks");
        (mailbox, identity)
    }

    fn message(&self, mailbox: &Mailbox, folder: Folder, uidl: Uidl) -> PathBuf {
        Layout::new(self.data()).message(mailbox.id, folder, uidl)
    }

    fn ledger(&self, mailbox: &Mailbox) -> PathBuf {
        Layout::new(self.data()).ledger(mailbox.id)
    }

    fn names(&self, mailbox: &Mailbox, folder: Folder) -> Vec<String> {
        let folder = Layout::new(self.data()).folder(mailbox.id, folder);
        LocalDisk.list(&folder).unwrap_or_default().into_iter().map(|e| e.name).collect()
    }
}

fn origin() -> Origin {
    Origin {
        ip: "192.0.2.7".parse().expect("address"),
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

fn sealed(spool: &Spool, mailbox: &Mailbox, content: &[u8]) -> Incoming {
    let mut incoming = spool.begin(mailbox, &origin()).expect("begins");
    content.chunks(1000).for_each(|piece| incoming.write(piece).expect("writes"));
    incoming
}

async fn accept(spool: &Spool, mailbox: &Mailbox, content: &[u8]) -> Entry {
    let receipts = spool.commit(vec![sealed(spool, mailbox, content)]).await.expect("commits");
    receipts[0].entry().clone()
}

fn read(maildrop: &Maildrop, i: usize, identity: &Identity) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    maildrop.open(i, identity).map_err(std::io::Error::other)?.read_to_end(&mut out)?;
    Ok(out)
}

/// What follows the trace header.
fn message_of(octets: &[u8]) -> &[u8] {
    let trace = postkeep_shared::receipt::parse_trace(octets).expect("trace header");
    &octets[trace.len..]
}
