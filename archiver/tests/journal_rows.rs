//! The thirty rows of bad input for journal reports, each with its label: what the archiver makes of them, and that nothing
//! is dropped. Where a row says "raw kept", the store has the report's exact octets whatever was made of it.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    filing::{Owner, Owners, Plan, Rules, assign},
    journal::{self, Context, Handling, Kind, Profile, Verdict},
    octets::Octets,
    store::{NewReport, Outcome, Store},
};
use postkeep_shared::mail::Digest;
use std::time::Duration;
use support::Place;

const ENVELOPE: &str = "Sender: ann@a.example\r\nSubject: Hi\r\nMessage-Id: <1@a.example>\r\nTo: bob@a.example\r\n";
const ORIGINAL: &str = "From: ann@a.example\r\nTo: bob@a.example\r\nMessage-ID: <1@a.example>\r\n\r\nHello\r\n";
const HEAD: &str = "X-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n";

/// A report of a header, an envelope text and parts behind it.
fn report(head: &str, envelope: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{head}\r\n--b\r\nContent-Type: text/plain\r\n\r\n{envelope}\r\n");
    for (header, body) in parts {
        text += &format!("--b\r\n{header}\r\n{body}\r\n");
    }
    (text + "--b--\r\n").into_bytes()
}

fn usual(envelope: &str, original: &str) -> Vec<u8> {
    report(HEAD, envelope, &[("Content-Type: message/rfc822\r\n", original)])
}

fn examine(message: &[u8]) -> Verdict {
    journal::examine(&message.to_vec(), &Context::default()).expect("memory never fails")
}

fn content(verdict: &Verdict, message: &[u8]) -> Option<Vec<u8>> {
    let message = message.to_vec();
    let octets = verdict.content.as_ref()?.octets(&message).expect("reads");
    Some(octets.copy(0..octets.len()).expect("reads"))
}

fn owners() -> Owners {
    let mut owners = Owners::default();
    for name in ["ann", "bob", "victim"] {
        owners.add(Owner::new(name, [format!("{name}@a.example").as_str()])).expect("valid");
    }
    owners
}

fn plan(verdict: &Verdict) -> Plan {
    assign(verdict, None, &owners(), &Rules { own_domains: vec!["a.example".into()], ..Rules::default() })
}

fn names(verdict: &Verdict) -> Vec<String> {
    plan(verdict).instances.into_iter().map(|instance| instance.owner).collect()
}

fn recipients(verdict: &Verdict) -> Vec<&str> {
    verdict.recipients.iter().map(|recipient| recipient.address.as_str()).collect()
}

/// Stores a report under `uidl` and returns where it went. What comes out must be what came in.
fn stored(store: &mut Store, uidl: &str, raw: &[u8], verdict: &Verdict) -> Outcome {
    let octets = raw.to_vec();
    let made = store
        .add(NewReport {
            source: "s",
            host: "h",
            mailbox: None,
            uidl: uidl.to_owned(),
            receipt: None,
            evidence: None,
            raw: &octets,
            raw_sha256: Digest::of(raw),
            verdict,
            plan: &plan(verdict),
            collected_ms: 1,
        })
        .expect("is taken");
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), 1, "{:?}", commit.failures);
    let mut out = Vec::new();
    store.read_report("s", None, uidl, &mut out).expect("reads");
    assert!(out == raw, "{uidl}: exact octets");
    made.outcome
}

/// Processor time this thread has used.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

/// 5.4/01: no marker: an ordinary message, nobody's: the catch-all archive.
#[test]
fn without_marker() {
    let message = report(
        "From: x@y.example\r\nContent-Type: multipart/mixed; boundary=b\r\n",
        ENVELOPE,
        &[("Content-Type: message/rfc822\r\n", ORIGINAL)],
    );
    let verdict = examine(&message);
    assert_eq!((verdict.kind, verdict.handling), (Kind::PlainMessage, Handling::Archive));
    assert_eq!(content(&verdict, &message).as_deref(), Some(message.as_slice()));
    assert_eq!(names(&verdict), ["@catchall"]);
}

