//! Dialogues of `gateway/tests/dialogues` against the pure machine: in one gulp, octet by octet, in random cuts.
//!
//! A dialogue file: `#` comment; `! setting` (see [`Script::set`]); `C: line` the client sends with CRLF; `C= octets`
//! without; `S: line` the server answers (`*` at the end: anything may follow); `M: octets` a message that was stored;
//! `TLS` the handshake happens here; `CLOSE` the server has closed. Escapes: `\r \n \\ \xNN`, `{text*100}` repeats.
//! Mailboxes `mbx-00…NN`: 01 to 7f take mail, 80 to 8f are suspended, 90 to 9f unreadable, others do not exist.

use super::{super::accepted::Accepted, *};
use std::{fs, path::Path};

#[derive(Clone)]
struct Script {
    config: Config,
    full: bool,
    begin: Result<(), Trouble>,
    write: Result<(), Trouble>,
    commit: Result<(), Trouble>,
    /// What the client sends; the handshake happens between two of them.
    input: Vec<Vec<u8>>,
    expected: Vec<String>,
    stored: Vec<Vec<u8>>,
    closes: bool,
    /// Octets in clear follow STARTTLS: closed before its answer, or ended by the handshake they are not.
    injected: bool,
}

impl Default for Script {
    fn default() -> Self {
        let domains = vec!["gw.example".into(), "other-gw.example".into()];
        let (hostname, max_message_size) = ("gw.example".into(), 1000);
        let config = Config { hostname, domains, max_message_size, offer_tls: true, require_tls: false, tls: false };
        Self {
            config,
            full: false,
            begin: Ok(()),
            write: Ok(()),
            commit: Ok(()),
            input: vec![Vec::new()],
            expected: Vec::new(),
            stored: Vec::new(),
            closes: false,
            injected: false,
        }
    }
}

impl Script {
    fn read(text: &str) -> Self {
        let mut script = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (kind, rest) = line.split_at(line.len().min(3));
            let last = script.input.last_mut().expect("never empty");
            match kind {
                "C: " | "C:" => last.extend([octets(rest), b"\r\n".to_vec()].concat()),
                "C= " => last.extend(octets(rest)),
                "S: " => script.expected.push(rest.to_owned()),
                "M: " | "M:" => script.stored.push(octets(rest)),
                "TLS" => script.input.push(Vec::new()),
                "CLO" => script.closes = true,
                _ if kind.starts_with('!') => script.set(line.trim_start_matches(['!', ' '])),
                _ => panic!("unreadable line: {line}"),
            }
        }
        script
    }

    fn set(&mut self, setting: &str) {
        match setting.split_once('=').unwrap_or((setting, "")) {
            ("max", size) => self.config.max_message_size = size.parse().expect("a number"),
            ("tls", "implicit") => self.config.tls = true,
            ("tls", "none") => self.config.offer_tls = false,
            ("injected", _) => self.injected = true,
            ("require_tls", _) => self.config.require_tls = true,
            ("room", "full") => self.full = true,
            ("begin", trouble) => self.begin = Err(trouble_named(trouble)),
            ("write", trouble) => self.write = Err(trouble_named(trouble)),
            ("commit", trouble) => self.commit = Err(trouble_named(trouble)),
            other => panic!("unknown setting {other:?}"),
        }
    }
}

fn trouble_named(name: &str) -> Trouble {
    if name == "full" { Trouble::Full } else { Trouble::Other }
}

fn octets(text: &str) -> Vec<u8> {
    if let Some((before, rest)) = text.split_once('{') {
        let (repeated, after) = rest.split_once('}').expect("closed");
        let (what, count) = repeated.rsplit_once('*').expect("a count");
        let many = octets(what).repeat(count.parse().expect("a number"));
        return [octets(before), many, octets(after)].concat();
    }
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b'x') => {
                let digits = [bytes.next().expect("hex"), bytes.next().expect("hex")];
                let text = std::str::from_utf8(&digits).expect("hex");
                out.push(u8::from_str_radix(text, 16).expect("hex"));
            }
            other => out.extend(other),
        }
    }
    out
}

/// What came out of a run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    replies: Vec<String>,
    stored: Vec<Vec<u8>>,
    closed: bool,
}

