//! Listeners and their sessions: who is let in, who is told to wait, and how everything stops.
//!
//! One task per connection; a panic ends its own connection only. Stopping: no more connections, every session is
//! told, [`DRAIN`] is the longest wait; what was answered `250` is safe whenever the process ends. When storage has
//! failed the server stops by itself and says why.

mod limits;
mod listen;
mod presence;
mod spare;

pub(crate) use limits::network;
pub use limits::{Admitted, Limits, Refused};
pub use listen::{Kind, can_bind};
pub use presence::Presence;

use crate::{
    alarms::{self, GatewayAlarms},
    config::{CertificateSource, GatewayConfig},
    control,
    metrics::{Counters, Teller},
    pop3, smtp,
    sources::Sources,
    spool::{Spool, SpoolError},
    sync,
    tls::{
        self, Acceptor, Certificates, ClientAuthorities, Protocol, TlsError,
        acme::{Answers, Authority, Responder},
        clock::SystemClock,
        upkeep::{self, Renewal, Upkeep},
    },
};
use listen::{Listener, bind};
use postkeep_shared::{
    alarm::Alarms,
    disk::Disk,
    metrics::Told,
    run::{Failure, Shutdown, ShutdownTrigger},
};
use spare::{Shortage, Spare};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpStream, UnixListener},
    task::{JoinHandle, JoinSet},
};

/// Longest wait for sessions when the program stops.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Longest wait for the alarm that storage has failed to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Files beside the connections: the spool's, the ledger's, sixteen per message under way, the index.
const OTHER_FILES: u64 = 1024;

/// Connections of authorities at once, together and of one address: an order causes a handful.
const ACME_CONNECTIONS: (usize, usize) = (32, 8);

/// A running gateway.
pub struct Running {
    /// What listens where, with the real port where port 0 was asked for.
    pub addresses: Vec<(Kind, SocketAddr)>,
    /// The certificate in use.
    pub certificates: Arc<Certificates>,
    /// Whose certificates of clients are believed.
    pub authorities: Arc<ClientAuthorities>,
    /// Where trouble is told.
    pub alarms: Alarms,
    done: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Waits until the server has stopped.
    ///
    /// # Errors
    /// [`Failure`] when it stopped because storage failed.
    pub async fn wait(self) -> Result<(), Failure> {
        self.done.await.unwrap_or_else(|error| Err(Failure::cannot(format!("the server ended: {error}"))))
    }
}

/// What the listeners share.
struct Services {
    smtp: Arc<smtp::Context>,
    smtp_tls: Acceptor,
    smtp_limits: Limits,
    pop3: Arc<pop3::session::Context>,
    pop3_tls: Acceptor,
    pop3_limits: Limits,
    acme: Responder,
    acme_limits: Limits,
    counters: Arc<Counters>,
    teller: Arc<Teller>,
}