/// 5.4/02: the marker twice is held; one inside the attachment means nothing.
#[test]
fn marker_twice_or_inside() {
    for marker in ["X-MS-Journal-Report: \r\n", "x-ms-journal-report: x\r\n"] {
        let twice = report(&format!("{marker}{HEAD}"), ENVELOPE, &[("Content-Type: message/rfc822\r\n", ORIGINAL)]);
        let verdict = examine(&twice);
        assert_eq!((verdict.handling, verdict.content.is_none()), (Handling::Quarantine, true));
    }
    let inside = report(
        "From: x@y.example\r\nContent-Type: multipart/mixed; boundary=b\r\n",
        "text",
        &[("Content-Type: message/rfc822\r\n", &String::from_utf8(usual(ENVELOPE, ORIGINAL)).expect("text"))],
    );
    assert_eq!(examine(&inside).kind, Kind::PlainMessage);
}

/// 5.4/03: no message part: the whole report is kept and flagged. 5.4/04: two of them: both are kept, in the report.
/// 5.4/05: a message part in base64: decoded one level. 5.4/06: TNEF stays as it is. 5.4/07: a protected message beside
/// its clear copy: both kept, linked.
#[test]
fn message_parts() {
    let place = Place::new();
    let mut store = place.open();
    let protected = ORIGINAL.replace("\r\n\r\n", "\r\nContent-Class: rpmsg.message\r\n\r\n");
    let tnef = ORIGINAL.replace("\r\n\r\n", "\r\nContent-Type: application/ms-tnef; name=winmail.dat\r\n\r\n");
    let coded = data_encoding::BASE64.encode(ORIGINAL.as_bytes());
    let message = "Content-Type: message/rfc822\r\n";
    let base64 = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n";
    let cases: [Parts<'_>; 5] = [
        ("none", &[], Handling::ArchiveAsIs, None),
        ("two", &[(message, ORIGINAL), (message, ORIGINAL)], Handling::ArchiveAsIs, None),
        ("base64", &[(base64, &coded)], Handling::Archive, Some(ORIGINAL)),
        ("tnef", &[(message, &tnef)], Handling::Archive, Some(&tnef)),
        ("protected", &[(message, &protected), (message, ORIGINAL)], Handling::Archive, Some(ORIGINAL)),
    ];
    for (name, parts, handling, archived) in cases {
        let raw = report(HEAD, ENVELOPE, parts);
        let verdict = examine(&raw);
        assert_eq!(verdict.handling, handling, "{name}");
        let wanted = archived.map_or(raw.clone(), |text| text.as_bytes().to_vec());
        assert!(content(&verdict, &raw) == Some(wanted), "{name}");
        assert_eq!(stored(&mut store, name, &raw, &verdict), Outcome::Filed, "{name}");
    }
    let listed = listed(&store, "bob");
    let clear = listed.iter().find(|l| l.sha256 == Digest::of(ORIGINAL.as_bytes()).to_string()).expect("listed");
    let envelopes = store.envelopes(&clear.id).expect("reads");
    let linked = envelopes.iter().find(|e| e["uidl"] == "protected").expect("its report");
    let other = linked["alternates"][0]["message"].as_str().expect("an id");
    let mut out = Vec::new();
    store.read_message(other, &mut out).expect("reads");
    assert_eq!(out, protected.as_bytes(), "the protected copy comes out too");
    assert!(listed.iter().all(|l| l.id != other), "only the clear one is shown");
}

/// Name, parts behind the envelope, handling, and what is archived where it is not the whole report.
type Parts<'a> = (&'a str, &'a [(&'a str, &'a str)], Handling, Option<&'a str>);

fn listed(store: &Store, owner: &str) -> Vec<postkeep_archiver::store::Listed> {
    let mut listed = Vec::new();
    store
        .list(owner, None, &mut |entry| {
            listed.push(entry);
            Ok(())
        })
        .expect("lists");
    listed
}