/// Plays a script, the input cut before each index of `cuts`.
fn play(script: &Script, mut piece: impl FnMut(usize) -> usize) -> Outcome {
    let mut machine = Smtp::new(script.config.clone());
    let (mut sent, mut stored, mut open, mut number) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut closed = false;
    'phases: for (phase, input) in script.input.iter().enumerate() {
        let mut rest = input.as_slice();
        loop {
            match machine.next().expect("never fails") {
                Step::NeedInput if rest.is_empty() => continue 'phases,
                Step::NeedInput => {
                    let (now, later) = rest.split_at(piece(rest.len()).clamp(1, rest.len()));
                    machine.input(now);
                    rest = later;
                }
                Step::Send(octets) => sent.extend(octets),
                // The handshake reads what comes next, and it is no ClientHello.
                Step::StartTls(_) if script.injected => {
                    closed = true;
                    break 'phases;
                }
                Step::StartTls(_) => {
                    assert!(phase + 1 < script.input.len(), "TLS was not expected");
                    assert!(rest.is_empty(), "input behind STARTTLS was not noticed");
                    machine.tls_started();
                }
                Step::Close => {
                    closed = true;
                    break 'phases;
                }
                Step::Event(event) => answer(event, script, &mut machine, (&mut open, &mut stored, &mut number)),
            }
        }
    }
    let text = String::from_utf8(sent).expect("replies are ASCII");
    let mut replies: Vec<String> = text.lines().map(str::to_owned).collect();
    if script.injected {
        // Whether STARTTLS itself was answered depends on the cuts; nothing may come behind it.
        replies.pop_if(|last| last == "220 2.0.0 Start TLS now");
    }
    Outcome { replies, stored, closed }
}

type Files<'a> = (&'a mut Vec<Vec<u8>>, &'a mut Vec<Vec<u8>>, &'a mut u32);

fn answer(event: Event, script: &Script, machine: &mut Smtp, (open, stored, number): Files<'_>) {
    match event {
        Event::Room(_) => machine.room(if script.full { Err(Trouble::Full) } else { Ok(()) }),
        Event::Lookup(MailboxId([.., last])) => machine.found(match last {
            1..=0x7f => Found::Active,
            0x80..=0x8f => Found::Suspended,
            0x90..=0x9f => Found::Unreadable,
            _ => Found::Unknown,
        }),
        Event::Begin => {
            *open = vec![Vec::new(); machine.transaction().expect("a transaction").recipients().len()];
            machine.begun(script.begin);
        }
        Event::Content(block) => {
            assert!(block.len() <= 64 * 1024 + 1 && !block.is_empty());
            open.iter_mut().for_each(|file| file.extend_from_slice(&block));
            machine.written(script.write);
        }
        Event::Commit => match script.commit {
            Ok(()) => {
                let accepted = open.iter().map(|_| {
                    *number += 1;
                    Accepted::pretend(&format!("uidl-{number} seq={number} receipt=0123456789abcdef"))
                });
                let accepted: Vec<_> = accepted.collect();
                stored.append(open);
                machine.accepted(&accepted);
            }
            Err(trouble) => machine.failed(trouble),
        },
        Event::Discard => open.clear(),
        Event::Refused { reply, .. } => assert!(reply.code >= 400),
    }
}

fn check(name: &str, script: &Script) {
    let mut seed = 1_u64;
    let mut random = move |len: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        1 + (seed >> 33) as usize % len.clamp(1, 40)
    };
    let gulp = play(script, |len| len);
    assert_eq!(gulp.replies.len(), script.expected.len(), "{name}: replies {:#?}", gulp.replies);
    for (got, wanted) in gulp.replies.iter().zip(&script.expected) {
        let fits = wanted.strip_suffix('*').map_or(got == wanted, |start| got.starts_with(start));
        assert!(fits, "{name}: `{got}` instead of `{wanted}` in {:#?}", gulp.replies);
    }
    assert_eq!(gulp.stored, script.stored, "{name}: stored");
    assert_eq!(gulp.closed, script.closes, "{name}: closed");
    assert_eq!(play(script, |_| 1), gulp, "{name}: octet by octet");
    for _ in 0..10 {
        assert_eq!(play(script, &mut random), gulp, "{name}: random cuts");
    }
}

#[test]
fn golden_dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    files.sort();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("smtp-")));
    assert!(files.len() >= 35, "only {} dialogues", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("dialogue");
        check(&file.display().to_string(), &Script::read(&text));
    }
}

