//! Reports that no sample shows, each from a sentence of the format: what the archiver makes of them.

use postkeep_archiver::{
    journal::{self, Context, Handling, Kind, Profile, Verdict},
    octets::Octets,
};
use std::io;

const ENVELOPE: &str = "Sender: ann@a.example\r\nSubject: Hi\r\nMessage-Id: <1@a.example>\r\nTo: bob@a.example\r\n";
const ORIGINAL: &str = "From: ann@a.example\r\nTo: bob@a.example\r\nMessage-ID: <1@a.example>\r\n\r\nHello\r\n";

/// A report in the making.
struct Report {
    head: String,
    parts: Vec<(String, Vec<u8>)>,
    end: String,
}

impl Report {
    fn new() -> Self {
        let head = "MIME-Version: 1.0\r\nX-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n";
        Self { head: head.into(), parts: Vec::new(), end: "--b--\r\n".into() }
    }

    /// With the usual two parts.
    fn usual() -> Self {
        Self::new().text(ENVELOPE).message(ORIGINAL)
    }

    fn head(mut self, head: &str) -> Self {
        self.head = head.into();
        self
    }

    fn part(mut self, header: &str, body: impl AsRef<[u8]>) -> Self {
        self.parts.push((header.into(), body.as_ref().to_vec()));
        self
    }

    fn text(self, envelope: &str) -> Self {
        self.part("Content-Type: text/plain; charset=us-ascii\r\n", envelope)
    }

    fn message(self, original: &str) -> Self {
        self.part("Content-Type: message/rfc822\r\n", original)
    }

    fn end(mut self, end: &str) -> Self {
        self.end = end.into();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.head).into_bytes();
        for (header, body) in &self.parts {
            bytes.extend(format!("--b\r\n{header}\r\n").into_bytes());
            bytes.extend(body);
            bytes.extend(b"\r\n");
        }
        bytes.extend(self.end.as_bytes());
        bytes
    }

    fn verdict(&self) -> Verdict {
        examine(&self.bytes(), &Context::default())
    }

    /// What is archived, as text.
    fn content(&self) -> Option<String> {
        content(&self.verdict(), &self.bytes())
    }
}

fn examine(message: &[u8], context: &Context) -> Verdict {
    journal::examine(&message.to_vec(), context).expect("memory never fails")
}

fn content(verdict: &Verdict, message: &[u8]) -> Option<String> {
    let message = message.to_vec();
    let octets = verdict.content.as_ref()?.octets(&message).expect("reads");
    Some(String::from_utf8_lossy(&octets.copy(0..octets.len()).expect("reads")).into_owned())
}

fn judged(report: &Report) -> (Kind, Handling) {
    let verdict = report.verdict();
    (verdict.kind, verdict.handling)
}

#[test]
fn the_usual_report_is_unwrapped_whatever_the_case_of_its_marker() {
    for marker in
        ["X-MS-Journal-Report:", "x-ms-journal-report: yes", "X-MS-JOURNAL-REPORT :", "X-WM-Journal-Report: journal"]
    {
        let head = format!("{marker}\r\nContent-Type: Multipart/Mixed;\r\n\tboundary=b\r\n");
        let report = Report::usual().head(&head);
        assert_eq!(judged(&report), (Kind::JournalReport, Handling::Archive), "{marker}");
        assert_eq!(report.content().as_deref(), Some(ORIGINAL));
        assert_eq!(report.verdict().embedded_size, Some(ORIGINAL.len() as u64));
    }
}

#[test]
fn a_subject_that_looks_like_a_field_is_a_subject() {
    let envelope = ENVELOPE.replace("Hi", "Bcc: evil@x.example, Expanded: all@a.example");
    let verdict = Report::new().text(&envelope).message(ORIGINAL).verdict();
    assert_eq!(verdict.subject.as_deref(), Some("Bcc: evil@x.example, Expanded: all@a.example"));
    assert_eq!(verdict.recipients.len(), 1);
}

