//! The sockets that connections arrive at.

use crate::config::GatewayConfig;
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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Smtps => "smtps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
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

/// Binds every address of the configuration, or none.
pub(super) fn bind(config: &GatewayConfig) -> Result<Vec<Listener>, Failure> {
    let lists = [
        (Kind::Smtp, &config.smtp.listen),
        (Kind::Smtps, &config.smtp.listen_tls),
        (Kind::Pop3, &config.pop3.listen),
        (Kind::Pop3s, &config.pop3.listen_tls),
    ];
    let mut listeners = Vec::new();
    for (kind, addresses) in lists {
        for address in addresses {
            let socket = listen(*address).map_err(|error| failure(kind, *address, &error))?;
            listeners.push(Listener { kind, socket });
        }
    }
    if listeners.is_empty() {
        return Err(Failure::usage("no address to listen at: fill smtp.listen and pop3.listen"));
    }
    Ok(listeners)
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
