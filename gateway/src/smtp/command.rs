//! One command line → [`Command`]. The only file that names `smtp_proto`.
//!
//! RFC 5321 §4.1, RFC 1870 (SIZE), RFC 6152 (BODY), RFC 6531 (SMTPUTF8), RFC 3030 (BDAT). `smtp-proto` 0.2.5 knows the
//! verbs and their grammar; what it is too generous or too strict about is decided here, each with a test below:
//! * numbers saturate and then start again (`SIZE=18446744073709551616` can come out small): digits are read here;
//! * it refuses address literals, turns `<postmaster>` into `<>` and drops quotes and routes: paths are cut out here,
//!   kept as they were written, and only the parameters are given to it;
//! * it accepts parameters of extensions that are not announced (RET, AUTH, …), arguments behind DATA, RSET, QUIT and
//!   STARTTLS, control characters, and a parameter right behind `>`: refused here.

use smtp_proto::{Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, RcptTo, Request};

/// A command that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// HELO with its argument.
    Helo(String),
    /// EHLO with its argument.
    Ehlo(String),
    /// MAIL.
    Mail(Mail),
    /// RCPT with its forward-path, without angle brackets.
    Rcpt(String),
    /// DATA.
    Data,
    /// BDAT.
    Bdat {
        /// Octets that follow the line.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
    /// A command of an extension that is not announced.
    NotOffered,
}

/// What MAIL says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mail {
    /// Reverse-path as written, without angle brackets; empty for `<>`.
    pub(super) from: String,
    /// SIZE, where given and not 0 (RFC 1870 §6.1: an estimate, never trusted).
    pub(super) size: Option<u64>,
    /// SMTPUTF8 was given.
    pub(super) utf8: bool,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No verb we know: 500.
    Unknown,
    /// Octets no command may have: 501 5.5.2.
    Octets,
    /// Argument missing, surplus or malformed: 501 5.5.4.
    Argument,
    /// BDAT whose size cannot be read, so that nobody knows how many octets follow: 501 5.5.4 and close.
    Chunk,
    /// A parameter that is not announced: 555 5.5.4.
    Parameter,
}

/// Reads a line without its CRLF.
pub(super) fn parse(line: &[u8]) -> Result<Command, Fault> {
    let verb_len = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let (verb, rest) = line.split_at(verb_len);
    if verb.is_empty() || !verb.iter().all(u8::is_ascii_alphabetic) {
        return Err(if line.iter().any(|b| is_control(*b)) { Fault::Octets } else { Fault::Unknown });
    }
    let is_bdat = verb.eq_ignore_ascii_case(b"BDAT");
    if line.iter().any(|b| is_control(*b)) {
        return Err(if is_bdat { Fault::Chunk } else { Fault::Octets });
    }
    let (verb, rest) = match (std::str::from_utf8(verb), std::str::from_utf8(rest)) {
        (Ok(verb), Ok(rest)) => (verb, rest.trim_matches(' ')),
        _ if is_bdat => return Err(Fault::Chunk),
        _ => return Err(Fault::Octets),
    };
    match verb.to_ascii_uppercase().as_str() {
        "MAIL" => mail(rest),
        "RCPT" => rcpt(rest),
        "BDAT" => bdat(rest).ok_or(Fault::Chunk),
        "HELO" | "EHLO" if !rest.is_ascii() => Err(Fault::Octets),
        "DATA" | "RSET" | "QUIT" | "STARTTLS" if !rest.is_empty() => Err(Fault::Argument),
        _ => plain(verb, rest),
    }
}

