//! Looks at everything, again and again, and says what is wrong. What was found is judged by a pure function.

use super::GatewayAlarms;
use crate::{
    mailbox::State,
    spool::{Spool, SpoolError},
    tls::{Certificates, Serving, clock::moment},
};
use postkeep_shared::{
    alarm::{Alarms, Condition, Kind, certificate_stage, span_text},
    disk::{Disk, Space},
    run::{Shutdown, now_ms},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// What a look found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Every mailbox; `None`: they could not be read.
    pub mailboxes: Option<Vec<MailboxFound>>,
    /// The certificate that is served.
    pub certificate: Serving,
    /// What went wrong with it last.
    pub trouble: Option<String>,
    /// `acme`, `files` or `self-signed`, as configured.
    pub mode: &'static str,
    /// What is left on the disk; `None`: nobody could tell.
    pub space: Option<Space>,
    /// Where.
    pub place: String,
    /// Why storage takes nothing.
    pub stopped: Option<String>,
}

/// A mailbox in a look.
#[derive(Debug, Clone)]
pub struct MailboxFound {
    /// Its name.
    pub name: String,
    /// It refuses mail.
    pub suspended: bool,
    /// When the oldest message that waits was accepted.
    pub oldest_ms: Option<u64>,
}

/// Every condition of every kind that is watched here, the kinds without one included.
#[must_use]
pub fn judge(found: &Found, settings: &GatewayAlarms, now_ms: u64) -> Vec<(Kind, Vec<Condition>)> {
    let mut all = vec![
        (Kind::Certificate, certificate(found, now_ms)),
        (Kind::Storage, found.stopped.iter().map(|why| stopped(&found.place, why)).collect()),
    ];
    if let Some(space) = found.space {
        all.push((Kind::Disk, settings.shared.disk(&found.place, &space)));
    }
    if let Some(mailboxes) = &found.mailboxes {
        let suspended = mailboxes.iter().filter(|mailbox| mailbox.suspended);
        let suspended = suspended.filter_map(|mailbox| {
            let hold = settings.suspended?;
            let detail = "It refuses new mail with 450, and senders give up after 12 to 24 hours.";
            Some(Condition::new(Kind::Suspended, &mailbox.name, detail).hold(hold))
        });
        all.push((Kind::Suspended, suspended.collect()));
        all.push((Kind::Waiting, mailboxes.iter().filter_map(|mailbox| waiting(mailbox, settings, now_ms)).collect()));
    }
    all
}

/// Storage that has stopped.
#[must_use]
pub(crate) fn stopped(place: &str, why: &str) -> Condition {
    Condition::new(Kind::Storage, place, &format!("No mail is taken and none is removed: {why}."))
}

fn waiting(mailbox: &MailboxFound, settings: &GatewayAlarms, now_ms: u64) -> Option<Condition> {
    let (limit, oldest) = (settings.waiting?, mailbox.oldest_ms?);
    let age = Duration::from_millis(now_ms.saturating_sub(oldest));
    (age >= limit).then(|| {
        let detail = format!("Its oldest message has waited for {} and nobody has collected it.", span_text(age));
        Condition::new(Kind::Waiting, &mailbox.name, &detail).since(oldest)
    })
}

fn certificate(found: &Found, now_ms: u64) -> Vec<Condition> {
    let facts = &found.certificate.facts;
    let name = facts.names.first().map_or("certificate", String::as_str);
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let trouble = found.trouble.as_ref().map(|text| format!(" Last error: {text}.")).unwrap_or_default();
    let ends = moment(facts.not_after);
    if let Some(stage) = certificate_stage(facts.not_before, facts.not_after, now) {
        let days = facts.days_left(now);
        let detail = if facts.is_expired(now) {
            format!("It has ended on {ends} and is served all the same.{trouble}")
        } else {
            format!("It ends on {ends}, in {days} days, and was not renewed.{trouble}")
        };
        return vec![Condition::new(Kind::Certificate, name, &detail).stage(stage)];
    }
    // Some senders refuse a certificate of our own making; the first try may still be under way.
    let first = found.mode == "acme" && found.certificate.source != "acme" && found.trouble.is_some();
    let detail = || format!("The authority has not made one yet, the self-signed one is served.{trouble}");
    first.then(|| Condition::new(Kind::Certificate, name, &detail()).stage(1)).into_iter().collect()
}