/// Opens the data directory, binds every address, and serves until `shutdown`.
///
/// # Errors
/// [`Failure`] with the address, file or directory and the remedy; nothing is left running.
pub async fn serve(config: GatewayConfig, disk: Arc<dyn Disk>, shutdown: Shutdown) -> Result<Running, Failure> {
    let mut names = vec![config.hostname.clone()];
    names.extend(config.domains.iter().filter(|domain| **domain != config.hostname).cloned());
    raise_file_limit(&config);
    // Ports first: whoever cannot have them must not touch the data of the one that has.
    let listeners = bind(&config)?;
    let (data_dir, hostname, spool_disk) = (config.data_dir.clone(), config.hostname.clone(), Arc::clone(&disk));
    let opened = tokio::task::spawn_blocking(move || Spool::open(&data_dir, &hostname, spool_disk)).await;
    let (spool, recovery) = opened.map_err(Failure::cannot)?.map_err(Failure::cannot)?;
    for problem in &recovery.problems {
        tracing::error!(?problem, "ALARM: found at start");
    }
    let (adopted, quarantined, waiting) = (recovery.adopted, recovery.quarantined, recovery.waiting);
    tracing::info!(waiting, adopted, quarantined, "spool is open");
    // On a disk that may only be read there can be no socket, and no order could be carried out.
    let orders = control::bind(&config.data_dir).inspect_err(|error| tracing::error!("ALARM: {error}")).ok();
    let peers = Peers::prepare(&config)?;
    let certificates = Arc::new(Certificates::load(&config.tls, &config.data_dir, &names, Arc::clone(&disk))?);
    let answers = Arc::new(Answers::default());
    let renewal = renewal(&config, &answers, Arc::clone(&disk))?;
    let upkeep = Upkeep::new(Arc::clone(&certificates), renewal, Arc::new(SystemClock));
    let authorities = Arc::new(authorities(&config, Arc::clone(&disk))?);
    let services = Arc::new(services(&config, &spool, &certificates, &authorities, answers)?);
    let desk = Desk::open(&config, &spool, &certificates, &disk);
    let alarms = desk.alarms.clone();
    let mut addresses = Vec::new();
    for listener in &listeners {
        addresses.push((listener.kind, listener.address()?));
    }
    Presence::announce(disk.as_ref(), &config.data_dir, &addresses);
    let done = tokio::spawn(run(listeners, services, (orders, peers), spool, (upkeep, desk), shutdown));
    Ok(Running { addresses, certificates, authorities, alarms, done })
}

/// Where trouble is told, and who looks for it.
struct Desk {
    alarms: Alarms,
    /// Fired last of all: until then alarms go out.
    trigger: ShutdownTrigger,
    task: JoinHandle<()>,
    settings: GatewayAlarms,
    certificates: Arc<Certificates>,
    disk: Arc<dyn Disk>,
    data_dir: std::path::PathBuf,
}

impl Desk {
    /// Reads what was told before. The spool's lock is held.
    fn open(config: &GatewayConfig, _lock: &Spool, certificates: &Arc<Certificates>, disk: &Arc<dyn Disk>) -> Self {
        let (trigger, stopping) = ShutdownTrigger::new();
        let settings = config.alarms.clone();
        let (mailer, who) = (settings.mailer(&config.dns.servers), GatewayAlarms::who(&config.hostname));
        let (alarms, task) =
            Alarms::start(settings.shared.clone(), mailer, &[], who, &config.data_dir, Arc::clone(disk), stopping);
        let (certificates, disk, data_dir) = (Arc::clone(certificates), Arc::clone(disk), config.data_dir.clone());
        Self { alarms, trigger, task, settings, certificates, disk, data_dir }
    }

    /// Looks for trouble until `stopping`.
    fn watch(&self, spool: &Spool, stopping: Shutdown) -> impl Future<Output = ()> + Send + 'static {
        let (settings, alarms, spool) = (self.settings.clone(), self.alarms.clone(), spool.clone());
        let (certificates, disk, data_dir) =
            (Arc::clone(&self.certificates), Arc::clone(&self.disk), self.data_dir.clone());
        alarms::run(settings, alarms, spool, certificates, disk, data_dir, stopping)
    }

    /// Storage has failed: told now, for nobody knows whether there is a next start.
    async fn failed(&self, reason: &str) {
        self.alarms.raise(alarms::stopped(&self.data_dir.display().to_string(), reason));
        self.alarms.last_words(LAST_WORDS).await;
    }

    async fn close(self) {
        self.trigger.fire();
        if let Err(error) = self.task.await {
            tracing::error!("alarms ended before: {error}");
        }
    }
}

/// What is needed to keep definitions equal with other nodes.
struct Peers {
    config: sync::SyncConfig,
    key: Arc<sync::SyncKey>,
    acceptor: tokio_rustls::TlsAcceptor,
    data_dir: std::path::PathBuf,
}

impl Peers {
    /// `None` where nothing is synced.
    fn prepare(config: &GatewayConfig) -> Result<Option<Self>, Failure> {
        let Some(file) = config.sync.key_file.as_ref().filter(|_| config.sync.is_used()) else { return Ok(None) };
        let key = sync::SyncKey::load(file, &postkeep_shared::disk::LocalDisk)?;
        let acceptor = key.acceptor().map_err(Failure::cannot)?;
        let (config, data_dir) = (config.sync.clone(), config.data_dir.clone());
        Ok(Some(Self { config, key: Arc::new(key), acceptor, data_dir }))
    }
}

