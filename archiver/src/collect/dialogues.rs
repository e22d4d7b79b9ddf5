//! Dialogues of the client machine with scripted servers, honest and hostile, fed in one gulp, byte by byte and in
//! random cuts.

use super::{
    machine::{Asked, Capabilities, Client, ClientError, Event, MAX_LISTED},
    samples,
};
use data_encoding::BASE64;
use postkeep_shared::{
    crypt::Password,
    pop3::{Code, ReplyError},
    wire::{LineError, Machine as _, Step},
};

/// What the server answers to the line that begins like this; the first one is the greeting.
type Script<'a> = [(&'a str, &'a [u8])];

#[derive(Clone, Copy)]
enum Feed {
    Gulp,
    Bytes,
    Cuts(u64),
}

impl Feed {
    fn next(&mut self, waiting: usize) -> usize {
        match self {
            Self::Gulp => waiting,
            Self::Bytes => 1,
            Self::Cuts(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                1 + (*seed >> 33) as usize % waiting.min(40)
            }
        }
    }
}

/// Plays a script to its end; content events are joined.
fn play(
    script: &Script<'_>,
    secure: bool,
    mut feed: Feed,
    mut answer: impl FnMut(&mut Client, &Event),
) -> (Vec<Event>, Result<(), ClientError>) {
    let mut client = Client::new(secure);
    let mut lines = script.iter();
    let mut wire: Vec<u8> = lines.next().map(|(_, greeting)| greeting.to_vec()).unwrap_or_default();
    let mut events: Vec<Event> = Vec::new();
    loop {
        match client.next() {
            Err(error) => {
                // How much came before the fault depends on the feeding.
                events.retain(|event| !matches!(event, Event::Content(_)));
                return (events, Err(error));
            }
            Ok(Step::Send(line)) => {
                let line = String::from_utf8(line).expect("text");
                let (expected, reply) = lines.next().unwrap_or_else(|| panic!("nothing scripted for {line}"));
                assert!(line.starts_with(expected), "{line} instead of {expected}");
                wire.extend_from_slice(reply);
            }
            Ok(Step::NeedInput) if wire.is_empty() => return (events, Ok(())),
            Ok(Step::NeedInput) => {
                let count = feed.next(wire.len());
                let piece: Vec<u8> = wire.drain(..count).collect();
                client.input(&piece);
            }
            Ok(Step::StartTls(_)) if wire.is_empty() => client.secured(),
            // What came in clear behind the answer to STLS.
            Ok(Step::StartTls(_)) => client.input(&std::mem::take(&mut wire)),
            Ok(Step::Event(event)) => {
                answer(&mut client, &event);
                match (events.last_mut(), event) {
                    (Some(Event::Content(all)), Event::Content(more)) => all.extend_from_slice(&more),
                    (_, event) => events.push(event),
                }
            }
            Ok(Step::Close) => return (events, Ok(())),
        }
    }
}

/// The same result for every way of feeding.
fn all_ways(
    script: &Script<'_>,
    secure: bool,
    answer: impl Fn(&mut Client, &Event),
) -> (Vec<Event>, Result<(), ClientError>) {
    let gulp = play(script, secure, Feed::Gulp, &answer);
    assert_eq!(play(script, secure, Feed::Bytes, &answer), gulp, "byte by byte");
    for seed in 1..20 {
        assert_eq!(play(script, secure, Feed::Cuts(seed), &answer), gulp, "cuts {seed}");
    }
    gulp
}

/// Logs in; further commands by the test.
fn login(client: &mut Client, event: &Event) {
    if let Event::Ready(_) = event {
        client.login("mbx", Password::received(b"pw"));
    }
}

const GREETING: (&str, &[u8]) = ("", b"+OK ready\r\n");
const CAPA: (&str, &[u8]) = ("CAPA", b"+OK\r\nUSER\r\nXRETR\r\npipelining\r\nXLEDGER\r\nXORIGIN\r\n.\r\n");
const USER: (&str, &[u8]) = ("USER mbx", b"+OK\r\n");
const PASS: (&str, &[u8]) = ("PASS pw", b"+OK\r\n");
const READY: Event = Event::Ready(Capabilities { pipelining: true, xledger: true, xorigin: true, xretr: true });

