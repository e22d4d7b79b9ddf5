//! The POP3 machine against golden dialogues (`dialogues/pop3.txt`), each fed three ways.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

use postkeep_gateway::pop3::{Credentials, Event, Item, LoginFailure, Pop3, Pop3Error};
use postkeep_shared::{
    mail::{Digest, Uidl},
    pop3::Code,
    wire::{Machine as _, Step},
};

const MESSAGES: [&[u8]; 4] =
    [b"Subject: one\r\n\r\n.dot\r\nbody\r\n", b"Subject: two\r\n\r\nno end", b"Subject: three\r\n\r\n", b""];
/// What LIST says; the third message is damaged before its end, the fourth is gone.
const SIZES: [(u64, u64); 4] = [(28, 28), (24, 22), (50, 50), (45, 45)];

fn items() -> Vec<Item> {
    (1u8..)
        .zip(SIZES)
        .map(|(n, (retr_size, xretr_size))| Item {
            uidl: Uidl([n; 16]),
            retr_size,
            xretr_size,
            digest: Digest([n; 32]),
        })
        .collect()
}

/// A session without socket, disk and keys.
struct Fake {
    machine: Pop3,
    sent: Vec<u8>,
    open: usize,
    given: bool,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Stop {
    Input,
    Tls,
    Close,
    Drop,
}

impl Fake {
    fn new(tls: bool) -> Self {
        let mut fake =
            Self { machine: Pop3::new("msgw.archive.example", tls), sent: Vec::new(), open: 0, given: false };
        assert_eq!(fake.run(), Stop::Input);
        assert_eq!(fake.sent, b"+OK msgw.archive.example Postkeep POP3 ready\r\n");
        fake.sent.clear();
        fake
    }

    fn run(&mut self) -> Stop {
        loop {
            match self.machine.next() {
                Ok(Step::NeedInput) => return Stop::Input,
                Ok(Step::Send(bytes)) => self.sent.extend(bytes),
                Ok(Step::StartTls(_)) => return Stop::Tls,
                Ok(Step::Close) => return Stop::Close,
                Ok(Step::Event(event)) => {
                    if !self.event(event) {
                        return Stop::Drop;
                    }
                }
                Err(Pop3Error::Unanswered) => panic!("the fake session answers every event"),
                Err(_) => return Stop::Drop,
            }
        }
    }

    fn event(&mut self, event: Event) -> bool {
        let machine = &mut self.machine;
        match event {
            Event::Login(Credentials { user, password }) => match (user.as_slice(), password.expose()) {
                (b"mbx-one", b"right") => machine.logged_in(Box::new(items())),
                (b"mbx-one", b"held") => machine.login_failed(LoginFailure::InUse),
                (b"mbx-one", b"crowd") => machine.login_failed(LoginFailure::Busy),
                (b"mbx-one", b"broken") => machine.login_failed(LoginFailure::Damaged),
                (b"mbx-spaces", b" zw\xc3\xb6lf \x7f Zeichen ") => machine.logged_in(Box::new(Vec::new())),
                _ => machine.login_failed(LoginFailure::Wrong),
            },
            Event::Open(3, _) => {
                machine.refuse(Code::SysPerm, "this message is gone from the disk; tell the administrator");
            }
            Event::Open(position, _) => {
                (self.open, self.given) = (position, false);
                machine.opened();
            }
            Event::Content if !self.given => {
                self.given = true;
                // The block size must not matter.
                for block in MESSAGES[self.open].chunks(3) {
                    if !machine.content(block) {
                        break;
                    }
                }
            }
            Event::Content if self.open == 2 => return false,
            Event::Content => machine.content_end(),
            Event::Update(positions) => machine.updated(!positions.contains(&1)),
            Event::Ledger(_) | Event::Origins | Event::Origin(..) | Event::Entries => panic!("not in the dialogues"),
        }
        true
    }
}

/// Stretches between handshakes: octets in, octets out.
#[derive(Default, Debug)]
struct Dialogue {
    title: String,
    tls: bool,
    parts: Vec<(Vec<u8>, Vec<u8>)>,
    end: Option<Stop>,
}

fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.to_string().bytes());
            continue;
        }
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('0') => out.push(0),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two hex digits"));
            }
            other => panic!("unknown escape {other:?} in {text}"),
        }
    }
    out
}

fn dialogues() -> Vec<Dialogue> {
    let mut all: Vec<Dialogue> = Vec::new();
    for line in include_str!("dialogues/pop3.txt").lines() {
        if let Some(title) = line.strip_prefix("== ") {
            let (title, start) = title.split_once(" | ").expect("says clear or tls");
            let parts = vec![Default::default()];
            all.push(Dialogue { title: title.into(), tls: start == "tls", parts, end: None });
            continue;
        }
        let Some(dialogue) = all.last_mut() else { continue };
        let (client, server) = dialogue.parts.last_mut().expect("has one");
        let crlf = |text: &str| [octets(text), b"\r\n".to_vec()].concat();
        if let Some(text) = line.strip_prefix("C: ") {
            client.extend(crlf(text));
        } else if let Some(text) = line.strip_prefix("C-: ") {
            client.extend(octets(text));
        } else if let Some(text) = line.strip_prefix("S: ") {
            server.extend(crlf(text));
        } else if let Some(text) = line.strip_prefix("S-: ") {
            server.extend(octets(text));
        } else {
            match line {
                "" => {}
                "C:" => client.extend(b"\r\n"),
                "S:" => server.extend(b"\r\n"),
                "TLS" => dialogue.parts.push(Default::default()),
                "LOGIN" => {
                    client.extend(b"USER mbx-one\r\nPASS right\r\n");
                    server.extend(b"+OK send PASS\r\n+OK 4 messages, 147 octets\r\n");
                }
                "CLOSE" => dialogue.end = Some(Stop::Close),
                "DROP" => dialogue.end = Some(Stop::Drop),
                other if other.starts_with('#') => {}
                other => panic!("unknown line {other}"),
            }
        }
    }
    all
}