/// Every connection is a file; the soft limit most systems start with (1,024) is not what was configured.
fn raise_file_limit(config: &GatewayConfig) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = (config.smtp.max_connections + config.pop3.max_connections) as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let possible = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum });
    if raised.is_err() || possible < needed {
        tracing::warn!(needed, possible, "fewer open files are allowed than max_connections need; raise `ulimit -n`");
    }
}

fn authorities(config: &GatewayConfig, disk: Arc<dyn Disk>) -> Result<ClientAuthorities, Failure> {
    let read = ClientAuthorities::load(config.sources.client_ca_file.as_deref(), disk).map_err(Failure::cannot)?;
    if read.is_empty() && config.sources.all().any(|rules| !rules.tls_names.is_empty()) {
        tracing::warn!(
            "ALARM: no certificate can fit sources.tls_names, for this system has no certificate authorities; install \
             the package ca-certificates or name the authority in sources.client_ca_file"
        );
    }
    Ok(read)
}

/// Where the next certificate comes from, if an authority makes it.
fn renewal(config: &GatewayConfig, answers: &Arc<Answers>, disk: Arc<dyn Disk>) -> Result<Option<Renewal>, TlsError> {
    let CertificateSource::Acme(settings) = &config.tls.source else { return Ok(None) };
    let store = tls::store(settings, &config.data_dir, &disk);
    let authority = Authority::new(settings, store.clone(), Arc::clone(answers), disk)?;
    Ok(Some(Renewal {
        issuer: Arc::new(authority),
        store,
        names: settings.names.clone(),
        directory: settings.directory.clone(),
        chance: tls::renewal::chance,
    }))
}

fn services(
    config: &GatewayConfig,
    spool: &Spool,
    certificates: &Arc<Certificates>,
    authorities: &Arc<ClientAuthorities>,
    answers: Arc<Answers>,
) -> Result<Services, Failure> {
    let pop3_tls = certificates.acceptor(Protocol::Pop3).map_err(Failure::cannot)?;
    let smtp_tls = certificates.acceptor(Protocol::Smtp).map_err(Failure::cannot)?;
    let smtp_tls = smtp_tls.asking_clients(Arc::clone(authorities));
    let sources = Arc::new(Sources::open(&config.sources, &config.dns).map_err(Failure::usage)?);
    let counters = Arc::new(Counters::default());
    let first_answers = Arc::clone(&sources);
    tokio::spawn(async move { first_answers.warm().await });
    Ok(Services {
        smtp: Arc::new(smtp::Context {
            spool: spool.clone(),
            settings: smtp::Settings {
                hostname: config.hostname.clone(),
                domains: config.domains.clone(),
                max_message_size: config.smtp.max_message_size,
                require_tls: config.smtp.require_tls,
                command_timeout: config.smtp.command_timeout,
                data_timeout: config.smtp.data_timeout,
                transaction_timeout: config.smtp.transaction_timeout,
                rate_grace: config.smtp.rate_grace,
                minimum_rate: config.smtp.minimum_rate,
            },
            tls: Some(smtp_tls.clone()),
            sources: Arc::clone(&sources),
            counters: Arc::clone(&counters),
        }),
        smtp_tls,
        smtp_limits: Limits::new(
            config.smtp.max_connections,
            config.smtp.max_connections_per_ip,
            if config.sources.all().any(|rules| !rules.networks.is_empty()) {
                config.smtp.reserved_connections
            } else {
                0
            },
        ),
        pop3: Arc::new(pop3::session::Context {
            hostname: config.hostname.clone(),
            spool: spool.clone(),
            gate: pop3::login::Gate::default(),
            tls: pop3_tls.clone(),
            idle_timeout: config.pop3.idle_timeout,
            login_timeout: config.pop3.login_timeout,
            counters: Arc::clone(&counters),
        }),
        pop3_tls,
        pop3_limits: Limits::new(
            config.pop3.max_connections,
            config.pop3.max_connections_per_ip,
            config.pop3.reserved_connections,
        ),
        acme: Responder::new(answers)?,
        acme_limits: Limits::new(ACME_CONNECTIONS.0, ACME_CONNECTIONS.1, 0),
        teller: Arc::new(Teller::new(spool.clone(), Arc::clone(certificates), Arc::clone(&counters))),
        counters,
    })
}

