//! Every reply the SMTP server can give, in one table (`docs/replies.md` is the same table; a test compares them).
//!
//! Reply codes: RFC 5321 §4.2, enhanced codes: RFC 3463 and RFC 2034. A `5xx` on a journal report can mean that the
//! report is lost for ever, so a `5xx` stands only where no operator can help by waiting.

/// What follows a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The session goes on.
    GoOn,
    /// The connection is closed.
    Close,
}

/// One reply: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Reply code.
    pub code: u16,
    /// Enhanced status code, empty where RFC 2034 §3 allows none.
    pub enhanced: &'static str,
    /// Text for people; what stands in `<…>` is filled in.
    pub text: &'static str,
    /// When it is given.
    pub when: &'static str,
    /// What follows.
    pub then: Then,
}

impl Reply {
    /// The reply as one line.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        self.line_with(self.text)
    }

    /// The reply as one line with `text` in place of the table's.
    #[must_use]
    pub fn line_with(&self, text: &str) -> Vec<u8> {
        self.lines(&[text])
    }

    /// The reply in several lines (RFC 5321 §4.2.1).
    #[must_use]
    pub fn lines<T: AsRef<str>>(&self, texts: &[T]) -> Vec<u8> {
        let mut out = String::new();
        for (i, text) in texts.iter().enumerate() {
            let mark = if i + 1 == texts.len() { ' ' } else { '-' };
            let space = if self.enhanced.is_empty() { "" } else { " " };
            out.push_str(&format!("{}{mark}{}{space}{}\r\n", self.code, self.enhanced, text.as_ref()));
        }
        out.into_bytes()
    }

    /// Whether waiting can help (`4xx`).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// The row of `docs/replies.md`.
    #[must_use]
    pub fn row(&self) -> String {
        let then = match self.then {
            Then::GoOn => "",
            Then::Close => "close",
        };
        format!("| {} | {} | {} | {} | {then} |", self.code, self.enhanced, self.text, self.when)
    }
}

macro_rules! replies {
    ($($name:ident: $code:literal $enhanced:literal $text:literal, $when:literal, $then:ident;)*) => {
        $(
            #[doc = $when]
            pub(super) const $name: Reply =
                Reply { code: $code, enhanced: $enhanced, text: $text, when: $when, then: Then::$then };
        )*
        /// All replies, in the order of `docs/replies.md`.
        pub const ALL: &[Reply] = &[$($name),*];
    };
}