fn check(dialogue: &Dialogue, how: &str, cut: &mut dyn FnMut() -> usize) {
    let mut fake = Fake::new(dialogue.tls);
    let mut stop = Stop::Input;
    for (number, (client, server)) in dialogue.parts.iter().enumerate() {
        if number > 0 {
            assert_eq!(stop, Stop::Tls, "{}: handshake, {how}", dialogue.title);
            fake.machine.tls_started();
        }
        let mut rest = client.as_slice();
        stop = Stop::Input;
        while !rest.is_empty() && stop == Stop::Input {
            let (now, later) = rest.split_at(cut().clamp(1, rest.len()));
            fake.machine.input(now);
            stop = fake.run();
            rest = later;
        }
        let sent = std::mem::take(&mut fake.sent);
        // Cut behind STLS the answer is sent before the forbidden octets arrive; what counts is the end.
        if !dialogue.title.starts_with("5.2/09") {
            assert_eq!(
                String::from_utf8_lossy(&sent),
                String::from_utf8_lossy(server),
                "{}, part {number}, {how}",
                dialogue.title
            );
        }
    }
    let end = dialogue.end.unwrap_or(Stop::Input);
    let handshake_instead = dialogue.title.starts_with("5.2/09") && stop == Stop::Tls;
    assert!(stop == end || handshake_instead, "{}: {stop:?}, {how}", dialogue.title);
}

#[test]
fn every_dialogue_whatever_the_cuts() {
    let all = dialogues();
    assert!(all.len() > 20);
    for dialogue in &all {
        check(dialogue, "one gulp", &mut || usize::MAX);
        check(dialogue, "byte by byte", &mut || 1);
        for round in 0..50u64 {
            let mut state = round * 7919 + 17;
            check(dialogue, &format!("random cuts {round}"), &mut || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % 12
            });
        }
    }
}

/// 5.2/04 5.2/17: the limit is 4,096 octets with the CRLF, and a password that long is never looked at.
#[test]
fn long_lines_are_refused_and_nothing_of_them_is_used() {
    for start in ["PASS ", "NOOP "] {
        let mut fake = Fake::new(true);
        fake.machine.input(b"USER mbx-one\r\n");
        fake.machine.input(format!("{start}{}", "x".repeat(4092)).as_bytes());
        assert_eq!(fake.run(), Stop::Close);
        assert_eq!(fake.sent, b"+OK send PASS\r\n-ERR line too long\r\n");
    }
    // A password of 1 MiB, whatever the cuts: closed at the limit, and no login is ever asked for.
    let flood = [b"USER mbx-one\r\nPASS ".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    for size in [1, 1000, flood.len()] {
        let mut fake = Fake::new(true);
        let mut pieces = flood.chunks(size);
        let stop = pieces.find_map(|piece| {
            fake.machine.input(piece);
            Some(fake.run()).filter(|stop| *stop != Stop::Input)
        });
        assert_eq!(stop, Some(Stop::Close), "in pieces of {size}");
        assert_eq!(fake.sent, b"+OK send PASS\r\n-ERR line too long\r\n");
        assert!(pieces.len() * size + 8192 >= (1 << 20) - 4096 * 2 || size == flood.len(), "nothing more is read");
    }
}

#[test]
fn too_many_mistakes_end_the_connection() {
    let mut fake = Fake::new(true);
    fake.machine.input("XYZZY\r\n".repeat(30).as_bytes());
    assert_eq!(fake.run(), Stop::Close);
    assert_eq!(String::from_utf8_lossy(&fake.sent).lines().count(), 21);
}

/// A list is sent in pieces, so the session can flush between them.
#[test]
fn long_lists_come_in_pieces() {
    let mut machine = Pop3::new("h", true);
    machine.input(b"USER a\r\nPASS b\r\nUIDL\r\n");
    let item = items().remove(0);
    let (mut pieces, mut lines) = (0, 0);
    loop {
        match machine.next().unwrap() {
            Step::Send(bytes) => {
                assert!(bytes.len() < 100_000);
                pieces += 1;
                lines += bytes.iter().filter(|b| **b == b'\n').count();
            }
            Step::Event(Event::Login(_)) => machine.logged_in(Box::new(vec![item.clone(); 10_000])),
            Step::NeedInput => break,
            _ => panic!("nothing else happens"),
        }
    }
    assert!(pieces > 10);
    assert_eq!(lines, 10_000 + 5);
}
