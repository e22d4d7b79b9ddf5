//! A whole SMTP session over a pipe with a real spool: what is opened afterwards is what was sent.

use postkeep_gateway::{
    config::{CertificateSource, TlsConfig},
    mailbox::Mailbox,
    smtp::{self, Context, Settings},
    sources::Sources,
    spool::Spool,
    tls::{Certificates, Protocol},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    receipt::parse_trace,
    run::{Shutdown, ShutdownTrigger},
};
use std::{io::Read as _, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};

struct Gateway {
    context: Arc<Context>,
    mailboxes: Vec<(Mailbox, postkeep_shared::crypt::Password)>,
    trigger: ShutdownTrigger,
    shutdown: Shutdown,
    folder: tempfile::TempDir,
}

impl Gateway {
    fn start(max_message_size: u64) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        let (spool, _) = Spool::open(folder.path(), "gw.example", Arc::clone(&disk)).expect("opens");
        let names = ["gw.example".to_owned()];
        let source = TlsConfig { source: CertificateSource::SelfSigned };
        let certificates = Certificates::load(&source, folder.path(), &names, disk).expect("certificate");
        let settings = Settings {
            hostname: "gw.example".into(),
            domains: names.to_vec(),
            max_message_size,
            require_tls: false,
            command_timeout: Duration::from_secs(20),
            data_timeout: Duration::from_secs(20),
            transaction_timeout: Duration::from_secs(600),
            rate_grace: Duration::from_secs(60),
            minimum_rate: 500,
        };
        let made = (0..2).map(|_| spool.mailboxes().create("", None).expect("creates"));
        let mailboxes = made.map(|(mailbox, password)| (mailbox, password.expect("generated"))).collect();
        let tls = Some(certificates.acceptor(Protocol::Smtp).expect("acceptor"));
        let (trigger, shutdown) = ShutdownTrigger::new();
        Self {
            context: Arc::new(Context {
                spool,
                settings,
                tls,
                sources: Arc::new(Sources::none()),
                counters: Arc::default(),
            }),
            mailboxes,
            trigger,
            shutdown,
            folder,
        }
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(1 << 20);
        let peer = "192.0.2.7:4711".parse().expect("address");
        let session = smtp::serve(Box::new(server), peer, Arc::clone(&self.context), self.shutdown.clone(), None);
        (client, tokio::spawn(session))
    }

    /// Sends everything at once, reads to the end.
    async fn talk(&self, octets: &[u8]) -> String {
        let (mut client, session) = self.connect();
        client.write_all(octets).await.expect("writes");
        client.shutdown().await.expect("half-closes");
        let mut replies = String::new();
        client.read_to_string(&mut replies).await.expect("reads");
        session.await.expect("no panic");
        replies
    }

    fn rcpt(&self, i: usize) -> String {
        format!("RCPT TO:<{}@GW.example>\r\n", self.mailboxes[i].0.id)
    }

    fn waiting(&self, i: usize) -> Vec<Vec<u8>> {
        let (mailbox, password) = &self.mailboxes[i];
        let identity = mailbox.unlock(password).expect("unlocks");
        let drop = self.context.spool.open_session(mailbox).expect("opens");
        (0..drop.list().len())
            .map(|n| {
                let mut octets = Vec::new();
                drop.open(n, &identity).expect("opens").read_to_end(&mut octets).expect("reads");
                let trace = parse_trace(&octets).expect("trace header");
                octets.split_off(trace.len)
            })
            .collect()
    }

    fn temporary_files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
        }
        let spool = std::fs::read_dir(self.folder.path().join("spool")).into_iter().flatten().flatten();
        spool.map(|mailbox| count(&mailbox.path().join("tmp"))).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_data_and_bdat_come_out_as_sent() {
    let gateway = Gateway::start(1 << 20);
    let envelope = format!("MAIL FROM:<a@b.example>\r\n{}", gateway.rcpt(0));
    let exact = b"Subject: x\n\nbare\nNUL \0 \xff\r\n.\r\nCR\r end";
    let (second, chunk) = (gateway.rcpt(1), format!("BDAT {} LAST\r\n", exact.len()));
    let dialogue = [
        b"EHLO c\r\n".as_slice(),
        envelope.as_bytes(),
        b"DATA\r\n..dot\r\n\r\nbody\r\n.\r\n",
        envelope.as_bytes(),
        second.as_bytes(),
        second.as_bytes(),
        chunk.as_bytes(),
        exact,
        b"QUIT\r\n",
    ];
    let replies = gateway.talk(&dialogue.concat()).await;
    assert!(replies.ends_with("221 2.0.0 Goodbye\r\n"), "{replies}");
    assert_eq!(replies.matches(" accepted\r\n").count(), 2, "{replies}");
    assert_eq!(replies.matches("seq=").count(), 3, "{replies}");
    assert_eq!(gateway.waiting(0), [b".dot\r\n\r\nbody\r\n".to_vec(), exact.to_vec()]);
    assert_eq!(gateway.waiting(1), [exact.to_vec()]);
    assert_eq!(gateway.temporary_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_leaves_nothing() {
    let gateway = Gateway::start(1 << 20);
    let start = format!("HELO c\r\nMAIL FROM:<>\r\n{}DATA\r\n{}", gateway.rcpt(0), "x".repeat(200_000));
    for octets in [start.clone(), format!("{start}\r\n."), format!("{start}\r\n.\r")] {
        let replies = gateway.talk(octets.as_bytes()).await;
        assert!(!replies.contains("accepted"), "{replies}");
    }
    let big = format!("HELO c\r\nMAIL FROM:<>\r\n{}DATA\r\n{}\r\n.\r\nQUIT\r\n", gateway.rcpt(0), "x".repeat(1 << 20));
    let replies = gateway.talk(big.as_bytes()).await;
    assert!(replies.contains("552 5.3.4 ") && replies.ends_with("221 2.0.0 Goodbye\r\n"), "{replies}");
    assert!(gateway.waiting(0).is_empty());
    assert_eq!(gateway.temporary_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_behind_starttls_are_never_run() {
    let gateway = Gateway::start(1 << 20);
    let replies = gateway.talk(b"EHLO c\r\nSTARTTLS\r\nEHLO again\r\n").await;
    assert!(replies.ends_with("250 STARTTLS\r\n"), "{replies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_tells_an_idle_client() {
    let gateway = Gateway::start(1 << 20);
    let (mut client, session) = gateway.connect();
    let mut greeting = [0; 64];
    let count = client.read(&mut greeting).await.expect("reads");
    assert!(greeting[..count].starts_with(b"220 "));
    gateway.trigger.fire();
    let mut replies = String::new();
    client.read_to_string(&mut replies).await.expect("reads");
    session.await.expect("no panic");
    assert_eq!(replies, "421 4.3.2 Stopping for maintenance; try again later\r\n");
}