/// Whether a first line is an HTTP request: a browser was made to talk to us (cross-protocol attack).
pub(super) fn is_http(line: &[u8]) -> bool {
    let methods: [&[u8]; 9] =
        [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"CONNECT ", b"PATCH ", b"TRACE "];
    methods.iter().any(|method| line.starts_with(method))
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Gives one line to `smtp_proto` and takes only a result that used all of it.
fn grammar(line: &str) -> Result<Request<String>, Fault> {
    let line = format!("{line}\r\n");
    match Request::parse(&mut line.as_bytes().iter()) {
        Ok(request) => Ok(request.into_owned()),
        Err(Error::UnknownCommand) => Err(Fault::Unknown),
        Err(Error::UnsupportedParameter { .. }) => Err(Fault::Parameter),
        Err(_) => Err(Fault::Argument),
    }
}

fn plain(verb: &str, rest: &str) -> Result<Command, Fault> {
    // AUTH would be read as far as its credentials; whatever it holds, it is not offered.
    if verb.eq_ignore_ascii_case("AUTH") {
        return Ok(Command::NotOffered);
    }
    Ok(match grammar(&format!("{verb} {rest}"))? {
        Request::Helo { host } => Command::Helo(host),
        Request::Ehlo { host } => Command::Ehlo(host),
        Request::Data => Command::Data,
        Request::Rset => Command::Rset,
        Request::Quit => Command::Quit,
        Request::StartTls => Command::StartTls,
        Request::Noop { .. } => Command::Noop,
        Request::Help { .. } => Command::Help,
        Request::Vrfy { .. } => Command::Vrfy,
        _ => Command::NotOffered,
    })
}

fn mail(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = path(rest, "FROM").ok_or(Fault::Argument)?;
    let size = declared_size(parameters)?;
    let Request::Mail { from } = grammar(&format!("MAIL FROM:<>{parameters}"))? else { return Err(Fault::Argument) };
    let offered = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8;
    let utf8 = from.flags & MAIL_SMTPUTF8 != 0;
    // Whatever else was set belongs to an extension that is not announced (RFC 5321 §4.1.1.11).
    let announced = MailFrom { flags: from.flags & offered, size: from.size, ..MailFrom::default() };
    if from != announced {
        return Err(Fault::Parameter);
    }
    Ok(Command::Mail(Mail { from: path.to_owned(), size, utf8 }))
}

fn rcpt(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = path(rest, "TO").ok_or(Fault::Argument)?;
    let Request::Rcpt { to } = grammar(&format!("RCPT TO:<>{parameters}"))? else { return Err(Fault::Argument) };
    if to != RcptTo::default() {
        return Err(Fault::Parameter);
    }
    Ok(Command::Rcpt(path.to_owned()))
}

/// Cuts `KEYWORD:<path> parameters` into path and parameters. A `>` within a quoted local part does not end the path
/// (RFC 5321 §4.1.2). Blanks around the colon are tolerated, as everybody does.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (name, rest) = rest.split_once(':')?;
    let rest = rest.trim_start_matches(' ').strip_prefix('<')?;
    if !name.trim_end_matches(' ').eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in rest.char_indices() {
        match c {
            '>' if !quoted => {
                let (path, parameters) = (rest.get(..at)?, rest.get(at + 1..)?);
                return (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters));
            }
            ' ' | '<' if !quoted => return None,
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    None
}

/// The value of SIZE: at most 20 digits that fit 64 bits (RFC 1870 §3), 0 meaning "not known".
fn declared_size(parameters: &str) -> Result<Option<u64>, Fault> {
    let mut size = None;
    for parameter in parameters.split(' ') {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        if key.eq_ignore_ascii_case("SIZE") {
            let value = digits(value).ok_or(Fault::Argument)?;
            if size.replace(value).is_some() {
                return Err(Fault::Argument);
            }
        }
    }
    Ok(size.filter(|size| *size > 0))
}

fn bdat(rest: &str) -> Option<Command> {
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let (size, last) = match words.as_slice() {
        [size] => (digits(size)?, false),
        [size, last] if last.eq_ignore_ascii_case("LAST") => (digits(size)?, true),
        _ => return None,
    };
    let expected = usize::try_from(size).ok()?;
    match grammar(&format!("BDAT {rest}")) {
        Ok(Request::Bdat { chunk_size, is_last }) if chunk_size == expected && is_last == last => {
            Some(Command::Bdat { size, last })
        }
        _ => None,
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail_of(line: &str) -> Result<Mail, Fault> {
        parse(line.as_bytes()).map(|command| match command {
            Command::Mail(mail) => mail,
            other => panic!("{line}: {other:?}"),
        })
    }

    #[test]
    fn commands_are_read_in_any_case() {
        for (line, command) in [
            ("EHLO mail.example", Command::Ehlo("mail.example".into())),
            ("helo [192.0.2.1]", Command::Helo("[192.0.2.1]".into())),
            ("EHLO  two.blanks", Command::Ehlo("two.blanks".into())),
            ("Data", Command::Data),
            ("RSET ", Command::Rset),
            ("quit", Command::Quit),
            ("StartTls", Command::StartTls),
            ("NOOP whatever this is", Command::Noop),
            ("HELP", Command::Help),
            ("VRFY ann", Command::Vrfy),
            ("EXPN list", Command::NotOffered),
            ("ETRN x", Command::NotOffered),
            ("AUTH PLAIN AGFubgBzZWNyZXQ=", Command::NotOffered),
            ("AUTH", Command::NotOffered),
            ("BDAT 0 LAST", Command::Bdat { size: 0, last: true }),
            ("bdat 86 last", Command::Bdat { size: 86, last: true }),
            ("BDAT 10", Command::Bdat { size: 10, last: false }),
            ("RCPT TO:<mbx-00@x.example>", Command::Rcpt("mbx-00@x.example".into())),
            ("rcpt to: <a@[127.0.0.1]>", Command::Rcpt("a@[127.0.0.1]".into())),
            ("RCPT TO:<@r.example:a@b>", Command::Rcpt("@r.example:a@b".into())),
            ("RCPT TO:<Postmaster>", Command::Rcpt("Postmaster".into())),
            ("RCPT TO:<\"a >b\"@c>", Command::Rcpt("\"a >b\"@c".into())),
            ("RCPT TO:<>", Command::Rcpt(String::new())),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn mail_keeps_the_path_as_written() {
        for path in [
            "",
            "a@b.example",
            "postmaster",
            "\"quoted \\\"> x\"@b",
            "j\u{f6}rg@aurora.example",
            "a@[IPv6:2001:db8::1]",
            "@r:a@b",
        ] {
            let mail = mail_of(&format!("MAIL FROM:<{path}>"));
            assert_eq!(mail, Ok(Mail { from: path.into(), ..Mail::default() }), "{path}");
        }
    }

    #[test]
    fn parameters_are_those_announced() {
        let mail = Mail { from: "a@b".into(), size: Some(1234), utf8: true };
        assert_eq!(mail_of("MAIL FROM:<a@b> SIZE=1234 BODY=8BITMIME SMTPUTF8"), Ok(mail.clone()));
        assert_eq!(mail_of("mail from:<a@b> smtputf8  body=7bit size=1234 "), Ok(mail));
        for (line, fault) in [
            ("MAIL FROM:<a@b> SIZE=99999999999999999999", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=18446744073709551616", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=184467440737095516160001", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=-1", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=+1", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=0x10", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE=1 SIZE=2", Fault::Argument),
            ("MAIL FROM:<a@b> SIZE", Fault::Parameter),
            ("MAIL FROM:<a@b> BODY=NINEBIT", Fault::Argument),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", Fault::Parameter),
            ("MAIL FROM:<a@b> FOO=1", Fault::Parameter),
            ("MAIL FROM:<a@b> RET=FULL", Fault::Parameter),
            ("MAIL FROM:<a@b> ENVID=x", Fault::Parameter),
            ("MAIL FROM:<a@b> AUTH=<>", Fault::Parameter),
            ("MAIL FROM:<a@b> REQUIRETLS", Fault::Parameter),
            ("MAIL FROM:<a@b>SIZE=1", Fault::Argument),
            ("MAIL FROM:a@b", Fault::Argument),
            ("MAIL FROM:<a@b", Fault::Argument),
            ("MAIL FROM:<a b@c>", Fault::Argument),
            ("MAIL TO:<a@b>", Fault::Argument),
            ("MAIL", Fault::Argument),
            ("RCPT TO:<a@b> NOTIFY=NEVER", Fault::Parameter),
            ("RCPT TO:<a@b> FOO", Fault::Parameter),
            ("RCPT TO:a@b", Fault::Argument),
            ("RCPT FROM:<a@b>", Fault::Argument),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(fault), "{line}");
        }
    }

    #[test]
    fn size_zero_means_not_known() {
        assert_eq!(mail_of("MAIL FROM:<> SIZE=0"), Ok(Mail::default()));
        let largest = mail_of("MAIL FROM:<> SIZE=18446744073709551614").map(|m| m.size);
        assert_eq!(largest, Ok(Some(u64::MAX - 1)));
    }

    #[test]
    fn what_is_no_command() {
        for (line, fault) in [
            (b"".as_slice(), Fault::Unknown),
            (b" NOOP", Fault::Unknown),
            (b"FOO", Fault::Unknown),
            (b"STARTTLSX", Fault::Unknown),
            (b"MAIL\tFROM:<a@b>", Fault::Octets),
            (b"EHLO", Fault::Argument),
            (b"EHLO  ", Fault::Argument),
            (b"HELO a\x00b", Fault::Octets),
            (b"HELO a\x1fb", Fault::Octets),
            (b"HELO a\x7fb", Fault::Octets),
            (b"HELO a\xffb", Fault::Octets),
            (b"EHLO j\xc3\xb6rg", Fault::Octets),
            (b"RCPT TO:<a\x00b@c>", Fault::Octets),
            (b"MAIL FROM:<\xff@c>", Fault::Octets),
            (b"DATA now", Fault::Argument),
            (b"RSET x", Fault::Argument),
            (b"QUIT x", Fault::Argument),
            (b"STARTTLS x", Fault::Argument),
            (b"BDAT", Fault::Chunk),
            (b"BDAT x", Fault::Chunk),
            (b"BDAT -1 LAST", Fault::Chunk),
            (b"BDAT 1 LAST LAST", Fault::Chunk),
            (b"BDAT 1 FIRST", Fault::Chunk),
            (b"BDAT 99999999999999999999 LAST", Fault::Chunk),
            (b"BDAT 18446744073709551616 LAST", Fault::Chunk),
            (b"BDAT 1\x00 LAST", Fault::Chunk),
            (b"BDAT \xff", Fault::Chunk),
        ] {
            assert_eq!(parse(line), Err(fault), "{}", line.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), verb in 0usize..8) {
            let verbs = ["", "MAIL FROM:<", "RCPT TO:<a@b> ", "BDAT ", "EHLO ", "MAIL FROM:<> SIZE=", "NOOP ", "AUTH "];
            let _ = parse(&[verbs[verb].as_bytes(), &line].concat());
            let _ = parse(&line);
        }
    }
}
