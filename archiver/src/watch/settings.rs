//! `[alarms]`, `[mail]` and `[status_mail]` of the archiver.

use super::busy::{BusyHours, day_of_week, minute_of_day};
use postkeep_shared::{
    alarm::{AlarmSettings, Who, span_or_never},
    config::{Config, Section},
    mailer::{MailSettings, Mailer, address, our_name},
};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverAlarms {
    /// What both programs have.
    pub shared: AlarmSettings,
    /// How mail goes out.
    pub mail: Option<MailSettings>,
    /// How long a host may be down.
    pub host_down: Duration,
    /// How long a message may wait at its gateway; `None`: for ever.
    pub waiting: Option<Duration>,
    /// How long a source may be silent when it is busy; `None`: for ever.
    pub silence: Option<Duration>,
    /// Busy hours by source, where they are not to be learnt.
    pub busy_hours: BTreeMap<String, BusyHours>,
    /// Files that must be fresh.
    pub fresh: Vec<Fresh>,
    /// How often everything is looked at.
    pub look: Duration,
    /// The status mail.
    pub status: Option<StatusMail>,
}

/// A file, or the newest file of a folder, that must not be older than this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// What it is, for people.
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// How old it may be.
    pub within: Duration,
}

/// When the status is mailed to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusMail {
    /// Addresses.
    pub to: Vec<String>,
    /// Minute of the day, local time.
    pub at: u16,
    /// 0 is Monday; `None`: every day.
    pub weekday: Option<u8>,
}

impl ArchiverAlarms {
    /// Takes the sections.
    #[must_use]
    pub fn take(config: &Config, root: &Section) -> Self {
        let mail = MailSettings::take(config, root, &our_name());
        let section = root.section("alarms");
        let shared = AlarmSettings::take(&section, mail.as_ref());
        let status = StatusMail::take(&root.section("status_mail"), &shared.mail, mail.is_some());
        let hours = section.section("busy_hours");
        let mut busy_hours = BTreeMap::new();
        for source in hours.keys() {
            match hours.text(&source).map(|text| BusyHours::parse(&text)) {
                Some(Ok(parsed)) => drop(busy_hours.insert(source, parsed)),
                Some(Err(remedy)) => hours.mistake(&source, remedy),
                None => {}
            }
        }
        Self {
            shared,
            mail,
            host_down: section.duration("host_down").unwrap_or(Duration::from_mins(30)),
            waiting: span_or_never(&section, "waiting", Some(Duration::from_hours(4))),
            silence: span_or_never(&section, "silence", Some(Duration::from_hours(1))),
            busy_hours,
            fresh: section.tables("fresh").iter().map(|table| Fresh::take(config, table)).collect(),
            look: section.duration("look").unwrap_or(Duration::from_secs(15)).max(Duration::from_millis(100)),
            status,
        }
    }

    /// Whoever sends the mail.
    #[must_use]
    pub fn mailer(&self, dns: &[SocketAddr]) -> Option<Mailer> {
        self.mail.clone().map(|mail| Mailer::new(mail, dns.to_vec()))
    }

    /// Who speaks.
    #[must_use]
    pub fn who() -> Who {
        Who { program: "postkeep-archiver", host: our_name() }
    }

    /// Addresses beside those of `[alarms]`.
    #[must_use]
    pub fn also(&self) -> Vec<String> {
        self.status.iter().flat_map(|status| status.to.clone()).collect()
    }
}

impl Fresh {
    fn take(config: &Config, table: &Section) -> Self {
        let within = table.duration("within");
        if within.is_none() && !table.has("within") {
            table.mistake("within", "missing; write how old it may be, for example \"26h\"");
        }
        Self {
            name: table.required("name").unwrap_or_default(),
            path: config.resolve(&table.required("path").unwrap_or_default()),
            within: within.unwrap_or_default(),
        }
    }
}

impl StatusMail {
    fn take(section: &Section, default_to: &[String], can_mail: bool) -> Option<Self> {
        let every = section.choice("every", &["daily", "weekly", "never"]);
        let at = section.text("at").unwrap_or_else(|| "07:00".into());
        let minute = minute_of_day(&at).filter(|minute| *minute < 24 * 60);
        if minute.is_none() {
            section.mistake("at", format!("`{at}` is not a time of day; write for example \"07:00\""));
        }
        let on = section.text("on").unwrap_or_else(|| "Mon".into());
        let day = day_of_week(&on);
        if day.is_none() {
            section.mistake("on", format!("`{on}` is not a day; write Mon, Tue, Wed, Thu, Fri, Sat or Sun"));
        }
        let to = section.list("to").unwrap_or_else(|| default_to.to_vec());
        let to: Vec<String> = to.iter().filter_map(|text| address(section, "to", text)).collect();
        let every = every.filter(|every| every != "never")?;
        if to.is_empty() {
            section.mistake("to", "is missing, and [alarms] names no address either; add one");
        }
        if !can_mail {
            section.mistake("every", "needs to know how to send; add [mail] with from, and a relay where there is one");
        }
        Some(Self { to, at: minute.unwrap_or_default(), weekday: if every == "weekly" { day } else { None } })
    }
}