const OPENING: &str = "C: EHLO c\nC: MAIL FROM:<a@b>\nC: RCPT TO:<mbx-00000000000000000000000000000001@gw.example>\n";

/// 5.1/24: whatever the moment, a connection that ends early has stored nothing and was promised nothing.
#[test]
fn cut_anywhere_nothing_is_stored() {
    for end in ["C: DATA\nC: one\nC: .\nC= \n", "C= BDAT 5\\r\\n12345BDAT 3 LAST\\r\\n678\n"] {
        let mut script = Script::read(&format!("{OPENING}{end}"));
        let input = script.input.remove(0);
        for cut in 0..=input.len() {
            script.input = vec![input.get(..cut).expect("within").to_vec()];
            let outcome = play(&script, |len| len);
            let accepted = outcome.replies.iter().filter(|r| r.contains("accepted")).count();
            assert_eq!(
                (accepted, outcome.stored.len()),
                if cut == input.len() { (1, 1) } else { (0, 0) },
                "cut at {cut}"
            );
        }
    }
}

/// What CRLF.CRLF means, said a second time: the content before the first one (the command line's CRLF counts as the
/// first of its two), with the stuffing taken out, and what follows it.
fn dot_oracle(wire: &[u8]) -> (Vec<u8>, &[u8]) {
    let whole = [b"\r\n", wire].concat();
    let end = whole.windows(5).position(|w| w == b"\r\n.\r\n").expect("the test ends every message");
    let mut content = Vec::new();
    for (at, byte) in whole.iter().enumerate().take(end + 2).skip(2) {
        let stuffing = *byte == b'.' && whole.get(at - 2..at) == Some(b"\r\n");
        content.extend((!stuffing).then_some(*byte));
    }
    (content, wire.get(end + 3..).unwrap_or_default())
}

/// Every string of five symbols over {CR, LF, ".", "x"}.
fn five_symbols() -> impl Iterator<Item = Vec<u8>> {
    let symbols = [b'\r', b'\n', b'.', b'x'];
    (0..1024_usize).map(move |n| (0..5).filter_map(|i| symbols.get((n >> (2 * i)) & 3).copied()).collect())
}

/// Pieces: everything up to octet `at` of `len`, then the rest.
fn split_at(len: usize, at: usize) -> impl FnMut(usize) -> usize {
    move |left| if len - left < at { at - (len - left) } else { left }
}

/// 5.1/22 5.1/23: in every place of a body and cut at every place, exactly the strings that make a CRLF.CRLF end it;
/// what is stored is what was sent, and no command behind it runs but the one QUIT.
#[test]
fn no_1024_strings_smuggle() {
    let (mut ended, mut plays, mut strings) = (0, 0, 0);
    let opening = Script::read(&format!("{OPENING}C: DATA\n")).input.remove(0);
    let mut script = Script::default();
    for body in five_symbols() {
        strings += 1;
        for (before, after) in [("m", ""), ("m", "y"), ("m\r\n", ""), ("m\r\n", "y")] {
            let wire = [before.as_bytes(), &body, after.as_bytes(), b"\r\n.\r\nQUIT\r\n"].concat();
            let (content, rest) = dot_oracle(&wire);
            let early = rest != b"QUIT\r\n";
            let holds = wire
                .strip_suffix(b"\r\n.\r\nQUIT\r\n")
                .is_some_and(|text| [b"\r\n", text, b"\r\n"].concat().windows(5).any(|w| w == b"\r\n.\r\n"));
            assert_eq!(early, holds, "the two ways to say it agree: {}", wire.escape_ascii());
            ended += u32::from(early && before == "m" && after == "y");
            script.input = vec![[opening.as_slice(), &wire].concat()];
            let (len, start) = (opening.len() + wire.len(), opening.len() + before.len());
            let whole = play(&script, |left| left);
            assert_eq!(whole.stored, [content], "{}", wire.escape_ascii());
            // Greeting, eight lines of EHLO, MAIL, RCPT, DATA, 250, QUIT.
            assert!(early || (whole.closed && whole.replies.len() == 14), "{:?}", whole.replies);
            assert_eq!(whole.replies.iter().filter(|r| r.contains("accepted")).count(), 1);
            for at in start..=start + 5 {
                assert_eq!(play(&script, split_at(len, at)), whole, "{} cut at {at}", wire.escape_ascii());
            }
            assert_eq!(play(&script, |_| 1), whole, "{} octet by octet", wire.escape_ascii());
            plays += 8;
        }
    }
    println!("smuggling by DATA: {strings} strings, {plays} messages, {ended} of the strings end a body, 0 smuggled");
    assert_eq!((strings, ended), (1024, 1), "alone in a line's middle only CRLF.CRLF itself ends the message");
}