/// Looks until `shutdown`.
pub async fn run(
    settings: GatewayAlarms,
    alarms: Alarms,
    spool: Spool,
    certificates: Arc<Certificates>,
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    mut shutdown: Shutdown,
) {
    loop {
        let (spool, certificates, disk, data_dir) =
            (spool.clone(), Arc::clone(&certificates), Arc::clone(&disk), data_dir.clone());
        let looked = tokio::task::spawn_blocking(move || look(&spool, &certificates, disk.as_ref(), data_dir)).await;
        match looked {
            Ok(found) => {
                for (kind, conditions) in judge(&found, &settings, now_ms()) {
                    alarms.replace(kind, conditions);
                }
            }
            Err(error) => tracing::error!("ALARM: the look at mailboxes, certificate and disk broke off: {error}"),
        }
        tokio::select! {
            () = shutdown.fired() => return,
            () = tokio::time::sleep(settings.look) => {}
        }
    }
}

fn look(spool: &Spool, certificates: &Certificates, disk: &dyn Disk, data_dir: PathBuf) -> Found {
    Found {
        mailboxes: mailboxes(spool).inspect_err(|error| tracing::warn!("mailboxes cannot be watched: {error}")).ok(),
        certificate: certificates.serving(),
        trouble: certificates.trouble().map(|trouble| trouble.text),
        mode: certificates.mode(),
        space: disk.space(&data_dir).ok(),
        place: data_dir.display().to_string(),
        stopped: spool.read_only().map(str::to_owned).or(spool.failed().borrow().clone()),
    }
}

