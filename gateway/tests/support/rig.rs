//! A real gateway in this process on loopback, and a client that knows only what a test tells it.

use postkeep_gateway::{
    config::GatewayConfig,
    mailbox::Mailbox,
    server::{self, Kind, Running},
    spool::{Origin, Spool},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::ShutdownTrigger,
    tls::{VERSIONS, provider},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

pub(crate) const NAME: &str = "msgw.archive.example";

/// A mailbox and its password.
pub(crate) struct Access {
    pub(crate) mailbox: Mailbox,
    pub(crate) password: String,
}

/// The folder with configuration and data.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    config: GatewayConfig,
    pub(crate) access: Vec<Access>,
}

/// A running server.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) trigger: ShutdownTrigger,
}

impl Rig {
    /// Two mailboxes; the first one has `messages`. `settings` goes into `[pop3]`.
    pub(crate) async fn new(settings: &str, messages: &[&[u8]]) -> Self {
        Self::with("", settings, messages).await
    }

    /// The same with lines for `[smtp]` and `[pop3]`.
    pub(crate) async fn with(smtp: &str, settings: &str, messages: &[&[u8]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postkeep-gateway.toml");
        let text = format!(
            "hostname = '{NAME}'\n[smtp]\nlisten = ['127.0.0.1:0']\nmax_connections_per_ip = 500\n{smtp}\n\
             [pop3]\nlisten = ['127.0.0.1:0']\nlisten_tls = ['127.0.0.1:0']\nmax_connections_per_ip = 150\n{settings}\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = GatewayConfig::load(&file).unwrap();
        postkeep_shared::disk::create_dirs(&LocalDisk, &config.data_dir).unwrap();
        let (spool, _) = Spool::open(&config.data_dir, NAME, Arc::new(LocalDisk)).unwrap();
        let made = (0..2).map(|_| {
            let (mailbox, password) = spool.mailboxes().create("test", None).unwrap();
            Access { mailbox, password: String::from_utf8(password.unwrap().expose().to_vec()).unwrap() }
        });
        let access: Vec<Access> = made.collect();
        for (which, message) in messages.iter().map(|m| (0, *m)).chain([(1, b"Subject: other\r\n\r\n".as_slice())]) {
            let mailbox = &access[which].mailbox;
            let mut incoming = spool.begin(mailbox, &origin(mailbox)).unwrap();
            incoming.write(message).unwrap();
            spool.commit(vec![incoming]).await.unwrap();
        }
        spool.close();
        Self { folder, config, access }
    }

    pub(crate) async fn serve(&self, disk: Arc<dyn Disk>) -> Served {
        let (trigger, shutdown) = ShutdownTrigger::new();
        // Between two programs the kernel gives the lock up with the process. Within this one, a session of the server
        // before may hold the data directory a moment longer.
        for _ in 0..100 {
            match server::serve(self.config.clone(), Arc::clone(&disk), shutdown.clone()).await {
                Ok(running) => return Served { running, trigger },
                Err(failure) if failure.text.contains("in use by another") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(failure) => panic!("{failure}"),
            }
        }
        panic!("the data directory stays in use");
    }

    /// The sealed files of a mailbox, oldest first.
    pub(crate) fn files(&self, which: usize) -> Vec<PathBuf> {
        let new = self.config.data_dir.join(format!("spool/{}/new", self.access[which].mailbox.id));
        let mut files: Vec<PathBuf> = std::fs::read_dir(new).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    pub(crate) fn ledger(&self, which: usize) -> PathBuf {
        self.config.data_dir.join(format!("ledger/{}.ledger", self.access[which].mailbox.id))
    }

    /// Turns a connection into a TLS one; fails where the other side does not take part.
    pub(crate) async fn tls(&self, tcp: TcpStream) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        let certificate = self.config.data_dir.join("tls/self-signed.pem");
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).unwrap();
        let connector = TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await?;
        Ok(Client(BufReader::new(Box::new(stream))))
    }

    /// POP3 in TLS, logged in to a mailbox.
    pub(crate) async fn login(&self, served: &Served, which: usize) -> Client {
        let tcp = TcpStream::connect(served.address(Kind::Pop3s)).await.unwrap();
        let mut client = self.tls(tcp).await.unwrap();
        assert!(client.line().await.starts_with("+OK"));
        let Access { mailbox, password } = &self.access[which];
        client.ask(&format!("USER {}", mailbox.id)).await;
        let answer = client.ask(&format!("PASS {password}")).await;
        assert!(answer.starts_with("+OK"), "{answer}");
        client
    }
}

impl Served {
    pub(crate) fn address(&self, kind: Kind) -> SocketAddr {
        self.running.addresses.iter().find(|(k, _)| *k == kind).unwrap().1
    }

    pub(crate) async fn stop(self) {
        self.trigger.fire();
        self.running.wait().await.unwrap();
    }
}

pub(crate) fn origin(mailbox: &Mailbox) -> Origin {
    Origin {
        ip: [192, 0, 2, 1].into(),
        reverse_name: None,
        helo: "mail.example".into(),
        mail_from: String::new(),
        rcpt_to: format!("{}@{NAME}", mailbox.id),
        tls: None,
        certificate: None,
        verified: None,
        protocol: "ESMTP",
    }
}

pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(crate) struct Client(pub(crate) BufReader<Box<dyn Wire>>);

impl Client {
    pub(crate) async fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.0.write_all(octets).await?;
        self.0.flush().await
    }

    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes()).await.unwrap();
        self.line().await
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        assert_ne!(self.0.read_until(b'\n', &mut line).await.unwrap(), 0, "the server is gone");
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
