//! The sockets that connections arrive at.

use crate::config::{CertificateSource, GatewayConfig};
use postkeep_shared::run::Failure;
use std::{fmt, io, net::SocketAddr};
use tokio::net::TcpListener;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SMTP with STARTTLS.
    Smtp,
    /// SMTP in TLS from the first octet.
    Smtps,
    /// POP3 with STLS.
    Pop3,
    /// POP3 in TLS from the first octet.
    Pop3s,
    /// An authority that checks our name by TLS-ALPN-01.
    AcmeTls,
    /// An authority that checks our name by HTTP-01.
    AcmeHttp,
    /// Definitions of mailboxes, between nodes.
    Sync,
    /// Figures and health, for monitoring.
    Metrics,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Smtps => "smtps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
            Self::AcmeTls => "acme-tls",
            Self::AcmeHttp => "acme-http",
            Self::Sync => "sync",
            Self::Metrics => "metrics",
        })
    }
}

impl Kind {
    /// The setting that names its addresses.
    fn setting(self) -> &'static str {
        match self {
            Self::Smtp => "smtp.listen",
            Self::Smtps => "smtp.listen_tls",
            Self::Pop3 => "pop3.listen",
            Self::Pop3s => "pop3.listen_tls",
            Self::AcmeTls => "tls.acme.tls_listen",
            Self::AcmeHttp => "tls.acme.http_listen",
            Self::Sync => "sync.listen",
            Self::Metrics => "metrics.listen",
        }
    }
}

/// A bound address.
pub(super) struct Listener {
    pub(super) kind: Kind,
    pub(super) socket: TcpListener,
}

impl Listener {
    /// Where it is bound, with the real port.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        self.socket
            .local_addr()
            .map_err(|e| Failure::cannot(format!("cannot ask for the address of {}: {e}", self.kind)))
    }
}

/// Tries every address of the configuration and gives it up again.
///
/// Needs a tokio runtime, as every socket here does.
#[must_use]
pub fn can_bind(config: &GatewayConfig) -> Vec<(Kind, SocketAddr, Result<(), Failure>)> {
    let tried = |(kind, address): (Kind, SocketAddr)| {
        (kind, address, listen(address).map(drop).map_err(|error| failure(kind, address, &error)))
    };
    wanted(config).into_iter().map(tried).collect()
}

/// Binds every address of the configuration, or none.
pub(super) fn bind(config: &GatewayConfig) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for (kind, address) in wanted(config) {
        let socket = listen(address).map_err(|error| failure(kind, address, &error))?;
        listeners.push(Listener { kind, socket });
    }
    if listeners
        .iter()
        .all(|listener| matches!(listener.kind, Kind::AcmeTls | Kind::AcmeHttp | Kind::Sync | Kind::Metrics))
    {
        return Err(Failure::usage("no address to listen at: fill smtp.listen and pop3.listen"));
    }
    Ok(listeners)
}

/// What the configuration asks for.
fn wanted(config: &GatewayConfig) -> Vec<(Kind, SocketAddr)> {
    let (mut acme_tls, mut acme_http) = (&[][..], &[][..]);
    if let CertificateSource::Acme(settings) = &config.tls.source {
        (acme_tls, acme_http) = (&settings.tls_listen, &settings.http_listen);
    }
    let lists: [(Kind, &[SocketAddr]); 8] = [
        (Kind::AcmeTls, acme_tls),
        (Kind::AcmeHttp, acme_http),
        (Kind::Smtp, &config.smtp.listen),
        (Kind::Smtps, &config.smtp.listen_tls),
        (Kind::Pop3, &config.pop3.listen),
        (Kind::Pop3s, &config.pop3.listen_tls),
        (Kind::Sync, &config.sync.listen),
        (Kind::Metrics, &config.metrics),
    ];
    lists.into_iter().flat_map(|(kind, list)| list.iter().map(move |address| (kind, *address))).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        // `[::]:25` beside `0.0.0.0:25`: each socket takes its own protocol only.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn failure(kind: Kind, address: SocketAddr, error: &io::Error) -> Failure {
    let setting = kind.setting();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another program has it; stop that one or change {setting}"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it or change {setting}")
        }
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; change {setting}"),
        _ => format!("change {setting}"),
    };
    Failure::cannot(format!("cannot listen at {address} for {kind}: {error}: {remedy}"))
}