#[test]
fn ledgers_of_nodes_that_are_gone() {
    let entry = samples::ledger(1).remove(0);
    let node = hex(&entry.node.0);
    let list = format!("+OK\r\n{node} 7\r\n.\r\n");
    let ledger = format!("+OK node={node} entries follow\r\n{}\r\n.\r\n", BASE64.encode(&entry.encode()));
    let asked = format!("XORIGIN {node} 1");
    let script: Vec<(&str, &[u8])> = vec![
        GREETING,
        CAPA,
        USER,
        PASS,
        ("XORIGIN", list.as_bytes()),
        (&asked, ledger.as_bytes()),
        ("QUIT", b"+OK bye\r\n"),
    ];
    let (events, result) = all_ways(&script, true, |client, event| {
        login(client, event);
        match event {
            Event::LoggedIn => client.origins(),
            Event::Complete(Asked::Origins) => client.origin(entry.node, 1),
            Event::Complete(Asked::Ledger) => client.quit(),
            _ => {}
        }
    });
    assert_eq!(result, Ok(()));
    let expected = [
        READY,
        Event::LoggedIn,
        Event::Origin(entry.node, 7),
        Event::Complete(Asked::Origins),
        Event::Node(entry.node),
        Event::Entry(Ok(entry.clone())),
        Event::Complete(Asked::Ledger),
        Event::Quit,
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_whole_session_with_stls() {
    let entry = samples::ledger(1).remove(0);
    let ledger =
        format!("+OK node={} entries follow\r\n{}\r\n.\r\n", hex(&entry.node.0), BASE64.encode(&entry.encode()));
    let xretr = format!("+OK 5 {}\r\nab\r\nc", entry.body.digest);
    let script: Vec<(&str, &[u8])> = vec![
        GREETING,
        ("CAPA", b"+OK\r\nSTLS\r\nXRETR\r\n.\r\n"),
        ("STLS", b"+OK begin\r\n"),
        ("CAPA", b"+OK\r\nXLEDGER\r\n.\r\n"),
        USER,
        PASS,
        ("XLEDGER 1", ledger.as_bytes()),
        ("STAT", b"+OK 2 12\r\n"),
        ("LIST", b"+OK\r\n1 5\r\n2 7 octets\r\n.\r\n"),
        ("UIDL", b"+OK\r\n1 a\r\n2 ..b\r\n.\r\n"),
        ("RETR 1", b"+OK\r\n..x\r\nLF.\n.\n\r\n.\r\n"),
        ("XRETR 2", xretr.as_bytes()),
        ("QUIT", b"+OK bye\r\n"),
    ];
    let (events, result) = all_ways(&script, false, |client, event| {
        login(client, event);
        if *event == Event::LoggedIn {
            client.ledger(1);
            client.stat();
            client.list();
            client.uidl();
            client.retrieve(1, 100, false);
            client.retrieve(2, 100, true);
            client.quit();
        }
    });
    assert_eq!(result, Ok(()));
    let expected = [
        // What was announced in clear is forgotten.
        Event::Ready(Capabilities { xledger: true, ..Capabilities::default() }),
        Event::LoggedIn,
        Event::Node(entry.node),
        Event::Entry(Ok(entry.clone())),
        Event::Complete(Asked::Ledger),
        Event::Counted(2, 12),
        Event::Size(1, 5),
        Event::Size(2, 7),
        Event::Complete(Asked::List),
        Event::Name(1, b"a".to_vec()),
        Event::Name(2, b"..b".to_vec()),
        Event::Complete(Asked::Uidl),
        Event::Begins(None),
        Event::Content(b".x\r\nLF.\n.\n\r\n".to_vec()),
        Event::Ends,
        Event::Begins(Some((5, entry.body.digest))),
        Event::Content(b"ab\r\nc".to_vec()),
        Event::Ends,
        Event::Quit,
    ];
    assert_eq!(events, expected);
}

fn hex(octets: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

/// 5.3/02 5.3/03 5.3/04 5.3/05, on the machine alone.
#[test]
fn no_password_before_tls() {
    let capa: &[u8] = b"+OK\r\nUSER\r\n.\r\n";
    for (script, error) in [
        (vec![GREETING, ("CAPA", capa)], ClientError::NoTls),
        (vec![GREETING, ("CAPA", b"-ERR what\r\n")], ClientError::NoTls),
        (vec![GREETING, ("CAPA", b"+OK\r\nSTLS\r\n.\r\n"), ("STLS", b"-ERR no\r\n")], ClientError::NoTls),
        (
            vec![GREETING, ("CAPA", b"+OK\r\nSTLS\r\n.\r\n"), ("STLS", b"+OK\r\n+OK injected\r\n")],
            ClientError::Injected,
        ),
        (vec![GREETING, ("CAPA", b"+OK\r\nSTLS\r\n.\r\n"), ("STLS", b"+OK\r\n\0")], ClientError::Injected),
        (vec![("", b"-ERR \x1b[2J busy\r\n")], ClientError::Turned("?[2J busy".into())),
        (vec![("", b"220 smtp.example ESMTP\r\n")], ReplyError.into()),
        (vec![("", b"+OK\n")], LineError::BareLineEnd.into()),
    ] {
        let (events, result) = all_ways(&script, false, login);
        assert_eq!((events, result), (vec![], Err(error)));
    }
    let banner = vec![b'x'; 5000];
    let (_, result) = all_ways(&[("", &banner)], false, |_, _| {});
    assert_eq!(result, Err(LineError::TooLong.into()));
}

#[test]
fn refusals_are_events() {
    let script = vec![
        GREETING,
        CAPA,
        USER,
        PASS,
        ("XRETR 1", b"-ERR [SYS/PERM] gone\x07\r\n".as_slice()),
        ("XRETR 2", b"+OK 0 0000000000000000000000000000000000000000000000000000000000000000\r\n"),
        ("QUIT", b"-ERR [SYS/TEMP] nothing removed\r\n"),
    ];
    let (events, result) = all_ways(&script, true, |client, event| {
        login(client, event);
        if *event == Event::LoggedIn {
            client.retrieve(1, 100, true);
            client.retrieve(2, 100, true);
            client.quit();
        }
    });
    assert_eq!(result, Ok(()));
    assert_eq!(events[2], Event::Refused(Asked::Retrieve, Some(Code::SysPerm), "gone?".into()));
    assert_eq!(events[4], Event::Ends, "an empty message is one too");
    assert_eq!(events[5], Event::Refused(Asked::Quit, Some(Code::SysTemp), "nothing removed".into()));
    let script = vec![GREETING, CAPA, USER, ("PASS", b"-ERR [AUTH] no\r\n".as_slice())];
    let (events, _) = all_ways(&script, true, login);
    assert_eq!(events, [READY, Event::Refused(Asked::Login, Some(Code::Auth), "no".into())]);
}

/// 5.3/13 5.3/15, on the machine alone.
#[test]
fn answers_that_cannot_be_read_end_the_session() {
    let too_long = format!("+OK 101 {}\r\n", hex(&[0; 32]));
    for (command, reply, error) in [
        ("LIST", b"+OK\r\n1 -1\r\n.\r\n".as_slice(), ClientError::Malformed("LIST")),
        ("LIST", b"+OK\r\n1 99999999999999999999\r\n.\r\n", ClientError::Malformed("LIST")),
        ("LIST", b"+OK\r\n1 big\r\n.\r\n", ClientError::Malformed("LIST")),
        ("LIST", b"+OK\r\n0 5\r\n.\r\n", ClientError::Malformed("LIST")),
        ("LIST", b"+OK\r\n\r\n.\r\n", ClientError::Malformed("LIST")),
        ("STAT", b"+OK\r\n", ClientError::Malformed("STAT")),
        ("STAT", b"+OK 1 2\r\n+OK again\r\n", ClientError::Unasked),
        ("XLEDGER", b"+OK entries follow\r\n.\r\n", ClientError::Malformed("XLEDGER")),
        ("XRETR", b"+OK 5\r\n", ClientError::Malformed("XRETR")),
        ("XRETR", too_long.as_bytes(), ClientError::TooLong),
        ("RETR", &[b"+OK\r\n".as_slice(), &[b'x'; 200]].concat(), ClientError::TooLong),
    ] {
        let script = vec![GREETING, CAPA, USER, PASS, (command, reply)];
        let (_, result) = all_ways(&script, true, |client, event| {
            login(client, event);
            if *event == Event::LoggedIn {
                match command {
                    "LIST" => client.list(),
                    "STAT" => client.stat(),
                    "XLEDGER" => client.ledger(1),
                    "XRETR" => client.retrieve(1, 100, true),
                    _ => client.retrieve(1, 100, false),
                }
            }
        });
        assert_eq!(result, Err(error), "{command} {}", String::from_utf8_lossy(reply));
    }
}

/// 5.3/09: ten million lines; the millionth is the last one read.
#[test]
fn endless_lists_stop_at_the_limit() {
    let reply = [b"+OK\r\n".as_slice(), &b"7 x\r\n".repeat(MAX_LISTED + 1)].concat();
    let script = vec![GREETING, CAPA, USER, PASS, ("UIDL", reply.as_slice())];
    let mut names = 0;
    let (_, result) = play(&script, true, Feed::Gulp, |client, event| {
        login(client, event);
        match event {
            Event::LoggedIn => client.uidl(),
            Event::Name(..) => names += 1,
            _ => {}
        }
    });
    assert_eq!(result, Err(ClientError::Endless("UIDL")));
    assert_eq!(names, MAX_LISTED);
}

/// 5.3/20: held in blocks of 64 KiB, however long the line is.
#[test]
fn a_message_of_one_long_line_streams() {
    let line = vec![b'x'; 3_000_000];
    let reply = [b"+OK\r\n".as_slice(), &line, b"\r\n.\r\n"].concat();
    let script = vec![GREETING, CAPA, USER, PASS, ("RETR 1", reply.as_slice())];
    let mut largest = 0;
    let (_, result) = play(&script, true, Feed::Gulp, |client, event| {
        login(client, event);
        match event {
            Event::LoggedIn => client.retrieve(1, 4_000_000, false),
            Event::Content(octets) => largest = largest.max(octets.len()),
            _ => {}
        }
    });
    assert_eq!(result, Ok(()));
    assert!(largest <= 64 * 1024, "{largest}");
}

#[test]
fn a_damaged_ledger_line_is_told_and_not_trusted() {
    let node = hex(&samples::node().0);
    let ledger = format!("+OK node={node} entries follow\r\n{}\r\n.\r\n", BASE64.encode(&[7; 276]));
    let script = vec![GREETING, CAPA, USER, PASS, ("XLEDGER 4", ledger.as_bytes())];
    let (events, result) = all_ways(&script, true, |client, event| {
        login(client, event);
        if *event == Event::LoggedIn {
            client.ledger(4);
        }
    });
    assert_eq!(result, Ok(()));
    assert!(matches!(events[3], Event::Entry(Err(_))));
}
