//! A sender that changes nothing: DATA where it carries the message exactly, BDAT where it does not.

use super::wire::Wire;
use anyhow::{Context as _, Result, ensure};
use postkeep_shared::wire::DotEncoder;
use std::net::SocketAddr;

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub code: u16,
    /// Lines without their codes, joined by LF.
    pub text: String,
}

impl Reply {
    /// The uidls, sequence numbers and receipts a `250` after a message names, in its order.
    pub fn receipts(&self) -> Result<Vec<(String, u64, String)>> {
        let text = self.text.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
        let group = |group: &str| {
            let mut words = group.split_whitespace();
            let uidl = words.next()?.to_owned();
            let seq = words.next()?.strip_prefix("seq=")?.parse().ok()?;
            let receipt = words.next()?.strip_prefix("receipt=")?.to_owned();
            Some((uidl, seq, receipt))
        };
        text.split("; ").map(|g| group(g).with_context(|| format!("not a receipt: {self:?}"))).collect()
    }
}

/// A connection to an SMTP server.
pub struct Smtp {
    wire: Wire,
    /// Keywords of the last EHLO reply.
    pub extensions: Vec<String>,
}

impl Smtp {
    /// Connects and says EHLO, in clear.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let mut smtp = Self { wire: Wire::connect(address)?, extensions: Vec::new() };
        let greeting = smtp.reply()?;
        ensure!(greeting.code == 220, "greeting: {greeting:?}");
        smtp.ehlo()?;
        Ok(smtp)
    }

    /// Connects and goes on under TLS.
    pub fn connect_tls(address: SocketAddr, pin: &str) -> Result<Self> {
        let mut smtp = Self::connect(address)?;
        ensure!(smtp.offers("STARTTLS"), "no STARTTLS in {:?}", smtp.extensions);
        let reply = smtp.command("STARTTLS")?;
        ensure!(reply.code == 220, "STARTTLS: {reply:?}");
        let mut smtp = Self { wire: smtp.wire.start_tls(pin)?, extensions: Vec::new() };
        smtp.ehlo()?;
        Ok(smtp)
    }

    fn ehlo(&mut self) -> Result<()> {
        let reply = self.command("EHLO sender.example")?;
        ensure!(reply.code == 250, "EHLO: {reply:?}");
        self.extensions = reply.text.lines().skip(1).map(str::to_owned).collect();
        Ok(())
    }

    /// Whether the server announced `keyword`.
    pub fn offers(&self, keyword: &str) -> bool {
        self.extensions.iter().any(|e| e.split(' ').next().is_some_and(|k| k.eq_ignore_ascii_case(keyword)))
    }

    /// Sends one command line and reads the reply.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        self.wire.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.wire.send(bytes)
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = String::from_utf8(self.wire.line()?)?;
            let code = line.get(..3).and_then(|c| c.parse().ok()).with_context(|| format!("not a reply: {line}"))?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: lines.join("\n") });
            }
        }
    }

    fn envelope(&mut self, from: &str, to: &[&str], size: usize) -> Result<Option<Reply>> {
        let utf8 = if from.is_ascii() && to.iter().all(|t| t.is_ascii()) { "" } else { " SMTPUTF8" };
        let mut lines = format!("MAIL FROM:<{from}> SIZE={size} BODY=8BITMIME{utf8}\r\n");
        for to in to {
            lines.push_str(&format!("RCPT TO:<{to}>\r\n"));
        }
        // RFC 2920 §3.1: these may share a packet.
        self.wire.send(lines.as_bytes())?;
        let mut refused = None;
        for _ in 0..=to.len() {
            let reply = self.reply()?;
            if reply.code / 100 != 2 && refused.is_none() {
                refused = Some(reply);
            }
        }
        Ok(refused)
    }

    /// Sends one message exactly; gives the last reply, or the first refusal before the message.
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply> {
        if data_is_exact(message) { self.send_data(from, to, message) } else { self.send_bdat(from, to, message) }
    }

    /// By DATA; the message must end with CRLF.
    pub fn send_data(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply> {
        if let Some(refused) = self.envelope(from, to, message.len())? {
            self.command("RSET")?;
            return Ok(refused);
        }
        let go = self.command("DATA")?;
        if go.code != 354 {
            return Ok(go);
        }
        let mut encoder = DotEncoder::default();
        let mut wire = Vec::new();
        for piece in message.chunks(1024 * 1024) {
            wire.clear();
            encoder.encode(piece, &mut wire);
            self.wire.send(&wire)?;
        }
        wire.clear();
        ensure!(!encoder.finish(&mut wire), "DATA would add a line end to this message");
        self.wire.send(&wire)?;
        self.reply()
    }

    /// By BDAT in two pieces (RFC 3030).
    pub fn send_bdat(&mut self, from: &str, to: &[&str], message: &[u8]) -> Result<Reply> {
        if let Some(refused) = self.envelope(from, to, message.len())? {
            self.command("RSET")?;
            return Ok(refused);
        }
        let (first, last) = message.split_at(message.len() / 2);
        self.wire.send(format!("BDAT {}\r\n", first.len()).as_bytes())?;
        self.wire.send(first)?;
        let reply = self.reply()?;
        ensure!(reply.code == 250, "BDAT: {reply:?}");
        self.wire.send(format!("BDAT {} LAST\r\n", last.len()).as_bytes())?;
        self.wire.send(last)?;
        self.reply()
    }

    /// Ends the session.
    pub fn quit(mut self) -> Result<()> {
        let reply = self.command("QUIT")?;
        ensure!(reply.code == 221, "QUIT: {reply:?}");
        Ok(())
    }
}

/// Whether DATA carries the message without a change: every CR and LF in a pair, CRLF at the end.
pub fn data_is_exact(message: &[u8]) -> bool {
    message.ends_with(b"\r\n") && crlf_clean(message)
}

/// Whether every CR is followed by LF and every LF follows a CR.
pub fn crlf_clean(message: &[u8]) -> bool {
    let before = |i: usize| i.checked_sub(1).and_then(|i| message.get(i));
    message.iter().enumerate().all(|(i, byte)| match byte {
        b'\r' => message.get(i + 1) == Some(&b'\n'),
        b'\n' => before(i) == Some(&b'\r'),
        _ => true,
    })
}