/// Serves until `shutdown` or until storage fails, then drains.
async fn run(
    listeners: Vec<Listener>,
    services: Arc<Services>,
    (orders, peers): (Option<UnixListener>, Option<Peers>),
    spool: Spool,
    (upkeep, desk): (Upkeep, Desk),
    mut shutdown: Shutdown,
) -> Result<(), Failure> {
    let (trigger, stopping) = ShutdownTrigger::new();
    let (mut accepting, shortage) = (JoinSet::new(), Shortage::default());
    accepting.spawn(upkeep::run(upkeep, stopping.clone()));
    accepting.spawn(desk.watch(&spool, stopping.clone()));
    if let Some(orders) = orders {
        accepting.spawn(control::serve(orders, spool.clone(), stopping.clone()));
    }
    if let Some(peers) = &peers {
        for peer in peers.config.peers.clone() {
            let (config, key, data_dir) = (peers.config.clone(), Arc::clone(&peers.key), peers.data_dir.clone());
            let all = spool.mailboxes().clone();
            accepting.spawn(sync::follow(config, peer, all, key, data_dir, stopping.clone()));
        }
    }
    for listener in listeners {
        if listener.kind == Kind::Metrics {
            let teller = Arc::clone(&services.teller) as Arc<dyn Told>;
            accepting.spawn(postkeep_shared::metrics::serve(
                listener.socket,
                teller,
                crate::metrics::PREFIX,
                stopping.clone(),
            ));
            continue;
        }
        if listener.kind == Kind::Sync {
            if let Some(peers) = &peers {
                let (all, acceptor) = (spool.mailboxes().clone(), peers.acceptor.clone());
                accepting.spawn(sync::serve(listener.socket, all, acceptor, stopping.clone()));
            }
            continue;
        }
        let spare = Spare::new(shortage.clone());
        accepting.spawn(accept(listener, Arc::clone(&services), spare, stopping.clone()));
    }
    let mut failed = spool.failed();
    let failure = tokio::select! {
        () = shutdown.fired() => None,
        reason = failed.wait_for(Option::is_some) => match reason {
            Ok(reason) => reason.clone(),
            Err(_) => Some("the spool has stopped".to_owned()),
        },
    };
    trigger.fire();
    if let Some(reason) = &failure {
        tracing::error!(reason, "ALARM: storage has failed; stopping");
    }
    // Every listener ends at once and then waits for its own sessions.
    let drain = tokio::time::timeout(DRAIN, async { while accepting.join_next().await.is_some() {} });
    let last_words = async {
        if let Some(reason) = &failure {
            desk.failed(reason).await;
        }
    };
    let (drained, ()) = tokio::join!(drain, last_words);
    if drained.is_err() {
        tracing::warn!("some sessions did not end in time; their connections are dropped");
        accepting.shutdown().await;
    }
    desk.close().await;
    drop(services);
    let failure = failure.map(SpoolError::Failed).or(spool.read_only().map(|r| SpoolError::ReadOnly(r.to_owned())));
    let closed = tokio::task::spawn_blocking(move || spool.close()).await;
    match failure {
        Some(reason) => Err(Failure::cannot(reason)),
        None => closed.map_err(|error| Failure::cannot(format!("the spool did not close: {error}"))),
    }
}

