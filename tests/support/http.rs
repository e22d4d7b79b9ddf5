//! A request of the programs' own HTTP listener.

use anyhow::{Context as _, Result};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// `GET`; the status code and the body.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok((code, body.to_owned()))
}

/// One figure of `/metrics`, with its labels as they stand there.
pub fn figure(address: SocketAddr, name: &str) -> Result<f64> {
    let (_, text) = get(address, "/metrics")?;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.with_context(|| format!("no figure {name} in:\n{text}"))?;
    Ok(line.rsplit(' ').next().context("a value")?.parse()?)
}
