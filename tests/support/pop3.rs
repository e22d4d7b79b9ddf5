//! A collector that changes nothing: RETR without its dot-stuffing, XRETR by count.

use super::wire::Wire;
use anyhow::{Context as _, Result, bail, ensure};
use postkeep_shared::receipt::parse_trace;
use std::net::SocketAddr;

/// A POP3 session.
pub struct Pop3(Wire);

impl Pop3 {
    /// Connects to an implicit-TLS port.
    pub fn connect_tls(address: SocketAddr, pin: &str) -> Result<Self> {
        let mut pop3 = Self(Wire::connect(address)?.start_tls(pin)?);
        pop3.status()?;
        Ok(pop3)
    }

    /// Connects in clear and starts TLS (RFC 2595).
    pub fn connect_stls(address: SocketAddr, pin: &str) -> Result<Self> {
        let mut pop3 = Self::connect_clear(address)?;
        pop3.command("STLS")?;
        Ok(Self(pop3.0.start_tls(pin)?))
    }

    /// Connects in clear.
    pub fn connect_clear(address: SocketAddr) -> Result<Self> {
        let mut pop3 = Self(Wire::connect(address)?);
        pop3.status()?;
        Ok(pop3)
    }

    /// Logs in with USER and PASS.
    pub fn login(&mut self, user: &str, password: &str) -> Result<()> {
        self.command(&format!("USER {user}"))?;
        self.command(&format!("PASS {password}"))?;
        Ok(())
    }

    fn status(&mut self) -> Result<String> {
        let line = String::from_utf8(self.0.line()?)?;
        match line.strip_prefix("+OK") {
            Some(text) => Ok(text.trim().to_owned()),
            None => bail!("{line}"),
        }
    }

    /// Sends a command and gives the text behind `+OK`; `-ERR …` is an error with that line.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.0.send(format!("{line}\r\n").as_bytes())?;
        self.status()
    }

    /// A command with a multi-line reply; the stuffing removed, the CRLF of every line kept.
    pub fn multi(&mut self, line: &str) -> Result<Vec<u8>> {
        self.command(line)?;
        let mut out = Vec::new();
        // Only CRLF ends a line, so a bare LF is content and may be followed by a dot.
        let mut at_line_start = true;
        loop {
            let start = out.len();
            self.0.until_lf(&mut out)?;
            if at_line_start && out.get(start) == Some(&b'.') {
                if out.get(start..) == Some(b".\r\n".as_slice()) {
                    out.truncate(start);
                    return Ok(out);
                }
                out.remove(start);
            }
            at_line_start = out.ends_with(b"\r\n");
        }
    }

    fn pairs(&mut self, line: &str) -> Result<Vec<(u64, String)>> {
        let text = String::from_utf8(self.multi(line)?)?;
        let pair = |line: &str| {
            let (number, rest) = line.split_once(' ')?;
            Some((number.parse().ok()?, rest.to_owned()))
        };
        text.lines().map(|l| pair(l).with_context(|| format!("not a listing: {l}"))).collect()
    }

    /// Message number and octets.
    pub fn list(&mut self) -> Result<Vec<(u64, u64)>> {
        let pairs = self.pairs("LIST")?;
        pairs.into_iter().map(|(number, size)| Ok((number, size.parse()?))).collect()
    }

    /// Message number and unique-id.
    pub fn uidl(&mut self) -> Result<Vec<(u64, String)>> {
        self.pairs("UIDL")
    }

    /// A message as every client gets it, trace header first.
    pub fn retr(&mut self, number: u64) -> Result<Vec<u8>> {
        self.multi(&format!("RETR {number}"))
    }

    /// A message with its length in front, trace header first; the digest as announced.
    pub fn xretr(&mut self, number: u64) -> Result<(Vec<u8>, String)> {
        let text = self.command(&format!("XRETR {number}"))?;
        let (octets, digest) = text.split_once(' ').with_context(|| format!("XRETR: {text}"))?;
        Ok((self.0.exact(octets.parse()?)?, digest.to_owned()))
    }

    /// Ends the session in order; removals happen now.
    pub fn quit(mut self) -> Result<()> {
        self.command("QUIT")?;
        Ok(())
    }
}

/// What follows the trace header.
pub fn without_trace(message: &[u8]) -> Result<&[u8]> {
    let trace = parse_trace(message)?;
    message.get(trace.len..).context("the trace header ends inside the message")
}

/// `sent` as RETR gives it: a line end at its end.
pub fn as_lines(sent: &[u8]) -> Vec<u8> {
    let mut expected = sent.to_vec();
    if !sent.ends_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    expected
}

/// Fails with the first difference.
pub fn same(what: &str, got: &[u8], expected: &[u8]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
    ensure!(false, "{what}: {} octets instead of {}, first difference at {at}", got.len(), expected.len());
    Ok(())
}