#[test]
fn a_protected_message_alone_is_archived() {
    let protected = ORIGINAL.replace("\r\n\r\n", "\r\nContent-Class: rpmsg.message\r\n\r\n");
    let report = Report::new().text(ENVELOPE).message(&protected);
    assert_eq!(report.content(), Some(protected.clone()));
    assert!(report.verdict().alternates.is_empty());
    let with_copy = Report::new().text(ENVELOPE).message(&protected).message(ORIGINAL);
    assert_eq!((with_copy.content().as_deref(), with_copy.verdict().alternates.len()), (Some(ORIGINAL), 1));
}

#[test]
fn two_messages_that_are_no_pair_are_ambiguous() {
    let other = ORIGINAL.replace("1@a", "2@a");
    let protected = other.replace("\r\n\r\n", "\r\nContent-Class: rpmsg.message\r\n\r\n");
    for (first, second) in [(ORIGINAL, ORIGINAL), (ORIGINAL, &other), (&protected, ORIGINAL), (&protected, &protected)]
    {
        let report = Report::new().text(ENVELOPE).message(first).message(second);
        assert_eq!(judged(&report), (Kind::MalformedJournal, Handling::ArchiveAsIs));
        assert_eq!(report.content(), Some(String::from_utf8(report.bytes()).expect("text")));
    }
    let three = Report::usual().message(ORIGINAL).message(ORIGINAL);
    assert_eq!(judged(&three), (Kind::MalformedJournal, Handling::ArchiveAsIs));
}

#[test]
fn an_envelope_without_sender_or_recipient_is_kept_as_it_is() {
    for missing in ["Sender: ann@a.example\r\n", "To: bob@a.example\r\n"] {
        let report = Report::new().text(&ENVELOPE.replace(missing, "")).message(ORIGINAL);
        assert_eq!(judged(&report), (Kind::MalformedJournal, Handling::ArchiveAsIs), "{missing}");
        assert_eq!(report.verdict().subject.as_deref(), Some("Hi"));
    }
    let behind = Report::new().message(ORIGINAL).text(ENVELOPE);
    assert_eq!(judged(&behind), (Kind::MalformedJournal, Handling::ArchiveAsIs));
}

#[test]
fn an_encoded_original_is_archived_decoded() {
    let quoted = ORIGINAL.replace("Hello", "Hell=\r\no =3D");
    let header = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n";
    let report = Report::new().text(ENVELOPE).part(header, quoted);
    assert_eq!(judged(&report), (Kind::JournalReport, Handling::Archive));
    assert_eq!(report.content(), Some(ORIGINAL.replace("Hello", "Hello =")));
}

#[test]
fn a_retyped_original_needs_the_message_id_of_the_envelope() {
    let header = "Content-Type: application/octet-stream; name=mail.EML\r\n";
    let report = Report::new().text(ENVELOPE).part(header, ORIGINAL);
    assert_eq!(report.content().as_deref(), Some(ORIGINAL));
    let other = Report::new().text(ENVELOPE).part(header, ORIGINAL.replace("1@a", "2@a"));
    assert_eq!(judged(&other), (Kind::MalformedJournal, Handling::ArchiveAsIs));
}

#[test]
fn boundaries_and_delimiters() {
    let padded = String::from_utf8(Report::usual().bytes()).expect("text").replace("--b\r\n", "--b \t \r\n");
    let verdict = examine(padded.as_bytes(), &Context::default());
    assert_eq!(content(&verdict, padded.as_bytes()).as_deref(), Some(ORIGINAL));

    let inner = ORIGINAL
        .replace("\r\n\r\nHello", "\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb--");
    let report = Report::new().text(ENVELOPE).message(&inner);
    assert_eq!(report.content(), Some(inner));

    let same =
        ORIGINAL.replace("\r\n\r\nHello", "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--");
    let report = Report::new().text(ENVELOPE).message(&same);
    assert_eq!(judged(&report), (Kind::MalformedJournal, Handling::ArchiveAsIs), "not cut silently");
}

#[test]
fn what_is_cut_is_held() {
    let whole = Report::usual().bytes();
    let first_part = whole.windows(4).position(|w| w == b"\r\n\r\n").expect("has a header") + 4;
    for end in first_part..whole.len() - "--b--\r\n".len() {
        let verdict = examine(&whole[..end], &Context::default());
        assert_eq!((verdict.kind, verdict.handling), (Kind::MalformedJournal, Handling::Quarantine), "cut at {end}");
        assert!(verdict.content.is_none());
    }
    assert_eq!(judged(&Report::usual().end("--b--")), (Kind::JournalReport, Handling::Archive));
}