/// The same strings by BDAT, in two chunks divided at every place: none ends anything, every octet is kept.
#[test]
fn no_1024_strings_end_a_chunk() {
    let mut plays = 0;
    let opening = Script::read(OPENING).input.remove(0);
    let mut script = Script::default();
    for body in five_symbols() {
        let content = [b"m\r\n".as_slice(), &body, b"\r\n.\r\nMAIL FROM:<x@y>\r\n"].concat();
        for divided in 3..=8 {
            let (first, second) = content.split_at(divided);
            let (one, two) = (format!("BDAT {}\r\n", first.len()), format!("BDAT {} LAST\r\n", second.len()));
            let wire = [opening.as_slice(), one.as_bytes(), first, two.as_bytes(), second, b"QUIT\r\n"].concat();
            script.input = vec![wire];
            for size in [1, 7, usize::MAX] {
                let outcome = play(&script, |_| size);
                assert_eq!(outcome.stored, [content.as_slice()], "{} divided at {divided}", content.escape_ascii());
                assert!(outcome.closed && outcome.replies.len() == 14, "{:?}", outcome.replies);
                plays += 1;
            }
        }
    }
    println!("smuggling by BDAT: 1024 strings, {plays} messages, 0 ended early");
}

/// 5.1/05 5.1/06: memory stays bounded whatever comes.
#[test]
fn endless_lines_and_endless_commands_hold_no_memory() {
    let mut machine = Smtp::new(Script::default().config);
    while !matches!(machine.next().expect("never fails"), Step::NeedInput) {}
    machine.input(&[b'x'; 16 * 1024]);
    let mut closed = false;
    while !closed {
        closed = matches!(machine.next().expect("never fails"), Step::Close);
    }
}

#[test]
fn a_message_of_many_blocks_arrives_whole() {
    let mut script = Script::read(&format!("! max=400000\n{OPENING}C: DATA\n"));
    let content: Vec<u8> = (0..300_000_u32).map(|i| if i % 77 == 0 { b'\n' } else { b'a' + (i % 23) as u8 }).collect();
    let input = script.input.last_mut().expect("one phase");
    input.extend_from_slice(&content);
    input.extend_from_slice(b"\r\n.\r\n");
    let outcome = play(&script, |_| 16_384);
    assert_eq!(outcome.stored, [[content, b"\r\n".to_vec()].concat()]);
}

#[test]
fn sixteen_groups_fit_reply_lines() {
    let group =
        Accepted::pretend("01a00000-0000-7000-8000-000000000000 seq=18446744073709551615 receipt=0123456789abcdef");
    for count in 1..=16 {
        let lines = groups(&vec![group.clone(); count]);
        let octets = replies::ACCEPTED.lines(&lines);
        assert!(String::from_utf8(octets).expect("ASCII").lines().all(|l| l.len() + 2 <= MAX_REPLY_LINE));
        let all = lines.join(" ");
        assert_eq!((all.matches("seq=").count(), all.matches(';').count()), (count, count - 1));
        assert!(all.ends_with(" accepted"));
    }
}

/// A receipt per recipient or no `250`.
#[test]
fn a_missing_receipt_is_no_250() {
    let script = Script::read(&format!("{OPENING}C: BDAT 0 LAST\n"));
    let mut machine = Smtp::new(script.config.clone());
    machine.input(script.input.first().expect("one phase"));
    let mut sent = Vec::new();
    loop {
        match machine.next().expect("never fails") {
            Step::NeedInput => break,
            Step::Send(octets) => sent.extend(octets),
            Step::Event(Event::Commit) => machine.accepted(&[]),
            Step::Event(event) => {
                answer(event, &script, &mut machine, (&mut Vec::new(), &mut Vec::new(), &mut 0));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sent.ends_with(b"451 4.3.0 Not stored; try again later\r\n"), "{}", sent.escape_ascii());
}
