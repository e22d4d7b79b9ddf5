//! `[alarms]` and `[mail]` of the gateway.

use postkeep_shared::{
    alarm::{AlarmSettings, Who, span_or_never},
    config::{Config, Section},
    mailer::{MailSettings, Mailer},
};
use std::{net::SocketAddr, time::Duration};

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAlarms {
    /// What both programs have.
    pub shared: AlarmSettings,
    /// How mail goes out.
    pub mail: Option<MailSettings>,
    /// How long a message may wait; `None`: for ever.
    pub waiting: Option<Duration>,
    /// How long a mailbox may be suspended; `None`: for ever.
    pub suspended: Option<Duration>,
    /// How often everything is looked at.
    pub look: Duration,
}

impl GatewayAlarms {
    /// Takes both sections.
    #[must_use]
    pub fn take(config: &Config, root: &Section, hostname: &str) -> Self {
        let mail = MailSettings::take(config, root, hostname);
        let section = root.section("alarms");
        Self {
            shared: AlarmSettings::take(&section, mail.as_ref()),
            mail,
            waiting: span_or_never(&section, "waiting", Some(Duration::from_hours(4))),
            suspended: span_or_never(&section, "suspended", Some(Duration::from_mins(15))),
            look: section.duration("look").unwrap_or(Duration::from_secs(15)).max(Duration::from_millis(100)),
        }
    }

    /// Whoever sends the mail.
    #[must_use]
    pub fn mailer(&self, dns: &[SocketAddr]) -> Option<Mailer> {
        self.mail.clone().map(|mail| Mailer::new(mail, dns.to_vec()))
    }

    /// Who speaks.
    #[must_use]
    pub fn who(hostname: &str) -> Who {
        Who { program: "postkeep-gateway", host: hostname.to_owned() }
    }
}
