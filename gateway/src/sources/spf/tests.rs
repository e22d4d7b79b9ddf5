use super::*;
use crate::sources::table::Table;

/// The zone of RFC 7208 appendix A.
const ZONE: &str = "
    MX example.com mail-a.example.com
    MX example.com mail-b.example.com
    A example.com 192.0.2.10
    A example.com 192.0.2.11
    AAAA example.com 2001:db8::10
    A amy.example.com 192.0.2.65
    A bob.example.com 192.0.2.66
    A mail-a.example.com 192.0.2.129
    A mail-b.example.com 192.0.2.130
    MX example.org mail-c.example.org
    A mail-c.example.org 192.0.2.140
";

async fn outcome(zone: &str, domain: &str, client: &str) -> Outcome {
    let table = Table::new(&format!("{ZONE}{zone}"));
    check(table.as_ref(), domain, client.parse().expect("address")).await
}

async fn passes(record: &str, client: &str) -> bool {
    let outcome = outcome(&format!("TXT example.com {record}"), "example.com", client).await;
    assert!(matches!(outcome, Outcome::Pass(_) | Outcome::NoPass), "{record} {client}: {outcome:?}");
    matches!(outcome, Outcome::Pass(_))
}

/// RFC 7208 appendix A.1, with what it says of each record.
#[tokio::test]
async fn examples_of_the_rfc() {
    for (record, inside, outside) in [
        ("v=spf1 +all", &["192.0.2.1", "2001:db8::1"][..], &[][..]),
        ("v=spf1 a -all", &["192.0.2.10", "192.0.2.11", "2001:db8::10"], &["192.0.2.12", "2001:db8::11"]),
        ("v=spf1 a:example.org -all", &[], &["192.0.2.10", "192.0.2.140"]),
        ("v=spf1 mx -all", &["192.0.2.129", "192.0.2.130"], &["192.0.2.10", "192.0.2.140"]),
        ("v=spf1 mx:example.org -all", &["192.0.2.140"], &["192.0.2.129"]),
        ("v=spf1 mx mx:example.org -all", &["192.0.2.129", "192.0.2.130", "192.0.2.140"], &["192.0.2.10"]),
        (
            "v=spf1 mx/30 mx:example.org/30 -all",
            &["192.0.2.128", "192.0.2.131", "192.0.2.143"],
            &["192.0.2.132", "192.0.2.139", "192.0.2.144"],
        ),
        ("v=spf1 ip4:192.0.2.128/28 -all", &["192.0.2.129", "192.0.2.140"], &["192.0.2.65"]),
        ("v=spf1 ip6:2001:db8::/32 -all", &["2001:db8:ffff::1"], &["2001:db9::1", "192.0.2.1"]),
    ] {
        for client in inside {
            assert!(passes(record, client).await, "{record} {client}");
        }
        for client in outside {
            assert!(!passes(record, client).await, "{record} {client}");
        }
    }
}

/// RFC 7208 appendix A.2: include and redirect.
#[tokio::test]
async fn records_that_name_others() {
    let zone = "
        TXT example.com v=spf1 ip4:192.0.2.10 -all
        TXT example.org v=spf1 include:example.com include:example.net -all
        TXT example.net v=spf1 ip4:192.0.2.20 ?all
        TXT la.example.org v=spf1 redirect=example.org
        TXT deep.example.org v=spf1 redirect=la.example.org";
    for domain in ["example.org", "la.example.org", "deep.example.org"] {
        // The -all of an included record does not end the outer one (§5.2).
        for (client, term) in [("192.0.2.10", "ip4:192.0.2.10"), ("::ffff:192.0.2.20", "ip4:192.0.2.20")] {
            assert_eq!(outcome(zone, domain, client).await, Outcome::Pass(term.into()), "{domain} {client}");
        }
        assert_eq!(outcome(zone, domain, "192.0.2.30").await, Outcome::NoPass, "{domain}");
    }
    // §6.1: redirect counts only where nothing fits.
    let zone = "TXT example.com v=spf1 redirect=open.example -all\nTXT open.example v=spf1 +all";
    assert_eq!(outcome(zone, "example.com", "192.0.2.1").await, Outcome::NoPass);
}

#[tokio::test]
async fn the_first_fit_decides() {
    for (record, result) in [
        ("v=spf1 -ip4:192.0.2.1 +all", false),
        ("v=spf1 ~ip4:192.0.2.0/24 +all", false),
        ("v=spf1 ?all ip4:192.0.2.1", false),
        ("v=spf1 ip4:192.0.2.1 -all", true),
        ("V=SPF1 IP4:192.0.2.1 -ALL", true),
        ("v=spf1", false),
        ("v=spf1 moo=x exp=why.example ip4:192.0.2.1", true),
        // They ask the DNS, but no DNS answer may make strangers pass.
        ("v=spf1 exists:example.com -all", false),
        ("v=spf1 ptr -all", false),
        ("v=spf1 exists:%{i}.x.example ip4:192.0.2.1 -all", true),
        ("v=spf1 -exists:%{i}.x.example ip4:192.0.2.1 -all", false),
        ("v=spf1 a:%{d} mx:%{d}/24 include:%{d} redirect=%{d}", false),
        ("v=spf1 -a:%{d} +all", false),
    ] {
        assert_eq!(passes(record, "192.0.2.1").await, result, "{record}");
    }
}

