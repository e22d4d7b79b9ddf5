use super::*;
use crate::serve::board::StoreStanding;
use postkeep_shared::config::Config;

const NOW: u64 = 1_790_553_600_000;
const MINUTE: u64 = 60_000;

fn settings(text: &str) -> ArchiverAlarms {
    let config = Config::from_text(std::path::Path::new("c.toml"), text, "POSTKEEP_NONE").expect("TOML");
    let taken = ArchiverAlarms::take(&config, config.root());
    config.finish().expect("no mistake");
    taken
}

fn found() -> Found {
    let mut source = SourceStanding { name: "m365".into(), ended_ms: Some(NOW), ..SourceStanding::default() };
    source
        .hosts
        .insert("gw:995".into(), HostStanding { last_ok_ms: Some(NOW), waiting: Some(0), ..HostStanding::default() });
    let mut found = Found::default();
    found.board.sources.push(source);
    found.board.started_ms = NOW - 600 * MINUTE;
    found.board.store = Some(StoreStanding::default());
    found.reconciled = serde_json::from_str(r#"{"sources":{"m365":{"rows":[{"ok":true,"missing":0}]}}}"#).ok();
    found
}

fn kinds(found: &Found, settings: &ArchiverAlarms) -> Vec<Kind> {
    judge(found, &[], settings, NOW).into_iter().flat_map(|(_, conditions, _)| conditions).map(|c| c.kind).collect()
}

const BUSY: &str = "[alarms]\nsilence = '30m'\n[alarms.busy_hours]\nm365 = 'Mon-Sun 00:00-24:00'\n";

#[test]
fn silence_is_judged_only_where_everything_else_is_well() {
    let mut silent = found();
    assert_eq!(kinds(&silent, &settings("")), [], "nothing was learnt yet");
    assert_eq!(kinds(&silent, &settings(BUSY)), [Kind::Silence]);
    silent.board.sources[0].last_report_ms = Some(NOW - 29 * MINUTE);
    assert_eq!(kinds(&silent, &settings(BUSY)), []);
    silent.board.sources[0].last_report_ms = Some(NOW - 31 * MINUTE);
    assert_eq!(kinds(&silent, &settings(BUSY)), [Kind::Silence]);
    let host = silent.board.sources[0].hosts.get_mut("gw:995").expect("is there");
    (host.failures, host.failing_since_ms, host.error) = (2, Some(NOW - 5 * MINUTE), Some("refused".into()));
    assert_eq!(kinds(&silent, &settings(BUSY)), [Kind::HostDown]);
    let all = judge(&silent, &[], &settings(BUSY), NOW);
    let unknown = all.iter().find(|(kind, ..)| *kind == Kind::Silence).map(|(_, _, unknown)| unknown.clone());
    assert_eq!(unknown, Some(vec!["m365".to_owned()]), "neither raised nor resolved");
    let down = all.into_iter().flat_map(|(_, conditions, _)| conditions).next().expect("one");
    assert_eq!((down.since_ms, down.hold_ms), (Some(NOW - 5 * MINUTE), 30 * MINUTE));
}

#[test]
fn gaps_are_numbers_and_not_hosts_that_are_down() {
    let rows = |text: &str| Found {
        reconciled: serde_json::from_str(&format!(r#"{{"sources":{{"m365":{{"rows":[{text}]}}}}}}"#)).ok(),
        ..found()
    };
    let gap = rows(
        r#"{"ok":false,"mailbox":"mbx-000102030405060708090a0b0c0d0e0f","node":"n","missing":3,"problems":["3 messages were accepted and are neither in the store nor at the gateway"]}"#,
    );
    assert_eq!(kinds(&gap, &settings("")), [Kind::Gap]);
    let text = format!("{:?}", judge(&gap, &[], &settings(""), NOW));
    assert!(text.contains("mbx-00010203... node n") && text.contains("3 messages were accepted"), "{text}");
    let back = rows(r#"{"ok":false,"problems":["gw:995: its ledger went back"]}"#);
    assert_eq!(kinds(&back, &settings("")), [Kind::Gap]);
    let down = rows(
        r#"{"ok":false,"unknown":2,"problems":["gw:995 could not be asked: refused","2 messages were accepted and are not in the store; whether they wait is not known"]}"#,
    );
    assert_eq!(kinds(&down, &settings("")), []);
}

#[test]
fn the_rest_is_one_condition_each() {
    let day = 86_400;
    let now = i64::try_from(NOW / 1000).expect("small");
    let mut bad = found();
    bad.board.store = Some(StoreStanding { dead_letters: 2, quarantined: 1, ..StoreStanding::default() });
    bad.board.reload_error = Some("a mistake".into());
    bad.certificates.insert("gw:995".into(), (now - 80 * day, now + 6 * day));
    bad.space = Some(("data".into(), Space { free: 1, total: 1000, free_inodes: 1 << 20, read_only: false }));
    let text = "[[alarms.fresh]]\nname = 'backup'\npath = 'x'\nwithin = '26h'\n";
    let mut all = kinds(&bad, &settings(text));
    all.sort();
    assert_eq!(all, [Kind::Certificate, Kind::Disk, Kind::Stale, Kind::DeadLetter, Kind::Quarantine, Kind::Reload]);
    bad.fresh.insert("backup".into(), Some(NOW - 25 * 60 * MINUTE));
    assert!(!kinds(&bad, &settings(text)).contains(&Kind::Stale));
    let day = Duration::from_hours(24);
    let sealed = |last: Option<u64>| {
        let mut found = Found { checkpoint_ms: last, checkpoint_interval: Some(day), ..found() };
        found.board.started_ms = NOW - 60 * 24 * 60 * MINUTE;
        kinds(&found, &settings(""))
    };
    assert_eq!(sealed(Some(NOW - 47 * 60 * MINUTE)), []);
    assert_eq!(sealed(Some(NOW - 49 * 60 * MINUTE)), [Kind::Stale]);
    assert_eq!(sealed(None), [Kind::Stale]);
}

#[test]
fn settings_are_checked() {
    let taken = settings(
        "[mail]\nfrom = 'a@b.example'\n[alarms]\nmail = ['x@y.example']\n[status_mail]\nevery = 'weekly'\non = 'fri'\nat = '06:30'\n",
    );
    let status = taken.status.expect("a status mail");
    assert_eq!((status.to, status.at, status.weekday), (vec!["x@y.example".to_owned()], 390, Some(4)));
    for (text, wanted) in [
        ("[status_mail]\nevery = 'daily'\nto = ['x@y.example']", "add [mail]"),
        ("[mail]\nfrom = 'a@b.example'\n[status_mail]\nevery = 'daily'", "status_mail.to: is missing"),
        ("[status_mail]\nat = '25:00'", "is not a time of day"),
        ("[status_mail]\non = 'Someday'", "is not a day"),
        ("[alarms.busy_hours]\nm365 = 'always'", "are no hours of a week"),
        ("[[alarms.fresh]]\nname = 'x'\npath = 'y'", "within: missing"),
    ] {
        let config = Config::from_text(std::path::Path::new("c.toml"), text, "POSTKEEP_NONE").expect("TOML");
        let _ = ArchiverAlarms::take(&config, config.root());
        let error = config.finish().expect_err(text).to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}