#[test]
fn contradicting_message_ids_are_held() {
    let other = Report::new().text(&ENVELOPE.replace("1@a", "2@a")).message(ORIGINAL);
    assert_eq!(judged(&other), (Kind::JournalReport, Handling::Quarantine));
    let head = "X-MS-Journal-Report:\r\nX-MS-Exchange-Parent-Message-Id: <2@a.example>\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    assert_eq!(judged(&Report::usual().head(head)), (Kind::JournalReport, Handling::Quarantine));
    for (envelope, original) in [
        (ENVELOPE.replace("<1@a.example>", ""), ORIGINAL.to_owned()),
        (ENVELOPE.replace("Message-Id: <1@a.example>\r\n", ""), ORIGINAL.to_owned()),
        (ENVELOPE.to_owned(), ORIGINAL.replace("Message-ID: <1@a.example>\r\n", "")),
        (ENVELOPE.to_owned(), ORIGINAL.replace("Message-ID:", "Message-ID: <0@x.example>\r\nMessage-ID:")),
        (ENVELOPE.replace("<1@a.example>", "1@a.example"), ORIGINAL.to_owned()),
    ] {
        let report = Report::new().text(&envelope).message(&original);
        assert_eq!(judged(&report), (Kind::JournalReport, Handling::Archive), "{envelope} {original}");
    }
}

#[test]
fn exchange_2003_reports_have_message_ids_of_their_own() {
    for marker in ["Content-Identifer: ExJournalReport", "Content-Identifier: exjournalreport"] {
        let head = format!("{marker}\r\nContent-Type: multipart/mixed; boundary=b\r\n");
        let envelope =
            "Sender: Ann <ann@a.example>\r\nMessage-ID: <7@citadel>\r\nRecipients:\r\n\tbob <bob@a.example>\r\n";
        let report = Report::new().head(&head).text(envelope).message(ORIGINAL);
        assert_eq!(judged(&report), (Kind::JournalReportEx2003, Handling::Archive));
    }
    let other = "Content-Identifier: something\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    assert_eq!(judged(&Report::usual().head(other)), (Kind::PlainMessage, Handling::Archive));
}

#[test]
fn a_marker_in_another_profile_means_nothing() {
    let head = "X-MS-Journal-Report:\r\nFrom: x@a.example\r\nTo: Carl <carl@a.example>\r\nSubject: =?utf-8?q?=C3=BC?=\r\nMessage-ID: <9@a>\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    let report = Report::usual().head(head).bytes();
    for profile in [Profile::Multidrop, Profile::Single] {
        let verdict = examine(&report, &Context { profile, ..Context::default() });
        assert_eq!((verdict.kind, verdict.handling), (Kind::PlainMessage, Handling::Archive));
        assert_eq!(verdict.recipients.len(), 1);
        assert_eq!(verdict.recipients[0].address, "carl@a.example");
        assert_eq!(verdict.subject.as_deref(), Some("ü"));
        assert_eq!(content(&verdict, &report), Some(String::from_utf8(report.clone()).expect("text")));
    }
}

#[test]
fn an_untrusted_source_archives_nothing() {
    let plain = b"From: a@x.example\r\nTo: b@a.example\r\n\r\nx".to_vec();
    for message in [Report::usual().bytes(), plain] {
        for profile in [Profile::Journal, Profile::Multidrop, Profile::Single] {
            let verdict = examine(&message, &Context { profile, trusted: false, ..Context::default() });
            assert_eq!(verdict.handling, Handling::Quarantine);
            assert!(verdict.content.is_none() && verdict.alternates.is_empty());
        }
    }
}

fn notice(returned: &str, body: &[u8]) -> Report {
    let head = "From: MAILER-DAEMON@a.example\r\nTo: ndr@gate.example\r\nSubject: Unzustellbar\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n";
    Report::new()
        .head(head)
        .part("Content-Type: text/plain; charset=utf-8\r\n", "Nicht zustellbar")
        .part("Content-Type: message/delivery-status\r\n", "Reporting-MTA: dns;x\r\n\r\nAction: failed\r\n")
        .part(&format!("Content-Type: {returned}\r\n"), body)
}