/// Takes connections until told to stop, then waits for the sessions they became.
async fn accept(listener: Listener, services: Arc<Services>, mut spare: Spare, mut stopping: Shutdown) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.fired() => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                note_panic(ended);
                continue;
            }
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            // A client that does not even get this line loses nothing.
            Ok((stream, _)) if spare.is_short() => drop(stream.try_write(&busy(listener.kind))),
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                if let Some(admitted) = admit(listener.kind, &services, &stream, peer) {
                    let (services, stopping) = (Arc::clone(&services), stopping.clone());
                    sessions.spawn(session(listener.kind, services, stream, peer, stopping, admitted));
                }
            }
            Err(error) => spare.relieve(&listener, &error, &mut stopping).await,
        }
    }
    drop(listener);
    while let Some(ended) = sessions.join_next().await {
        note_panic(ended);
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "ALARM: a session panicked; the others go on");
    }
}

/// Lets a connection in, or tells it in one line to come back. With implicit TLS nothing can be said before the
/// handshake, which is the work to be spared.
fn admit(kind: Kind, services: &Services, stream: &TcpStream, peer: SocketAddr) -> Option<Admitted> {
    let (limits, known) = match kind {
        Kind::Smtp | Kind::Smtps => (&services.smtp_limits, services.smtp.sources.names_network_of(peer.ip())),
        Kind::AcmeTls | Kind::AcmeHttp => (&services.acme_limits, false),
        Kind::Pop3 | Kind::Pop3s | Kind::Sync | Kind::Metrics => {
            (&services.pop3_limits, services.pop3.gate.knows(peer.ip()))
        }
    };
    let refused = match limits.admit(peer.ip(), known) {
        Ok(admitted) => {
            services.counters.connection(kind, true);
            return Some(admitted);
        }
        Err(refused) => refused,
    };
    services.counters.connection(kind, false);
    tracing::warn!(%peer, %kind, ?refused, "too many connections");
    let line = if refused == Refused::Client && kind == Kind::Smtp { smtp::busy_address() } else { busy(kind) };
    // An empty send buffer takes a line at once; a client that does not even get that loses nothing.
    let _ = stream.try_write(&line);
    None
}

/// What one connection too many is told.
fn busy(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Pop3 => b"-ERR [SYS/TEMP] too many connections; try again later\r\n".to_vec(),
        Kind::Smtp => smtp::busy(),
        Kind::Smtps | Kind::Pop3s | Kind::AcmeTls | Kind::AcmeHttp | Kind::Sync | Kind::Metrics => Vec::new(),
    }
}

async fn session(
    kind: Kind,
    services: Arc<Services>,
    stream: TcpStream,
    peer: SocketAddr,
    stopping: Shutdown,
    admitted: Admitted,
) {
    let _admitted = admitted;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    // On the heap one by one: a plain SMTP session must not take the memory of a TLS handshake in POP3.
    match kind {
        Kind::Pop3 => {
            Box::pin(pop3::session::serve(Box::new(stream), peer, Arc::clone(&services.pop3), false, stopping)).await;
        }
        Kind::Pop3s => match Box::pin(services.pop3_tls.accept(Box::new(stream))).await {
            Ok((stream, _)) => {
                let context = Arc::clone(&services.pop3);
                Box::pin(pop3::session::serve(Box::new(stream), peer, context, true, stopping)).await;
            }
            Err(error) => tracing::info!(%peer, %error, "TLS handshake failed"),
        },
        Kind::Smtp => {
            Box::pin(smtp::serve(Box::new(stream), peer, Arc::clone(&services.smtp), stopping, None)).await;
        }
        Kind::Smtps => match Box::pin(services.smtp_tls.accept(Box::new(stream))).await {
            Ok((stream, facts)) => {
                let context = Arc::clone(&services.smtp);
                Box::pin(smtp::serve(Box::new(stream), peer, context, stopping, Some(facts))).await;
            }
            Err(error) => tracing::info!(%peer, %error, "TLS handshake failed"),
        },
        Kind::AcmeTls => Box::pin(services.acme.tls(stream)).await,
        Kind::AcmeHttp => Box::pin(services.acme.http(stream)).await,
        // They have tasks of their own.
        Kind::Sync | Kind::Metrics => {}
    }
}
