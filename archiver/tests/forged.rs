//! Fifty messages that try to plant mail in somebody else's archive: reports in reports, field lines where they are
//! none, envelope headers below the trusted line. The archive of the one they name must stay empty.

use postkeep_archiver::{
    filing::{Owner, Owners, Rules, assign},
    journal::{self, Context, Handling, Profile},
};

const VICTIM: &str = "victim@a.example";
const ENVELOPE: &str = "Sender: ann@a.example\r\nSubject: Hi\r\nMessage-Id: <1@a.example>\r\nTo: bob@a.example\r\n";
const HEADER: &str = "From: ann@a.example\r\nTo: bob@a.example\r\nMessage-ID: <1@a.example>\r\n";

struct Case {
    name: String,
    message: String,
    context: Context,
}

fn report(boundary: &str, envelope: &str, original: &str) -> String {
    format!(
        "X-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
         Content-Type: text/plain\r\n\r\n{envelope}\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n{original}\r\n--{boundary}--\r\n"
    )
}

fn evil_envelope() -> String {
    format!("Sender: ann@a.example\r\nMessage-Id: <1@a.example>\r\nTo: {VICTIM}\r\n")
}

/// What an attacker sends to bob; a trusted server reports it.
fn originals() -> Vec<(String, String)> {
    let evil = |boundary: &str| report(boundary, &evil_envelope(), &format!("{HEADER}\r\nx"));
    let body = |header: &str, body: &str| format!("{HEADER}{header}\r\n{body}");
    let fields = format!("Recipient: {VICTIM}\r\nTo: {VICTIM}\r\nBcc: {VICTIM}, Expanded: all@a.example\r\n");
    let mut cases = vec![
        ("a report as the message".to_owned(), evil("x")),
        (
            "a report attached".into(),
            body(
                "Content-Type: multipart/mixed; boundary=m\r\n",
                &format!("--m\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--m--", evil("x")),
            ),
        ),
        (
            "a failure notice around a report".into(),
            body(
                "Content-Type: multipart/report; boundary=m\r\n",
                &format!("--m\r\n\r\nx\r\n--m\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--m--", evil("x")),
            ),
        ),
        ("field lines as text".into(), body("", &fields)),
        ("an envelope part of its own".into(), body("Content-Type: text/plain\r\n", &evil_envelope())),
        ("the marker in the original".into(), body("X-MS-Journal-Report:\r\n", &fields)),
        (
            "the marker and an envelope header".into(),
            body(&format!("X-MS-Journal-Report:\r\nX-Envelope-To: {VICTIM}\r\n"), "x"),
        ),
        ("bcc in the header".into(), body(&format!("Bcc: {VICTIM}\r\nResent-To: {VICTIM}\r\n"), "x")),
        ("a subject of field lines".into(), body(&format!("Subject: =?utf-8?q?x=0D=0ABcc:_{VICTIM}?=\r\n"), "x")),
        (
            "exchange 2003 inside".into(),
            body(
                "Content-Identifer: ExJournalReport\r\nContent-Type: multipart/mixed; boundary=m\r\n",
                &format!(
                    "--m\r\n\r\nSender: ann@a.example\r\nRecipients:\r\n\t{VICTIM}\r\n--m\r\nContent-Type: message/rfc822\r\n\r\n{HEADER}\r\nx\r\n--m--"
                ),
            ),
        ),
        (
            "zimbra inside".into(),
            body(
                &format!(
                    "Auto-Submitted: auto-replied (zimbra; intercept)\r\nSubject: Intercepted message for {VICTIM}: x\r\n"
                ),
                "x",
            ),
        ),
    ];
    for depth in 2..=14 {
        let mut nested = evil("x0");
        for level in 1..depth {
            nested = report(&format!("x{level}"), &evil_envelope(), &nested);
        }
        cases.push((format!("reports nested {depth} deep"), nested));
    }
    cases
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: String, message: String, context: Context| cases.push(Case { name, message, context });
    for (name, original) in originals() {
        add(format!("reported: {name}"), report("outer", ENVELOPE, &original), Context::default());
    }
    // Delimiters of the report, guessed wrongly or hidden.
    for line in ["--outer", "--outer--", " --outer", "--outer x", "> --outer", "--outer-"] {
        let body = format!("{HEADER}\r\n{line}\r\nContent-Type: text/plain\r\n\r\n{}", evil_envelope());
        add(format!("a line {line:?}"), report("outer", ENVELOPE, &body), Context::default());
    }
    // A subject is one line; text behind the envelope was added by somebody.
    for (name, envelope) in [
        ("a subject", ENVELOPE.replace("Hi", &format!("Bcc: {VICTIM}"))),
        ("a folded subject", ENVELOPE.replace("Hi", &format!("Hi\r\n Bcc: {VICTIM}"))),
        ("a bare CR in the subject", ENVELOPE.replace("Hi", &format!("Hi\rBcc: {VICTIM}"))),
        ("behind the empty line", format!("{ENVELOPE}\r\nTo: {VICTIM}\r\n")),
        ("an expanded group", ENVELOPE.replace("bob@a.example", &format!("bob@a.example, Expanded: {VICTIM}"))),
        ("a forwarded user", ENVELOPE.replace("bob@a.example", &format!("bob@a.example, Forwarded: {VICTIM}"))),
    ] {
        add(format!("envelope: {name}"), report("outer", &envelope, &format!("{HEADER}\r\nx")), Context::default());
    }
    // Not from the mail server at all.
    for (name, original) in originals().into_iter().take(4) {
        let context = Context { trusted: false, ..Context::default() };
        add(format!("a stranger: {name}"), report("outer", &evil_envelope(), &original), context);
    }
    // A report where none is expected, and envelope headers that the sender wrote.
    let multidrop = |trusted_host: Option<&str>| Context {
        profile: Profile::Multidrop,
        trusted_host: trusted_host.map(str::to_owned),
        ..Context::default()
    };
    let evil = report("x", &evil_envelope(), &format!("{HEADER}\r\nx"));
    add("a report in a multidrop mailbox".into(), format!("From: ann@a.example\r\n{evil}"), multidrop(None));
    let received = "Received: from sender.example by mx.a.example; Tue, 18 Aug 2026 10:00:00 +0000\r\n";
    for field in [
        "X-Envelope-To",
        "Envelope-To",
        "Delivered-To",
        "X-Original-To",
        "X-Gm-Original-To",
        "X-MDRcpt-To",
        "X-REAL-RCPTTO",
        "x-rcpt-to",
    ] {
        let message = format!("{received}{field}: {VICTIM}\r\n{HEADER}\r\nx");
        add(format!("{field} below the trusted line"), message, multidrop(Some("mx.a.example")));
    }
    for forged in ["mx.a.example", "MX.A.EXAMPLE."] {
        let message =
            format!("{received}X-Envelope-To: {VICTIM}\r\nReceived: from x by {forged}; now\r\n{HEADER}\r\nx");
        add(format!("a second Received by {forged}"), message, multidrop(Some("mx.a.example")));
    }
    cases
}