#[test]
fn notices_are_unwrapped_only_when_they_return_a_report() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    // The notice and the report need boundaries of their own.
    let report = text(Report::usual().bytes()).replace("boundary=\"b\"", "boundary=\"r\"").replace("--b", "--r");
    let whole = notice("message/rfc822", report.as_bytes());
    assert_eq!(judged(&whole), (Kind::NdrOfJournalReport, Handling::Archive));
    assert_eq!(whole.content().as_deref(), Some(ORIGINAL));
    assert_eq!(whole.verdict().sender.as_deref(), Some("ann@a.example"));
    let (header, _) = report.split_once("\r\n\r\n").expect("has a header");
    for (returned, body) in [("text/rfc822-headers", header), ("message/rfc822", header)] {
        let cut = notice(returned, body.as_bytes());
        assert_eq!(judged(&cut), (Kind::NdrOfJournalReport, Handling::ArchiveAsIs), "{returned}");
        assert!(cut.verdict().recipients.is_empty());
    }
    let torn = notice("message/rfc822", &report.as_bytes()[..report.len() - 20]);
    assert_eq!(judged(&torn), (Kind::NdrOfJournalReport, Handling::Quarantine));
    let other = notice("message/rfc822", ORIGINAL.as_bytes());
    assert_eq!(judged(&other), (Kind::PlainMessage, Handling::Archive));
}

#[test]
fn charsets_of_the_envelope() {
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("windows-1251; format=flowed", encoded("windows-1251", "Отчёт"), "Отчёт"),
        ("iso-2022-jp", encoded("iso-2022-jp", "四半期"), "四半期"),
        ("\"gb18030\"", encoded("gb18030", "季度"), "季度"),
        ("us-ascii", "Prüfung".into(), "Prüfung"),
        ("utf-8", b"Pr\xFCfung".to_vec(), "Prüfung"),
    ];
    for (charset, subject, wanted) in cases {
        let mut envelope = b"Sender: ann@a.example\r\nSubject: ".to_vec();
        envelope.extend(subject);
        envelope.extend(b"\r\nMessage-Id: <1@a.example>\r\nTo: bob@a.example\r\n");
        let header = format!("Content-Type: text/plain; charset={charset}\r\n");
        let verdict = Report::new().part(&header, envelope).message(ORIGINAL).verdict();
        assert_eq!((verdict.subject.as_deref(), verdict.handling), (Some(wanted), Handling::Archive), "{charset}");
    }
}

fn encoded(charset: &str, text: &str) -> Vec<u8> {
    let encoding = encoding_rs::Encoding::for_label(charset.as_bytes()).expect("known");
    encoding.encode(text).0.into_owned()
}

/// A message too large to be held: a head, the same line again and again, a tail.
struct Large {
    head: Vec<u8>,
    lines: u64,
    tail: Vec<u8>,
}

const LINE: &[u8] = b"--b is not a delimiter when something follows it, however long the report\r\n";

impl Octets for Large {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.lines * LINE.len() as u64 + self.tail.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(buffer.len() <= 1024 * 1024, "only blocks are read");
        let (head, body) = (self.head.len() as u64, self.lines * LINE.len() as u64);
        for (octet, at) in buffer.iter_mut().zip(offset..) {
            *octet = match at {
                _ if at < head => self.head[at as usize],
                _ if at < head + body => LINE[((at - head) % LINE.len() as u64) as usize],
                _ => *self.tail.get((at - head - body) as usize).ok_or(io::ErrorKind::UnexpectedEof)?,
            };
        }
        Ok(())
    }
}

#[test]
fn large_reports_are_read_in_blocks() {
    let whole = Report::usual().end("").bytes();
    let large = Large { head: whole[..whole.len() - 2].to_vec(), lines: 500_000, tail: b"\r\n--b--\r\n".to_vec() };
    let verdict = journal::examine(&large, &Context::default()).expect("reads");
    assert_eq!(verdict.handling, Handling::Archive);
    assert_eq!(verdict.embedded_size, Some(ORIGINAL.len() as u64 + 500_000 * LINE.len() as u64));
}