fn mailboxes(spool: &Spool) -> Result<Vec<MailboxFound>, SpoolError> {
    let mut found = Vec::new();
    for mailbox in spool.mailboxes().list()? {
        found.push(MailboxFound {
            name: mailbox.id.to_string(),
            suspended: mailbox.state == State::Suspended,
            oldest_ms: spool.oldest_waiting(mailbox.id)?,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Facts;
    use postkeep_shared::config::Config;

    const NOW: u64 = 1_790_553_600_000;
    const HOUR: u64 = 3_600_000;
    const DAY: i64 = 86_400;

    fn settings(text: &str) -> GatewayAlarms {
        let config = Config::from_text(std::path::Path::new("c.toml"), text, "POSTKEEP_NONE").expect("TOML");
        let taken = GatewayAlarms::take(&config, config.root(), "gw.example");
        config.finish().expect("no mistake");
        taken
    }

    fn found() -> Found {
        let now = i64::try_from(NOW / 1000).expect("small");
        let facts = Facts {
            names: vec!["gw.example".into()],
            issuer: String::new(),
            not_before: now - 10 * DAY,
            not_after: now + 80 * DAY,
            public_key_sha256: String::new(),
        };
        let gib = 1 << 30;
        Found {
            mailboxes: Some(vec![MailboxFound {
                name: "mbx-000102030405060708090a0b0c0d0e0f".into(),
                suspended: false,
                oldest_ms: Some(NOW - HOUR),
            }]),
            certificate: Serving { source: "self-signed", facts },
            trouble: None,
            mode: "self-signed",
            space: Some(Space { free: 50 * gib, total: 100 * gib, free_inodes: 1 << 20, read_only: false }),
            place: "data".into(),
            stopped: None,
        }
    }

    fn kinds(found: &Found, settings: &GatewayAlarms) -> Vec<Kind> {
        judge(found, settings, NOW).into_iter().flat_map(|(_, conditions)| conditions).map(|c| c.kind).collect()
    }

    #[test]
    fn all_is_well_and_every_kind_is_judged() {
        let all = judge(&found(), &settings(""), NOW);
        assert!(all.iter().all(|(_, conditions)| conditions.is_empty()), "{all:?}");
        assert_eq!(all.len(), 5);
        let blind = Found { mailboxes: None, space: None, ..found() };
        assert_eq!(judge(&blind, &settings(""), NOW).len(), 2, "what is not known is neither raised nor resolved");
    }

    #[test]
    fn each_thing_that_is_wrong_is_one_condition() {
        let mut old = found();
        old.mailboxes.as_mut().expect("some")[0].oldest_ms = Some(NOW - 5 * HOUR);
        assert_eq!(kinds(&old, &settings("")), [Kind::Waiting]);
        assert_eq!(kinds(&old, &settings("[alarms]\nwaiting = '6h'")), []);
        assert_eq!(kinds(&old, &settings("[alarms]\nwaiting = 'never'")), []);
        let text = format!("{:?}", judge(&old, &settings(""), NOW));
        assert!(text.contains("mbx-00010203...") && !text.contains("0c0d0e0f"), "{text}");
        old.mailboxes.as_mut().expect("some")[0].suspended = true;
        assert_eq!(kinds(&old, &settings("")), [Kind::Suspended, Kind::Waiting]);
        let full = Space { free: 1 << 30, total: 100 << 30, free_inodes: 5, read_only: false };
        assert_eq!(kinds(&Found { space: Some(full), ..found() }, &settings("")), [Kind::Disk, Kind::Disk]);
        assert_eq!(kinds(&Found { stopped: Some("it broke".into()), ..found() }, &settings("")), [Kind::Storage]);
        let mut ending = found();
        ending.certificate.facts.not_after = i64::try_from(NOW / 1000).expect("small") + 2 * DAY;
        assert_eq!(kinds(&ending, &settings("")), [Kind::Certificate]);
        let waiting = Found { mode: "acme", trouble: Some("no route".into()), ..found() };
        assert_eq!(kinds(&waiting, &settings("")), [Kind::Certificate]);
    }

    #[test]
    fn settings_are_checked() {
        let text = "[mail]\nfrom = 'a@b.example'\nrelay = 'mx.b.example:25'\nsecurity = 'none'\n[alarms]\n\
                    mail = ['x@y.example']\ncommand = ['/bin/page', 'a b']\nremind = '12h'\nsuspended = '1m'\n";
        let taken = settings(text);
        assert_eq!(taken.shared.recipients().collect::<Vec<_>>(), ["mail:x@y.example", "command"]);
        assert_eq!(taken.suspended, Some(Duration::from_mins(1)));
        for (text, wanted) in [
            ("[alarms]\nmail = ['x@y.example']", "add [mail]"),
            ("[alarms]\nmail = ['x@y.example\\r\\nRCPT']\n[mail]\nfrom = 'a@b.example'", "is not an address"),
            ("[alarms]\ncommand = ['page']", "must be the whole path"),
            ("[mail]\nfrom = 'a@b.example'\nuser = 'x'", "is there without `relay`"),
            (
                "[mail]\nfrom = 'a@b.example'\nrelay = 'r'\nuser = 'x'\npassword = 'y'",
                "do not stand in the configuration",
            ),
            (
                "[mail]\nfrom = 'a@b.example'\nrelay = 'r'\nuser = 'x'\npassword_file = 'y'\nsecurity = 'none'",
                "although there is a password",
            ),
            ("[mail]\nrelay = 'r'", "mail.from: missing"),
            ("[alarms]\nwaiting = 'x'", "or `never`"),
        ] {
            let config = Config::from_text(std::path::Path::new("c.toml"), text, "POSTKEEP_NONE").expect("TOML");
            let _ = GatewayAlarms::take(&config, config.root(), "gw.example");
            let error = config.finish().expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