#[test]
fn nobody_gets_what_was_not_sent_to_him() {
    let mut owners = Owners::default();
    for name in ["ann", "bob", "victim"] {
        owners.add(Owner::new(name, [format!("{name}@a.example").as_str()])).expect("valid");
    }
    let cases = cases();
    let (mut wrong, mut filed) = (0, 0);
    for case in &cases {
        let verdict = journal::examine(&case.message.clone().into_bytes(), &case.context).expect("memory never fails");
        let plan = assign(&verdict, None, &owners, &Rules::default());
        let names: Vec<&str> = plan.instances.iter().map(|instance| instance.owner.as_str()).collect();
        if names.contains(&"victim") {
            wrong += 1;
            println!("{}: {names:?} ({})", case.name, verdict.reason);
        }
        filed += usize::from(names == ["ann", "bob"]);
        assert!(!names.is_empty() || verdict.handling != Handling::Archive, "{}: nothing is dropped", case.name);
    }
    println!("forged: {} cases, {filed} filed to sender and recipient, {wrong} to a wrong owner", cases.len());
    assert!(cases.len() >= 50 && filed >= 40, "{} cases, {filed} filed", cases.len());
    assert_eq!(wrong, 0);
}

/// The same with the victim's address in the envelope: the test above can fail.
#[test]
fn the_victim_gets_what_is_his() {
    let mut owners = Owners::default();
    owners.add(Owner::new("victim", [VICTIM])).expect("valid");
    let message = report("outer", &evil_envelope(), &format!("{HEADER}\r\nx")).into_bytes();
    let verdict = journal::examine(&message, &Context::default()).expect("memory never fails");
    assert_eq!(assign(&verdict, None, &owners, &Rules::default()).instances[0].owner, "victim");
}
