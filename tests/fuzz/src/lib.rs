//! What the fuzz targets and the seeded mutations do with octets from anybody: give them to the parsers, and check what
//! must hold whatever they are. A panic is a finding.

use postkeep_archiver::collect::machine::{Client, Event as Answer};
use postkeep_gateway::{
    ledger::{HEADER_LEN, Header},
    pop3::{Event as Pop3Event, Item, Pop3},
    smtp::{Config, Event, Found, Smtp, Trouble},
    spool::{MAX_AGE_HEADER, age_geometry},
};
use postkeep_shared::{
    crypt::Password,
    mail::{Digest, Uidl},
    pop3::{Code, Command, Reply},
    receipt::{ENTRY_LEN, Entry, parse_sealed_trace, parse_trace},
    wire::{Machine as _, Step},
};

/// A parser's name and what is done with it.
pub type Target = (&'static str, fn(&[u8]));

/// Every parser.
pub const TARGETS: [Target; 7] = [
    ("smtp_line", smtp_line),
    ("data", data),
    ("bdat", bdat),
    ("pop3_command", pop3_command),
    ("pop3_reply", pop3_reply),
    ("spool", spool),
    ("ledger", ledger),
];

const ENVELOPE: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<mbx-00000000000000000000000000000001@gw.example>\r\n";

/// Pieces of a size that the octets themselves choose, so that a finding can be repeated.
fn pieces(octets: &[u8]) -> usize {
    1 + octets.iter().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(*b))) % 13
}

