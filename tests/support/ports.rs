//! Ports for programs that are started later, or again.
//!
//! They lie below those that the system gives to connections (32768 and up by default): one that is free now is not taken
//! by some client before its program starts.

use anyhow::{Context as _, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

const LOWEST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port of `ip` that nobody has now.
pub fn free_port(ip: impl Into<IpAddr>) -> Result<u16> {
    Ok(bound(ip.into())?.local_addr()?.port())
}

/// An address of the loopback that nobody has now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(bound(Ipv4Addr::LOCALHOST.into())?.local_addr()?)
}

/// Different ports of the loopback that nobody has now.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = bound(Ipv4Addr::LOCALHOST.into())?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

fn bound(ip: IpAddr) -> Result<TcpListener> {
    for _ in 0..1000 {
        let mut number = [0; 2];
        getrandom::fill(&mut number)?;
        let port = LOWEST + u16::from_be_bytes(number) % COUNT;
        if let Ok(listener) = TcpListener::bind((ip, port)) {
            return Ok(listener);
        }
    }
    TcpListener::bind((ip, 0)).context("no port is free")
}