/// 5.4/08: 100,000 recipients are all read, and in time.
#[test]
fn very_many_recipients() {
    let lines: String = (0..100_000).map(|n| format!("Recipient: user{n}@a.example\r\n")).collect();
    let raw = usual(&format!("Sender: ann@a.example\r\nMessage-Id: <1@a.example>\r\n{lines}"), ORIGINAL);
    let before = processor_time();
    let verdict = examine(&raw);
    let made = plan(&verdict);
    let took = processor_time() - before;
    assert_eq!(verdict.recipients.len(), 100_000);
    assert_eq!(made.unowned.len(), 100_000, "every one is reported");
    println!("100,000 recipients read and planned in {took:?} of processor time");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// 5.4/09: folded, quoted, expanded and forwarded forms. 5.4/10: the null sender. 5.4/11: UTF-8, punycode, X.500 and a
/// final dot: never guessed. 5.4/12: the domain has no case.
#[test]
fn envelope_forms() {
    let envelope = "Sender: <>\r\nMessage-Id: <1@a.example>\r\nTo:\r\n \"Bob, Stone\" <bob@A.EXAMPLE>,\r\n Expanded: all@a.example\r\n\
        Cc: ann@a.example., Forwarded: gone@a.example\r\nBcc: jörg@münchen.example\r\nRecipient: x@xn--mnchen-3ya.example\r\n\
        Recipient: IMCEAEX-_o=Org_ou=x_cn=Recipients_cn=zoe@a.example\r\n";
    let verdict = examine(&usual(envelope, ORIGINAL));
    assert_eq!((verdict.handling, verdict.sender.as_deref()), (Handling::Archive, Some("")));
    let wanted = [
        "bob@A.EXAMPLE",
        "ann@a.example.",
        "jörg@münchen.example",
        "x@xn--mnchen-3ya.example",
        "IMCEAEX-_o=Org_ou=x_cn=Recipients_cn=zoe@a.example",
    ];
    assert_eq!(recipients(&verdict), wanted);
    assert_eq!(verdict.recipients[0].expanded_from.as_deref(), Some("all@a.example"));
    assert_eq!(verdict.recipients[1].forwarded_from.as_deref(), Some("gone@a.example"));
    assert_eq!(names(&verdict), ["ann", "bob"]);
    assert_eq!(
        plan(&verdict).unowned.len(),
        1,
        "the X.500 name is reported, not guessed: {:?}",
        plan(&verdict).unowned
    );
}

/// 5.4/13: no recipient is known: the catch-all archive, and the address is reported.
#[test]
fn nobody_knows_them() {
    let verdict = examine(&usual("Sender: x@y.example\r\nTo: nobody@a.example\r\n", ORIGINAL));
    assert_eq!(names(&verdict), ["@catchall"]);
    assert_eq!(plan(&verdict).unowned, ["nobody@a.example"]);
}

/// 5.4/14: field lines in the original's body. 5.4/15: a report in a report.
#[test]
fn only_the_outer_envelope_counts() {
    let body = ORIGINAL.replace("Hello", "Recipient: victim@a.example\r\nBcc: victim@a.example");
    assert_eq!(names(&examine(&usual(ENVELOPE, &body))), ["ann", "bob"]);
    let forged = String::from_utf8(usual("Sender: ann@a.example\r\nTo: victim@a.example\r\n", ORIGINAL)).expect("text");
    let forged = forged.replace("--b", "--c").replace("\"b\"", "\"c\"");
    let raw = usual(ENVELOPE, &forged);
    let verdict = examine(&raw);
    assert_eq!(names(&verdict), ["ann", "bob"]);
    assert!(content(&verdict, &raw) == Some(forged.into_bytes()), "the forged report is what was sent to bob");
}

/// 5.4/16: the boundary missing, repeated, empty, of 1 MiB: kept whole and flagged. 5.4/17: one that begins another.
#[test]
fn boundaries() {
    let place = Place::new();
    let mut store = place.open();
    let long = "x".repeat(1024 * 1024);
    let repeated = ORIGINAL.replace("Hello", "--b--\r\n\r\n--b\r\n\r\nmore");
    for (name, head, original) in [
        ("missing", "X-MS-Journal-Report:\r\nContent-Type: multipart/mixed\r\n".to_owned(), ORIGINAL),
        ("empty", HEAD.replace("\"b\"", "\"\""), ORIGINAL),
        ("long", HEAD.replace("\"b\"", &format!("\"{long}\"")), ORIGINAL),
        ("repeated", HEAD.to_owned(), &repeated),
    ] {
        let raw = report(&head, ENVELOPE, &[("Content-Type: message/rfc822\r\n", original)]);
        let verdict = examine(&raw);
        assert_ne!(verdict.handling, Handling::Archive, "{name}");
        let outcome = stored(&mut store, name, &raw, &verdict);
        assert!(name == "repeated" || outcome != Outcome::Filed, "{name}: {outcome:?}");
    }
    let prefix = ORIGINAL
        .replace("\r\n\r\nHello", "\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb--");
    let raw = usual(ENVELOPE, &prefix);
    assert!(content(&examine(&raw), &raw) == Some(prefix.into_bytes()));
}

/// 5.4/18: nested 33 and 1,000,000 deep. 5.4/19: 10,001 parts. Kept exactly, flagged, and in time.
#[test]
fn deep_and_many() {
    let place = Place::new();
    let mut store = place.open();
    let deep = |levels: usize| "Content-Type: message/rfc822\r\n\r\n".repeat(levels);
    let many = |parts: usize| {
        let head = ORIGINAL.replace("\r\n\r\nHello", "\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n");
        format!("{head}{}--in--\r\n", "--in\r\n\r\nx\r\n".repeat(parts))
    };
    let cases = [
        ("31", deep(31), false),
        ("33", deep(33), true),
        ("10^6", deep(1_000_000), true),
        ("9000", many(9_000), false),
        ("10001", many(10_001), true),
    ];
    for (name, original, flagged) in cases {
        let head = "From: ann@a.example\r\nMessage-ID: <1@a.example>\r\n";
        let original = if original.starts_with("From") { original } else { format!("{head}{original}") };
        let raw = usual(ENVELOPE, &original);
        let before = processor_time();
        let verdict = examine(&raw);
        let outcome = stored(&mut store, name, &raw, &verdict);
        let took = processor_time() - before;
        println!("{name}: {} octets in {took:?} of processor time", raw.len());
        assert_eq!(outcome, Outcome::Filed, "{name}");
        assert!(took < Duration::from_secs(30), "{name}: {took:?}");
        let id = listed(&store, "bob")
            .into_iter()
            .find(|l| l.sha256 == Digest::of(original.as_bytes()).to_string())
            .expect("listed")
            .id;
        let envelopes = store.envelopes(&id).expect("reads");
        let envelope = envelopes.iter().find(|e| e["uidl"] == name).expect("its report");
        let warned = envelope["warnings"].to_string().contains("32 levels");
        assert_eq!(warned, flagged, "{name}: {}", envelope["warnings"]);
    }
}

/// 5.4/20: a header of more than 1 MiB in 500,000 lines. 5.4/21: Content-Type twice: the first counts. 5.4/22: a charset
/// that is unknown or lies. 5.4/23: NUL and bare CR in the header. 5.4/24: no empty line behind the header. 5.4/26: no
/// Message-ID, two of them, one of 100 kB. 5.4/27: dates that cannot be. Exact octets in every case.
#[test]
fn odd_headers_change_nothing_that_is_kept() {
    let place = Place::new();
    let mut store = place.open();
    let many: String = (0..500_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases = [
        ("500,000 lines", format!("From: ann@a.example\r\nTo: bob@a.example\r\n{many}\r\nx\r\n")),
        (
            "two types",
            ORIGINAL.replacen(
                "\r\n",
                "\r\nContent-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=x\r\n",
                1,
            ),
        ),
        (
            "charset",
            ORIGINAL.replacen(
                "\r\n",
                "\r\nContent-Type: text/plain; charset=x-nonsense\r\nSubject: =?x-no?q?=FC?=\r\n",
                1,
            ),
        ),
        ("nul", ORIGINAL.replacen("\r\n", "\r\nSubject: a\0b\rc\r\n", 1)),
        ("no empty line", "From: ann@a.example\r\nTo: bob@a.example\r\nHello\r\n".to_owned()),
        ("no id", ORIGINAL.replace("Message-ID: <1@a.example>\r\n", "")),
        ("two ids", ORIGINAL.replacen("\r\n", "\r\nMessage-ID: <0@a.example>\r\n", 1)),
        ("long id", ORIGINAL.replace("<1@", &format!("<{}@", "1".repeat(100_000)))),
        ("year 0", ORIGINAL.replacen("\r\n", "\r\nDate: Sat, 01 Jan 0000 00:00:00 +0000\r\n", 1)),
        ("year 9999", ORIGINAL.replacen("\r\n", "\r\nDate: Fri, 31 Dec 9999 23:59:60 +9999\r\n", 1)),
        ("no zone", ORIGINAL.replacen("\r\n", "\r\nDate: Tue, 18 Aug 2026 10:00:00 XYZ\r\n", 1)),
    ];
    for (name, message) in cases {
        let context = Context { profile: Profile::Multidrop, ..Context::default() };
        let verdict = journal::examine(&message.as_bytes().to_vec(), &context).expect("reads");
        assert_eq!(verdict.handling, Handling::Archive, "{name}");
        assert_eq!(verdict.warnings.is_empty(), name != "500,000 lines", "{name}: {:?}", verdict.warnings);
        assert_eq!(stored(&mut store, name, message.as_bytes(), &verdict), Outcome::Filed, "{name}");
    }
    assert_eq!(listed(&store, "bob").len(), 11, "each is a message of its own");
}

/// 5.4/25: nothing, or one octet: held.
#[test]
fn next_to_nothing() {
    let place = Place::new();
    let mut store = place.open();
    for raw in [&b""[..], b"x", b"\r\n", b"no field here\r\n\r\nbody"] {
        let verdict = examine(raw);
        assert_eq!((verdict.handling, verdict.content.is_none()), (Handling::Quarantine, true), "{raw:?}");
        let name = format!("n{}", raw.len());
        assert_eq!(stored(&mut store, &name, raw, &verdict), Outcome::Quarantine);
    }
}

/// 5.4/28: one message in two reports with other recipients: both envelopes kept, the body once.
#[test]
fn forks() {
    let place = Place::new();
    let mut store = place.open();
    let mut chunks = Vec::new();
    for (name, to) in [("first", "bob"), ("second", "victim")] {
        let envelope = ENVELOPE.replace("bob", to);
        let original = ORIGINAL.replace("Hello", &"A long body that is worth a chunk.\r\n".repeat(200));
        let raw = usual(&envelope, &format!("Received: by {name}\r\n{original}"));
        let verdict = examine(&raw);
        assert_eq!(stored(&mut store, name, &raw, &verdict), Outcome::Filed);
        chunks.push(store.stats().expect("counts").parts);
    }
    assert_eq!(chunks, [1, 1], "the body is one part, stored once");
    let id = listed(&store, "ann").pop().expect("listed").id;
    assert_eq!((listed(&store, "ann").len(), store.envelopes(&id).expect("reads").len()), (1, 2));
}

/// 5.4/29: a failure notice around a report: the original is filed, and the notice is kept.
#[test]
fn notices() {
    let place = Place::new();
    let mut store = place.open();
    let inner =
        String::from_utf8(usual(ENVELOPE, ORIGINAL)).expect("text").replace("--b", "--r").replace("\"b\"", "\"r\"");
    let head = "From: MAILER-DAEMON@a.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n";
    let raw = report(
        head,
        "Not delivered",
        &[
            ("Content-Type: message/delivery-status\r\n", "Reporting-MTA: dns;x\r\n"),
            ("Content-Type: message/rfc822\r\n", &inner),
        ],
    );
    let verdict = examine(&raw);
    assert_eq!((verdict.kind, verdict.handling), (Kind::NdrOfJournalReport, Handling::Archive));
    assert!(content(&verdict, &raw) == Some(ORIGINAL.into()));
    // The notice comes out of the store as it came in.
    assert_eq!(stored(&mut store, "ndr", &raw, &verdict), Outcome::Filed);
}

/// 150 MiB of base64 with junk in it, never in memory whole.
struct Large {
    head: Vec<u8>,
    octets: u64,
    tail: Vec<u8>,
}

const LINES: &[u8] =
    b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3\r\n!not base64!\r\n";

impl Octets for Large {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.octets + self.tail.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        assert!(buffer.len() <= 4 * 1024 * 1024, "only blocks are read");
        let head = self.head.len() as u64;
        for (octet, at) in buffer.iter_mut().zip(offset..) {
            *octet = match at {
                _ if at < head => self.head[at as usize],
                _ if at < head + self.octets => LINES[((at - head) % LINES.len() as u64) as usize],
                _ => *self.tail.get((at - head - self.octets) as usize).ok_or(std::io::ErrorKind::UnexpectedEof)?,
            };
        }
        Ok(())
    }
}

/// 5.4/30: an attachment of 150 MiB in base64 with junk is read in blocks (`tests/large.rs` measures the program's memory).
#[test]
fn a_large_attachment_with_junk_is_streamed() {
    let original = ORIGINAL.replace(
        "\r\n\r\nHello\r\n",
        "\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    );
    let whole = String::from_utf8(usual(ENVELOPE, &original)).expect("text");
    let (head, tail) = whole.rsplit_once("\r\n--b--").expect("ends");
    let large = Large { head: head.into(), octets: 150 << 20, tail: format!("\r\n--b--{tail}").into_bytes() };
    let verdict = journal::examine(&large, &Context::default()).expect("reads");
    assert_eq!(verdict.handling, Handling::Archive);
    assert_eq!(verdict.embedded_size, Some(original.len() as u64 + (150 << 20)));
}
