//! A mailbox of a million tiny messages. Alone in its program, since memory is measured.
#![allow(clippy::unwrap_used)]

use postkeep_archiver::collect::{
    listing::Collector,
    machine::{Client, Event},
};
use postkeep_shared::{
    crypt::Password,
    mail::Uidl,
    wire::{Machine as _, Step},
};
use std::fmt::Write as _;

const MESSAGES: u64 = 1_000_000;
/// Messages whose lines arrive at once.
const PIECE: u64 = 1000;

/// 5.3/30: LIST and UIDL of a million messages are read, compared and held in less than 256 MiB. (Fetching goes in batches of 64,
/// each committed before the next; `kill` shows that it resumes.)
#[test]
fn a_million_messages_fit() {
    let mut client = Client::new(true);
    let mut collector = Collector::default();
    let (mut at, mut column, mut named) = (0, 0, 0);
    client.input(b"+OK\r\n");
    let listing = loop {
        match client.next().unwrap() {
            Step::Send(line) => match String::from_utf8(line).unwrap().split([' ', '\r']).next().unwrap() {
                "CAPA" => client.input(b"+OK\r\nPIPELINING\r\n.\r\n"),
                "STAT" => client.input(format!("+OK {MESSAGES} {}\r\n", MESSAGES * 900).as_bytes()),
                "LIST" | "UIDL" => {
                    client.input(b"+OK\r\n");
                    (at, column) = (0, column + 1);
                }
                _ => client.input(b"+OK\r\n"),
            },
            Step::NeedInput => {
                let mut lines = String::new();
                for n in at + 1..=at + PIECE {
                    let uidl = Uidl(u128::from(n * 7919).to_be_bytes());
                    match column {
                        1 => writeln!(lines, "{n} 900\r").unwrap(),
                        _ => writeln!(lines, "{n} {uidl}\r").unwrap(),
                    }
                }
                at += PIECE;
                if at == MESSAGES {
                    lines.push_str(".\r\n");
                }
                client.input(lines.as_bytes());
            }
            Step::Event(Event::Ready(_)) => client.login("mbx", Password::received(b"pw")),
            Step::Event(Event::LoggedIn) => client.stat(),
            Step::Event(Event::Counted(messages, _)) => {
                collector.counted = Some(messages);
                client.list();
            }
            Step::Event(Event::Size(number, size)) => collector.size(number, size),
            Step::Event(Event::Name(number, name)) => {
                named += 1;
                collector.name(number, name);
            }
            Step::Event(Event::Complete(_)) if column == 1 => client.uidl(),
            Step::Event(Event::Complete(_)) => break collector.finish(true),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((listing.messages.len() as u64, named), (MESSAGES, MESSAGES));
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("a listing of {MESSAGES} messages: at most {} MiB", peak / 1024);
    assert!(peak < 256 * 1024, "{peak} KiB");
}
