//! A command line, read by the server and written by the client.

use crate::{crypt::Password, mail::Digest, receipt::NodeKey};

/// Longest command line in octets, CRLF included (long enough for any AUTH PLAIN response; RFC 2449 §4 allows 255).
pub const MAX_LINE: usize = 4096;

/// A POP3 command. Message numbers are 1 to 2^31-1.
#[derive(Clone)]
#[non_exhaustive]
pub enum Command {
    /// RFC 2449 §5.
    Capa,
    /// RFC 2595 §4.
    Stls,
    /// RFC 6856 §2.
    Utf8,
    /// RFC 1939 §7; any octets without CR and LF.
    User(Vec<u8>),
    /// RFC 1939 §7; everything behind the first blank, blanks at the end included.
    Pass(Password),
    /// RFC 5034 §4: mechanism in upper case, initial response as sent (base64, or `=`).
    Auth(Option<(String, Option<Password>)>),
    /// RFC 1939 §7; never offered.
    Apop,
    /// RFC 1939 §5.
    Stat,
    /// RFC 1939 §5.
    List(Option<u32>),
    /// RFC 1939 §7.
    Uidl(Option<u32>),
    /// RFC 1939 §5.
    Retr(u32),
    /// RFC 1939 §7: message and body lines.
    Top(u32, u32),
    /// RFC 1939 §5.
    Dele(u32),
    /// RFC 1939 §5.
    Noop,
    /// RFC 1939 §5.
    Rset,
    /// RFC 1939 §5 and §6.
    Quit,
    /// Ours: ledger entries from this number on, all without one.
    Xledger(Option<u64>),
    /// Ours: the ledgers of other nodes that are kept here; with a node, its entries from this number on.
    Xorigin(Option<(NodeKey, u64)>),
    /// Ours: length-prefixed retrieval.
    Xretr(u32),
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No such command.
    #[error("unknown command")]
    Unknown,
    /// Known, but its arguments are not.
    #[error("invalid argument")]
    Argument,
    /// NUL or an octet that cannot stand in a command.
    #[error("invalid character")]
    Character,
}

impl Command {
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let (word, rest) = match line.iter().position(|b| *b == b' ') {
            Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..)),
            None => (line, None),
        };
        let word = word.to_ascii_uppercase();
        if word == b"PASS" {
            // Octets are used exactly as they are; an empty password is for the check to refuse.
            let password = rest.ok_or(CommandError::Argument)?;
            return Ok(Self::Pass(Password::received(password)));
        }
        if line.iter().any(|b| *b < 0x20 || *b == 0x7f) || line.contains(&0xff) {
            return Err(CommandError::Character);
        }
        let arguments = Arguments(rest);
        match word.as_slice() {
            b"CAPA" => arguments.none(Self::Capa),
            b"STLS" => arguments.none(Self::Stls),
            b"UTF8" => arguments.none(Self::Utf8),
            b"STAT" => arguments.none(Self::Stat),
            b"NOOP" => arguments.none(Self::Noop),
            b"RSET" => arguments.none(Self::Rset),
            b"QUIT" => arguments.none(Self::Quit),
            b"APOP" => Ok(Self::Apop),
            b"USER" => rest.filter(|r| !r.is_empty()).map(|r| Self::User(r.to_vec())).ok_or(CommandError::Argument),
            b"AUTH" => auth(rest),
            b"LIST" => arguments.optional().map(Self::List),
            b"UIDL" => arguments.optional().map(Self::Uidl),
            b"RETR" => arguments.one().map(Self::Retr),
            b"DELE" => arguments.one().map(Self::Dele),
            b"XRETR" => arguments.one().map(Self::Xretr),
            b"TOP" => arguments.two().map(|(n, lines)| Self::Top(n, lines)),
            b"XLEDGER" => arguments.position().map(Self::Xledger),
            b"XORIGIN" => arguments.origin().map(Self::Xorigin),
            _ => Err(CommandError::Unknown),
        }
    }

    /// The line with its CRLF, as a client sends it. The result may hold a password: wipe it after sending.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let plain = |text: String| text.into_bytes();
        let mut line = match self {
            Self::Capa => plain("CAPA".into()),
            Self::Stls => plain("STLS".into()),
            Self::Utf8 => plain("UTF8".into()),
            Self::User(name) => [b"USER ", name.as_slice()].concat(),
            Self::Pass(password) => [b"PASS ", password.expose()].concat(),
            Self::Auth(None) => plain("AUTH".into()),
            Self::Auth(Some((mechanism, None))) => plain(format!("AUTH {mechanism}")),
            Self::Auth(Some((mechanism, Some(initial)))) => {
                [b"AUTH ", mechanism.as_bytes(), b" ", initial.expose()].concat()
            }
            Self::Apop => plain("APOP".into()),
            Self::Stat => plain("STAT".into()),
            Self::List(None) => plain("LIST".into()),
            Self::List(Some(n)) => plain(format!("LIST {n}")),
            Self::Uidl(None) => plain("UIDL".into()),
            Self::Uidl(Some(n)) => plain(format!("UIDL {n}")),
            Self::Retr(n) => plain(format!("RETR {n}")),
            Self::Top(n, lines) => plain(format!("TOP {n} {lines}")),
            Self::Dele(n) => plain(format!("DELE {n}")),
            Self::Noop => plain("NOOP".into()),
            Self::Rset => plain("RSET".into()),
            Self::Quit => plain("QUIT".into()),
            Self::Xledger(None) => plain("XLEDGER".into()),
            Self::Xledger(Some(from)) => plain(format!("XLEDGER {from}")),
            Self::Xorigin(None) => plain("XORIGIN".into()),
            Self::Xorigin(Some((node, from))) => plain(format!("XORIGIN {} {from}", Digest(node.0))),
            Self::Xretr(n) => plain(format!("XRETR {n}")),
        };
        line.extend_from_slice(b"\r\n");
        line
    }
}