/// Replies and messages of an SMTP session that gets these octets in pieces of this size.
fn smtp(octets: &[u8], size: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let config = Config {
        hostname: "gw.example".into(),
        domains: vec!["gw.example".into()],
        max_message_size: 4096,
        offer_tls: false,
        require_tls: false,
        tls: false,
    };
    let mut machine = Smtp::new(config);
    let (mut sent, mut messages, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = octets.chunks(size);
    loop {
        let Ok(step) = machine.next();
        match step {
            Step::NeedInput => match rest.next() {
                Some(piece) => machine.input(piece),
                None => break,
            },
            Step::Send(reply) => sent.extend(reply),
            Step::StartTls(_) => panic!("TLS is not offered"),
            Step::Close => break,
            Step::Event(Event::Room(_)) => machine.room(Ok(())),
            Step::Event(Event::Lookup(_)) => machine.found(Found::Active),
            Step::Event(Event::Begin) => machine.begun(Ok(())),
            Step::Event(Event::Content(block)) => {
                assert!(!block.is_empty() && block.len() <= 64 * 1024 + 1);
                open.extend(block);
                assert!(open.len() <= 4096, "never more than the limit");
                machine.written(Ok(()));
            }
            Step::Event(Event::Commit) => {
                messages.push(std::mem::take(&mut open));
                machine.failed(Trouble::Other);
            }
            Step::Event(Event::Discard) => open.clear(),
            Step::Event(Event::Refused { reply, .. }) => assert!(reply.code >= 400),
        }
    }
    (sent, messages)
}

/// A session in one gulp and in pieces comes to the same; every line of every reply is one.
fn smtp_both_ways(octets: &[u8]) -> Vec<Vec<u8>> {
    let gulp = smtp(octets, octets.len().max(1));
    assert_eq!(smtp(octets, pieces(octets)), gulp, "the cuts change the outcome");
    for line in gulp.0.split_inclusive(|b| *b == b'\n') {
        assert!(line.ends_with(b"\r\n") && line.len() <= 512 && line.iter().take(3).all(u8::is_ascii_digit));
        assert!(!line.starts_with(b"250 2.6.0"), "nothing was stored and nothing may be promised");
    }
    gulp.1
}

/// Command lines from the greeting on, and behind an envelope.
pub fn smtp_line(octets: &[u8]) {
    smtp_both_ways(octets);
    smtp_both_ways(&[ENVELOPE, octets].concat());
}

/// What follows DATA.
pub fn data(octets: &[u8]) {
    let messages = smtp_both_ways(&[ENVELOPE, b"DATA\r\n", octets].concat());
    // The message is what stands before the first CRLF.CRLF, and its stuffing was all that went.
    let whole = [b"\r\n", octets].concat();
    let end = whole.windows(5).position(|w| w == b"\r\n.\r\n");
    match (messages.first(), end) {
        (Some(message), Some(end)) => assert!(message.len() <= end, "{} of {end}", message.len()),
        (Some(_), None) => panic!("ended without CRLF.CRLF"),
        (None, _) => {}
    }
}

/// What follows the envelope when chunks are announced: as one chunk, and as chunk commands of its own.
pub fn bdat(octets: &[u8]) {
    let chunk = format!("BDAT {} LAST\r\n", octets.len());
    let messages = smtp_both_ways(&[ENVELOPE, chunk.as_bytes(), octets].concat());
    let is_loop = octets.len() > 900;
    if octets.len() <= 4096 && !is_loop {
        assert_eq!(messages, [octets], "a chunk is kept octet for octet");
    }
    smtp_both_ways(&[ENVELOPE, b"BDAT ", octets].concat());
}

fn pop3(octets: &[u8], size: usize) -> Vec<u8> {
    let mut machine = Pop3::new("gw.example", true);
    let item = |n| Item { uidl: Uidl([n; 16]), retr_size: 14, xretr_size: 14, digest: Digest([n; 32]) };
    let (mut sent, mut given) = (Vec::new(), false);
    let mut rest = octets.chunks(size);
    while let Ok(step) = machine.next() {
        match step {
            Step::NeedInput => match rest.next() {
                Some(piece) => machine.input(piece),
                None => break,
            },
            Step::Send(answer) => sent.extend(answer),
            Step::StartTls(_) => panic!("TLS is there already"),
            Step::Close => break,
            Step::Event(Pop3Event::Login(_)) => machine.logged_in(Box::new(vec![item(1), item(2)])),
            Step::Event(Pop3Event::Open(position, _)) => {
                assert!(position < 2);
                given = false;
                machine.opened();
            }
            Step::Event(Pop3Event::Content) if !given => {
                given = true;
                machine.content(b"Subject: \r\n.\r\n");
            }
            Step::Event(Pop3Event::Content) => machine.content_end(),
            Step::Event(Pop3Event::Ledger(_)) => machine.refuse(Code::SysTemp, "not now"),
            Step::Event(Pop3Event::Origins) => machine.origins(&[]),
            Step::Event(Pop3Event::Origin(..)) => machine.refuse(Code::SysPerm, "not kept here"),
            Step::Event(Pop3Event::Entries) => machine.entries(&[]),
            Step::Event(Pop3Event::Update(positions)) => machine.updated(positions.len() < 3),
        }
    }
    sent
}

/// A command line alone, and a session before and after login.
pub fn pop3_command(octets: &[u8]) {
    let line: Vec<u8> = octets.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
    if let Ok(command) = Command::parse(&line) {
        let written = command.to_line();
        let again = Command::parse(written.strip_suffix(b"\r\n").unwrap_or_default());
        assert!(again.is_ok_and(|again| again.to_line() == written), "what is written can be read");
    }
    for session in [octets.to_vec(), [b"USER a\r\nPASS b\r\n", octets].concat()] {
        let gulp = pop3(&session, session.len().max(1));
        assert_eq!(pop3(&session, pieces(octets)), gulp, "the cuts change the outcome");
    }
}

/// Everything a server says to our client from the greeting on, and from the login on.
pub fn pop3_reply(octets: &[u8]) {
    if let Ok(reply) = Reply::parse(octets) {
        let written = reply.to_line();
        assert!(written.ends_with(b"\r\n"));
    }
    const OPENING: &[u8] = b"+OK\r\n+OK\r\nXRETR\r\nXLEDGER\r\n.\r\n+OK\r\n+OK\r\n";
    for said in [octets.to_vec(), [OPENING, octets].concat()] {
        for size in [said.len().max(1), pieces(octets)] {
            client(&said, size);
        }
    }
}

fn client(said: &[u8], size: usize) {
    let mut client = Client::new(true);
    let mut rest = said.chunks(size);
    let mut content = 0;
    while let Ok(step) = client.next() {
        match step {
            Step::NeedInput => match rest.next() {
                Some(piece) => client.input(piece),
                None => break,
            },
            Step::Send(line) => assert!(line.ends_with(b"\r\n")),
            Step::StartTls(_) => panic!("TLS is there already"),
            Step::Close => break,
            Step::Event(Answer::Ready(_)) => client.login("mbx", Password::received(b"pw")),
            Step::Event(Answer::LoggedIn) => {
                client.ledger(1);
                client.stat();
                client.list();
                client.uidl();
                client.retrieve(1, 1000, false);
                client.retrieve(2, 1000, true);
                client.quit();
            }
            Step::Event(Answer::Content(octets)) => {
                content += octets.len();
                assert!(content <= 2000, "never more than the limits of both");
            }
            Step::Event(Answer::Refused(_, _, text)) => assert!(!text.chars().any(char::is_control)),
            Step::Event(_) => {}
        }
    }
}

/// The outside of a sealed file, and the trace header within.
pub fn spool(octets: &[u8]) {
    let start = octets.get(..octets.len().min(MAX_AGE_HEADER)).unwrap_or_default();
    for len in [octets.len() as u64, u64::MAX, 0] {
        if let Some(sealed) = age_geometry(start, len) {
            assert!(sealed < len);
        }
    }
    if let Ok(trace) = parse_trace(octets) {
        assert!(trace.len <= octets.len());
    }
    if let Ok((len, evidence)) = parse_sealed_trace(octets) {
        assert!(len <= octets.len());
        let field = evidence.to_field();
        assert!(field.ends_with("\r\n") && field.is_ascii());
    }
}

/// A ledger file: header and entries back to back.
pub fn ledger(octets: &[u8]) {
    let (header, entries) = octets.split_at(octets.len().min(HEADER_LEN));
    if let Some(header) = header.first_chunk().and_then(Header::decode) {
        assert_eq!(header.encode().as_slice(), octets.get(..HEADER_LEN).unwrap_or_default());
    }
    for octets in entries.chunks(ENTRY_LEN).chain([octets]) {
        if let Ok(entry) = Entry::decode(octets) {
            assert!(octets.starts_with(&entry.encode()), "one entry has one spelling");
            let _genuine = entry.verify();
            let _sizes = (entry.retr_size(), entry.xretr_size());
        }
    }
}