replies! {
    GREETING: 220 "" "<hostname> ESMTP Postkeep", "a connection begins", GoOn;
    HELLO: 250 "" "<hostname>", "HELO; EHLO adds one line per extension", GoOn;
    SENDER: 250 "2.1.0" "Sender noted", "MAIL", GoOn;
    RECIPIENT: 250 "2.1.5" "Recipient noted", "RCPT of an active mailbox, also when named before", GoOn;
    START: 354 "" "Go ahead; end with CRLF.CRLF", "DATA, once a sealed file was begun for every mailbox", GoOn;
    CHUNK: 250 "2.0.0" "<n> octets noted", "BDAT without LAST; nothing is promised yet", GoOn;
    ACCEPTED: 250 "2.6.0" "<uidl> seq=<number> receipt=<16 hex digits> accepted",
        "message and receipt are on stable storage; several mailboxes: one group each, separated by `; `", GoOn;
    RESET: 250 "2.0.0" "Nothing is pending now", "RSET", GoOn;
    NOTHING: 250 "2.0.0" "Nothing done", "NOOP", GoOn;
    CANNOT_VERIFY: 252 "2.1.5" "Not told here; RCPT will tell", "VRFY: not offered, answered as RFC 5321 §7.3 asks", GoOn;
    HELP: 214 "2.0.0" "This host takes journal reports only; see RFC 5321", "HELP", GoOn;
    READY_FOR_TLS: 220 "2.0.0" "Start TLS now", "STARTTLS, when nothing was sent behind it; everything said before is forgotten", GoOn;
    BYE: 221 "2.0.0" "Goodbye", "QUIT", Close;

    SHUTDOWN: 421 "4.3.2" "Stopping for maintenance; try again later", "the gateway is being stopped", Close;
    TOO_MANY: 421 "4.3.2" "Too many connections; try again later", "connections of all clients at their limit", Close;
    TOO_MANY_HERE: 421 "4.7.0" "Too many connections from your address; try again later", "connections of this address at their limit", Close;
    STOPPED: 421 "4.3.0" "Storage is out of order; try again later", "a connection begins or MAIL comes after storage has failed", Close;
    SILENCE: 421 "4.4.2" "Silent for too long", "no command or no content within its deadline", Close;
    TOO_SLOW: 421 "4.4.2" "Too slow; try again later",
        "a message below `smtp.minimum_rate` after `smtp.rate_grace`, or longer under way than `smtp.transaction_timeout`", Close;
    TOO_MANY_ERRORS: 421 "4.7.0" "Too many errors", "the 21st wrong command, or the 10th recipient that does not exist", Close;
    TOO_MUCH_TALK: 421 "4.7.0" "Too many commands without mail", "the 101st NOOP, RSET, VRFY or HELP since the last message", Close;
    NEEDS_TLS: 450 "4.7.0" "Use STARTTLS first", "MAIL in clear while `smtp.require_tls` is set", GoOn;
    SUSPENDED: 450 "4.2.1" "Mailbox suspended; try again later", "RCPT of a suspended mailbox", GoOn;
    NOT_FROM_HERE: 450 "4.7.1" "Not taken from you now; try again later", "RCPT of a mailbox whose source rules do not fit the client, with `action = \"refuse\"`", GoOn;
    UNREADABLE: 451 "4.3.0" "Mailbox not available now; try again later", "RCPT of a mailbox whose definition cannot be read", GoOn;
    TROUBLE: 451 "4.3.0" "Not stored; try again later", "storage trouble while a message is begun, written or committed, or MAIL on a disk that was not fit at the start; nothing was stored", GoOn;
    FULL: 452 "4.3.1" "Not enough space; try again later", "MAIL while space is short, or space ran out; nothing was stored", GoOn;
    TOO_MANY_RECIPIENTS: 452 "4.5.3" "Too many recipients; send the rest again", "the 17th mailbox or the 1,001st RCPT of a transaction", GoOn;
    NOBODY_NOW: 451 "4.5.1" "Nobody to deliver to now; try again later",
        "RCPT, DATA or BDAT after MAIL or every RCPT was put off with a 4xx: a 5xx here could be taken for the last word", GoOn;

    UNKNOWN: 500 "5.5.1" "Unknown command", "a verb that is none, an empty line", GoOn;
    BAD_LINE: 500 "5.5.2" "Line too long, or CR or LF on its own", "a command line over 4,096 octets with its CRLF, or a bare CR or LF in it", Close;
    NOT_SMTP: 500 "5.5.2" "This is SMTP", "the first line is an HTTP request", Close;
    BAD_OCTETS: 501 "5.5.2" "Octets that no command may have", "a control character, something that is not UTF-8, or in HELO and EHLO not ASCII", GoOn;
    BAD_ARGUMENT: 501 "5.5.4" "Cannot read that argument", "missing, surplus or malformed argument or parameter value; SIZE beyond 64 bits or negative", GoOn;
    BAD_CHUNK: 501 "5.5.4" "Cannot read that chunk size", "BDAT without a readable size: where the next command begins is unknown", Close;
    NOT_OFFERED: 502 "5.5.1" "Not offered here", "EXPN, ETRN, AUTH and other commands of extensions that are not announced, STARTTLS where it is not", GoOn;
    SEQUENCE: 503 "5.5.1" "Not in this order", "a command out of order: RCPT, DATA or BDAT before MAIL, MAIL before EHLO or within a transaction, DATA after BDAT, STARTTLS within TLS", GoOn;
    NO_SUCH_MAILBOX: 550 "5.1.1" "No such mailbox here", "RCPT of one of our domains without such a mailbox, a malformed or routed address, a domain literal", GoOn;
    POSTMASTER: 550 "5.1.1" "This host takes journal reports only; write to the postmaster of the parent domain",
        "RCPT of postmaster: nobody reads mail here, and saying so is better than to swallow it", GoOn;
    NO_RELAY: 550 "5.7.1" "Not one of our domains", "RCPT of another domain", GoOn;
    TOO_BIG: 552 "5.3.4" "Message over the size limit", "SIZE or the octets received are over `smtp.max_message_size`", GoOn;
    TOO_BIG_BY_FAR: 552 "5.3.4" "Message over the size limit, rest not read", "a chunk or message more than four times over it", Close;
    NO_RECIPIENT: 554 "5.5.1" "No valid recipient", "DATA or BDAT after every RCPT was refused with a 5xx", GoOn;
    LOOP: 554 "5.4.6" "Mail loop: more than 100 Received fields", "the header holds 101 Received fields (RFC 5321 §6.3)", GoOn;
    UNKNOWN_PARAMETER: 555 "5.5.4" "Parameter not offered here", "MAIL or RCPT with a parameter that is not announced, BODY=BINARYMIME among them", GoOn;
}

/// What a connection is told that is one too many.
#[must_use]
pub fn busy() -> Vec<u8> {
    TOO_MANY.line()
}

/// What a connection is told that is one too many for its address.
#[must_use]
pub fn busy_address() -> Vec<u8> {
    TOO_MANY_HERE.line()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_the_same() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/replies.md");
        let text = std::fs::read_to_string(file).expect("docs/replies.md");
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| code")).collect();
        let expected: Vec<String> = ALL.iter().map(Reply::row).collect();
        assert_eq!(rows, expected, "expected:\n{}", expected.join("\n"));
    }

    #[test]
    fn codes_fit_each_other_and_lines_are_short() {
        for reply in ALL {
            let class = reply.code / 100;
            let enhanced_fits = reply.enhanced.is_empty() || reply.enhanced.starts_with(&format!("{class}."));
            assert!(enhanced_fits, "{reply:?}");
            assert!(reply.line().len() <= 512, "{reply:?} (RFC 5321 §4.5.3.1.5)");
        }
    }

    #[test]
    fn several_lines_carry_the_code_each() {
        assert_eq!(ACCEPTED.lines(&["a;", "b"]), b"250-2.6.0 a;\r\n250 2.6.0 b\r\n");
        assert_eq!(HELLO.lines(&["h", "PIPELINING"]), b"250-h\r\n250 PIPELINING\r\n");
    }
}