fn auth(rest: Option<&[u8]>) -> Result<Command, CommandError> {
    let Some(rest) = rest else { return Ok(Command::Auth(None)) };
    let mut words = rest.splitn(2, |b| *b == b' ');
    let mechanism = words.next().filter(|m| !m.is_empty()).ok_or(CommandError::Argument)?;
    let mechanism = String::from_utf8(mechanism.to_ascii_uppercase()).map_err(|_| CommandError::Argument)?;
    Ok(Command::Auth(Some((mechanism, words.next().map(Password::received)))))
}

/// The part of a line behind the command word.
struct Arguments<'a>(Option<&'a [u8]>);

impl Arguments<'_> {
    fn none(&self, command: Command) -> Result<Command, CommandError> {
        // A blank behind the word is common and harmless; anything else is not.
        let empty = self.0.is_none_or(|rest| rest.iter().all(|b| *b == b' '));
        if empty { Ok(command) } else { Err(CommandError::Argument) }
    }

    fn optional(&self) -> Result<Option<u32>, CommandError> {
        match self.0 {
            None | Some(b"") => Ok(None),
            Some(rest) => message_number(rest).map(Some),
        }
    }

    fn one(&self) -> Result<u32, CommandError> {
        message_number(self.0.ok_or(CommandError::Argument)?)
    }

    fn two(&self) -> Result<(u32, u32), CommandError> {
        let rest = self.0.ok_or(CommandError::Argument)?;
        let at = rest.iter().position(|b| *b == b' ').ok_or(CommandError::Argument)?;
        let (number, lines) = rest.split_at(at);
        let lines = digits(lines.get(1..).unwrap_or_default())?;
        Ok((message_number(number)?, u32::try_from(lines).map_err(|_| CommandError::Argument)?))
    }

    fn position(&self) -> Result<Option<u64>, CommandError> {
        self.0.filter(|rest| !rest.is_empty()).map(digits).transpose()
    }

    /// 64 hex digits of a node's key and a number.
    fn origin(&self) -> Result<Option<(NodeKey, u64)>, CommandError> {
        let Some(rest) = self.0.filter(|rest| !rest.is_empty()) else { return Ok(None) };
        let at = rest.iter().position(|b| *b == b' ').ok_or(CommandError::Argument)?;
        let (node, from) = rest.split_at(at);
        let node = std::str::from_utf8(node).ok().and_then(Digest::from_hex).ok_or(CommandError::Argument)?;
        Ok(Some((NodeKey(node.0), digits(from.get(1..).unwrap_or_default())?)))
    }
}

/// 1 to 2^31-1, without sign and leading zero: one number has one spelling.
fn message_number(text: &[u8]) -> Result<u32, CommandError> {
    if text.first() == Some(&b'0') {
        return Err(CommandError::Argument);
    }
    u32::try_from(digits(text)?).ok().filter(|n| *n <= i32::MAX as u32).ok_or(CommandError::Argument)
}

fn digits(text: &[u8]) -> Result<u64, CommandError> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::Argument);
    }
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(CommandError::Argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_back_as_written() {
        for line in [
            "CAPA",
            "STLS",
            "STAT",
            "LIST",
            "LIST 7",
            "UIDL",
            "UIDL 7",
            "RETR 1",
            "TOP 1 0",
            "DELE 2",
            "NOOP",
            "RSET",
            "QUIT",
            "UTF8",
            "USER mbx-1",
            "PASS  a b ",
            "AUTH",
            "AUTH PLAIN",
            "AUTH PLAIN =",
            "XLEDGER",
            "XLEDGER 5",
            "XORIGIN",
            "XORIGIN a34d24b6a04af6a47da7de52e3f749859872f89f2a7cf630ceaf7cffe093419b 5",
            "XRETR 3",
        ] {
            let command = Command::parse(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(command.to_line(), format!("{line}\r\n").into_bytes());
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        for (line, error) in [
            (b"RETR 0".as_slice(), CommandError::Argument),
            (b"RETR -1", CommandError::Argument),
            (b"RETR 99999999999", CommandError::Argument),
            (b"RETR 1 2", CommandError::Argument),
            (b"RETR 0x1", CommandError::Argument),
            (b"RETR 01", CommandError::Argument),
            (b"RETR", CommandError::Argument),
            (b"TOP 1", CommandError::Argument),
            (b"TOP 1 -1", CommandError::Argument),
            (b"TOP 1 4294967296", CommandError::Argument),
            (b"STAT x", CommandError::Argument),
            (b"XORIGIN 1", CommandError::Argument),
            (b"XORIGIN a34d 1", CommandError::Argument),
            (b"USER", CommandError::Argument),
            (b"PASS", CommandError::Argument),
            (b"NO\0OP", CommandError::Character),
            (b"USER \xff", CommandError::Character),
            (b"HELO x", CommandError::Unknown),
            (b"", CommandError::Unknown),
        ] {
            assert_eq!(Command::parse(line).err(), Some(error), "{line:?}");
        }
    }
}
