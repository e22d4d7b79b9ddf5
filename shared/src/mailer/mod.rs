//! Mail that the programs send themselves: alarms, status, checkpoints, probes.
//!
//! A [`Letter`] becomes a message (RFC 5322, RFC 2045) with Date, Message-ID and `Auto-Submitted: auto-generated`
//! (RFC 3834 §5), so that nobody's holiday notice answers. [`Mailer`] gives it to a relay, whose certificate is checked,
//! or to the mail exchangers of the recipient's domain (RFC 5321 §5.1). What it does not do: queue. Whoever sends keeps
//! what could not be sent ([`crate::alarm`]).

mod deliver;
mod letter;
mod route;
mod settings;

pub use deliver::{Login, SendError, Server, deliver};
pub use letter::{Attachment, Letter};
pub use route::Exchangers;
pub use settings::{MailSettings, Relay, Security, address, host_and_port, login, our_name};

use std::net::SocketAddr;

/// Port of mail exchangers.
const SMTP: u16 = 25;

/// Sends by the configured way.
#[derive(Clone)]
pub struct Mailer {
    settings: MailSettings,
    dns: Vec<SocketAddr>,
}

impl Mailer {
    /// Sends as `[mail]` says; `dns`: servers to ask for mail exchangers, the system's where empty.
    #[must_use]
    pub fn new(settings: MailSettings, dns: Vec<SocketAddr>) -> Self {
        Self { settings, dns }
    }

    /// Domain of the sender's address: what stands behind the `@` in a Message-ID.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.settings.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
    }

    /// Sends one letter to one recipient; says who took it and what was answered.
    ///
    /// # Errors
    /// [`SendError`]: nobody took it; another try later may help.
    pub async fn send(&self, to: &str, id: &str, letter: &Letter) -> Result<String, SendError> {
        let message = letter.message(&self.settings.from, to, &format!("{id}@{}", self.domain()));
        let from = self.settings.from.as_str();
        match &self.settings.relay {
            Some(relay) => {
                let server = Server {
                    name: relay.host.clone(),
                    address: None,
                    port: relay.port,
                    security: relay.security,
                    verify: Some(relay.verify.clone()),
                    login: login(relay.login.as_ref())?,
                    helo: self.settings.helo.clone(),
                };
                deliver(&server, from, to, &message).await
            }
            None => self.to_exchangers(from, to, &message).await,
        }
    }

    /// To the first exchanger that takes it. One that refuses for good ends it: the others would say the same.
    async fn to_exchangers(&self, from: &str, to: &str, message: &[u8]) -> Result<String, SendError> {
        let domain = to.rsplit_once('@').map_or(to, |(_, domain)| domain);
        let found = Exchangers::find(domain, &self.dns).await.map_err(SendError::Way)?;
        let mut last = None;
        for (name, ip) in found.hosts {
            let server = Server {
                name,
                address: Some(ip),
                port: SMTP,
                security: Security::Opportunistic,
                verify: None,
                login: None,
                helo: self.settings.helo.clone(),
            };
            match deliver(&server, from, to, message).await {
                Err(error @ SendError::Server { .. }) => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| SendError::Way(format!("no mail exchanger of {domain} has an address"))))
    }
}