#[tokio::test]
async fn wrong_records() {
    for (zone, wanted) in [
        ("TXT x.example v=spf1 moo -all", "`moo` is not understood"),
        ("TXT x.example v=spf1 ip4:192.0.2.1 ip4:999.1.1.1 -all", "`ip4:999.1.1.1` is not understood"),
        ("TXT x.example v=spf1 -all\nTXT x.example v=spf1 +all", "more than one SPF record"),
        ("TXT x.example v=spf1 include:none.example +all", "include of none.example, which has no SPF record"),
        ("TXT x.example v=spf1 redirect=none.example", "redirect to none.example, which has no SPF record"),
        ("TXT x.example v=spf1 include:y.example +all\nTXT y.example v=spf1 a:", "SPF record of y.example"),
        // Ignoring what it cannot evaluate would let pass what the record does not.
        ("TXT x.example v=spf1 -include:y.example +all\nTXT y.example v=spf1 exists:%{i}.y.example", "not supported"),
        ("TXT x.example v=spf1 -include:y.example +all\nTXT y.example v=spf1 redirect=%{d}", "not supported"),
    ] {
        match outcome(zone, "x.example", "192.0.2.1").await {
            Outcome::Broken(why) => assert!(why.contains(wanted), "{zone}: {why}"),
            other => panic!("{zone}: {other:?}"),
        }
    }
    let foreign = "TXT x.example other text\nTXT x.example v=spf10 +all";
    assert_eq!(outcome(foreign, "x.example", "192.0.2.1").await, Outcome::NoRecord);
}

#[tokio::test]
async fn ten_look_ups_and_no_more() {
    let includes = |n: usize| -> String {
        let names: Vec<String> = (0..n).map(|i| format!("include:i{i}.example")).collect();
        let targets: Vec<String> = (0..n).map(|i| format!("\nTXT i{i}.example v=spf1 -all")).collect();
        format!("TXT x.example v=spf1 {} ip4:192.0.2.1 -all{}", names.join(" "), targets.concat())
    };
    assert!(matches!(outcome(&includes(10), "x.example", "192.0.2.1").await, Outcome::Pass(_)));
    assert!(matches!(outcome(&includes(11), "x.example", "192.0.2.1").await, Outcome::Broken(_)));
    // What fits before the limit counts (§4.6.4 limits the evaluation, not the record).
    let early = includes(11).replace("v=spf1 include:i0", "v=spf1 ip4:192.0.2.1 include:i0");
    assert!(matches!(outcome(&early, "x.example", "192.0.2.1").await, Outcome::Pass(_)));
    for cycle in ["include:x.example", "redirect=x.example", "ptr ptr ptr ptr ptr ptr ptr ptr ptr ptr ptr"] {
        let zone = format!("TXT x.example v=spf1 {cycle}");
        assert!(matches!(outcome(&zone, "x.example", "192.0.2.1").await, Outcome::Broken(_)), "{cycle}");
    }
}

#[tokio::test]
async fn two_look_ups_without_an_answer() {
    let zone = |n: usize| {
        let terms: Vec<String> = (0..n).map(|i| format!("a:void{i}.example")).collect();
        format!("TXT x.example v=spf1 {} ip4:192.0.2.1 -all", terms.join(" "))
    };
    assert!(matches!(outcome(&zone(2), "x.example", "192.0.2.1").await, Outcome::Pass(_)));
    assert!(matches!(outcome(&zone(3), "x.example", "192.0.2.1").await, Outcome::Broken(_)));
    let servers: Vec<String> =
        (0..11).map(|i| format!("\nMX x.example m{i}.example\nA m{i}.example 192.0.2.200")).collect();
    let many = format!("TXT x.example v=spf1 mx -all{}", servers.concat());
    assert!(matches!(outcome(&many, "x.example", "192.0.2.1").await, Outcome::Broken(_)));
}

#[tokio::test]
async fn trouble_is_neither_pass_nor_fail() {
    for zone in [
        "TROUBLE x.example",
        "TXT x.example v=spf1 a:y.example +all\nTROUBLE y.example",
        "TXT x.example v=spf1 include:y.example +all\nTROUBLE y.example",
        "TXT x.example v=spf1 mx:y.example +all\nTROUBLE y.example",
        "TXT x.example v=spf1 redirect=y.example\nTROUBLE y.example",
    ] {
        assert!(matches!(outcome(zone, "x.example", "192.0.2.1").await, Outcome::Undecided(_)), "{zone}");
    }
    let before = "TXT x.example v=spf1 ip4:192.0.2.1 a:y.example -all\nTROUBLE y.example";
    assert!(matches!(outcome(before, "x.example", "192.0.2.1").await, Outcome::Pass(_)));
}
