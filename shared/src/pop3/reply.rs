//! The first line of a reply, written by the server and read by the client.

/// Response codes in brackets (RFC 2449 §8, RFC 3206, RFC 6856).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// Another session holds the mailbox (RFC 2449 §8.1.2).
    InUse,
    /// Temporary trouble on the server (RFC 3206 §4).
    SysTemp,
    /// A problem that a person has to look at (RFC 3206 §4).
    SysPerm,
    /// The credentials are the problem (RFC 3206 §5).
    Auth,
    /// The login comes too soon after the last (RFC 2449 §8.1.1).
    LoginDelay,
}

impl Code {
    /// As written between the brackets.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "IN-USE",
            Self::SysTemp => "SYS/TEMP",
            Self::SysPerm => "SYS/PERM",
            Self::Auth => "AUTH",
            Self::LoginDelay => "LOGIN-DELAY",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::InUse, Self::SysTemp, Self::SysPerm, Self::Auth, Self::LoginDelay];
        all.into_iter().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }
}

/// A reply's status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK text`.
    Ok(String),
    /// `-ERR [code] text`.
    Err(Option<Code>, String),
    /// `+ text`: the server waits for the next SASL response (RFC 5034 §4).
    Continue(String),
}

/// The server sent something that is no status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is neither +OK nor -ERR")]
pub struct ReplyError;

impl Reply {
    /// The line with its CRLF.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let text = match self {
            Self::Ok(text) if text.is_empty() => "+OK\r\n".to_owned(),
            Self::Ok(text) => format!("+OK {text}\r\n"),
            Self::Err(Some(code), text) => format!("-ERR [{}] {text}\r\n", code.as_str()),
            Self::Err(None, text) => format!("-ERR {text}\r\n"),
            Self::Continue(text) => format!("+ {text}\r\n"),
        };
        text.into_bytes()
    }

    /// Reads a line without its CRLF. Octets that are not UTF-8 are shown as replacement characters.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        let line = String::from_utf8_lossy(line);
        let after = |prefix: &str| {
            let rest = line.strip_prefix(prefix)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') }
        };
        if let Some(text) = after("+OK") {
            return Ok(Self::Ok(text.to_owned()));
        }
        if let Some(text) = after("-ERR") {
            let coded = text.strip_prefix('[').and_then(|t| t.split_once(']'));
            let known = coded.and_then(|(code, rest)| Code::parse(code).map(|c| (c, rest.trim_start())));
            return Ok(match known {
                Some((code, rest)) => Self::Err(Some(code), rest.to_owned()),
                None => Self::Err(None, text.to_owned()),
            });
        }
        after("+").map(|text| Self::Continue(text.to_owned())).ok_or(ReplyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_read_back() {
        for reply in [
            Reply::Ok(String::new()),
            Reply::Ok("2 320".into()),
            Reply::Err(Some(Code::InUse), "busy".into()),
            Reply::Err(None, "no".into()),
            Reply::Continue(String::new()),
        ] {
            let line = reply.to_line();
            assert_eq!(Reply::parse(&line[..line.len() - 2]), Ok(reply));
        }
        assert_eq!(Reply::parse(b"+OKAY"), Err(ReplyError));
        assert_eq!(Reply::parse(b"220 smtp"), Err(ReplyError));
        assert_eq!(Reply::parse(b"-ERR [X] y"), Ok(Reply::Err(None, "[X] y".into())));
    }
}
