//! What happens to the certificate while the gateway runs: files that changed are read, a certificate is renewed, alarms
//! are raised, and `status` learns of it.
//!
//! Invariants: nothing that fails here takes the certificate in use away; an alarm is a warning with the field
//! `alarm = "certificate"`; decisions go by the [`Clock`] alone, so a test steps through years. [`Upkeep::step`] does
//! what is due and says when something will be; [`run`] calls it once a second.

use super::{
    Certificates, TlsError,
    acme::{IssueError, Issued, Issuer, Request, Store},
    alarms::{Alarm, Alarms},
    clock::{Clock, moment},
    facts::Facts,
    renewal,
    report::{Report, Trouble},
    watch::Watch,
};
use postkeep_shared::run::Shutdown;
use std::{sync::Arc, time::Duration};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

const LOOK: Duration = Duration::from_secs(1);
const DAY: i64 = 86_400;

/// Where renewed certificates come from.
pub struct Renewal {
    /// Whom to ask.
    pub issuer: Arc<dyn Issuer>,
    /// Where to keep what comes.
    pub store: Store,
    /// Directory and names.
    pub names: Vec<String>,
    /// The directory's URL.
    pub directory: String,
    /// Chance for the back-off.
    pub chance: fn() -> f64,
}

impl Renewal {
    fn wish(&self) -> String {
        format!("{} {}", self.directory, self.names.join(" "))
    }
}

/// What one step did.
#[derive(Debug, Default)]
pub struct Step {
    /// When something is due next.
    pub next: i64,
    /// An alarm that was raised.
    pub alarm: Option<Alarm>,
    /// How an order ended, if there was one.
    pub order: Option<Result<(), IssueError>>,
}

/// Looks after one certificate.
pub struct Upkeep {
    certificates: Arc<Certificates>,
    clock: Arc<dyn Clock>,
    watch: Watch,
    alarms: Alarms,
    renewal: Option<Renewal>,
    next_try: i64,
    failures: u32,
    kept: Option<Report>,
}

impl Upkeep {
    /// Begins where the last run stopped: a back-off goes on, unless something else is wanted now.
    #[must_use]
    pub fn new(certificates: Arc<Certificates>, renewal: Option<Renewal>, clock: Arc<dyn Clock>) -> Self {
        let kept = certificates.kept_report();
        let mut upkeep = Self {
            certificates,
            clock,
            watch: Watch::default(),
            alarms: Alarms::default(),
            renewal,
            next_try: 0,
            failures: 0,
            kept: None,
        };
        if let Some(renewal) = &upkeep.renewal {
            upkeep.next_try = upkeep.due(renewal);
            if let Some(kept) = kept.filter(|kept| kept.failures > 0 && kept.wish == renewal.wish()) {
                upkeep.next_try = kept.next_try.unwrap_or(0).min(upkeep.clock.now() + DAY);
                upkeep.failures = kept.failures;
                if let Some(trouble) = kept.last_error {
                    upkeep.certificates.note(Some(trouble));
                }
            }
        }
        upkeep
    }

    /// When the certificate in use has to be followed by another.
    fn due(&self, renewal: &Renewal) -> i64 {
        match self.certificates.serving() {
            serving if serving.source == "acme" && serving.facts.covers(&renewal.names) => renewal::due(&serving.facts),
            _ => self.clock.now(),
        }
    }

    /// Does what is due.
    pub async fn step(&mut self) -> Step {
        let mut step = Step::default();
        self.read_changed_files().await;
        // `status` is asked while an order runs, too.
        self.keep_report();
        step.order = self.renew().await;
        let now = self.clock.now();
        let serving = self.certificates.serving();
        // The self-signed one has no end; without an authority's certificate its failures are the alarm.
        step.alarm = self.alarms.due(&serving.facts, now);
        if let Some(alarm) = &step.alarm {
            self.raise(alarm, &serving.facts);
        }
        step.next = Alarms::next(&serving.facts, now);
        if self.renewal.is_some() {
            step.next = step.next.min(self.next_try.max(now));
        }
        self.keep_report();
        step
    }

    async fn read_changed_files(&mut self) {
        let Some((read, found)) = self.certificates.stamps() else { return };
        if !self.watch.settled(read, found) {
            return;
        }
        let certificates = Arc::clone(&self.certificates);
        match tokio::task::spawn_blocking(move || certificates.reload()).await {
            Ok(Ok(())) => tracing::info!("the certificate files changed and were read"),
            Ok(Err(error)) => {
                tracing::warn!(alarm = "certificate", %error, "ALARM: the old certificate stays in use");
            }
            Err(error) => tracing::error!(%error, "the certificate files could not be read"),
        }
    }

    async fn renew(&mut self) -> Option<Result<(), IssueError>> {
        let renewal = self.renewal.as_ref()?;
        let asked = renewal.store.asked();
        if self.certificates.take_nudge() && self.failures > 0 {
            self.next_try = self.clock.now();
        }
        if asked.is_none() && self.clock.now() < self.next_try {
            return None;
        }
        let outcome = self.order(renewal, asked == Some(Request::NewKey)).await;
        if asked.is_some()
            && let Err(error) = renewal.store.answered()
        {
            tracing::warn!(%error, "the request stays and is done again at the next start");
        }
        let now = self.clock.now();
        let due = self.due(renewal);
        let outcome = outcome.and_then(|()| {
            let short = || IssueError::new("the new certificate is about to end; compare this machine's clock".into());
            if due > now { Ok(()) } else { Err(short()) }
        });
        match &outcome {
            Ok(()) => {
                (self.failures, self.next_try) = (0, due);
                self.certificates.note(None);
                tracing::info!(next_try = moment(due), "a new certificate is in use");
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.next_try = now + renewal::back_off(self.failures, (renewal.chance)());
                self.certificates.note(Some(Trouble { time: now, text: error.to_string() }));
                self.tell_failure(error);
            }
        }
        Some(outcome)
    }

    /// A renewal that fails has weeks to succeed, so it becomes an alarm with the days left; a first certificate is
    /// waited for now.
    fn tell_failure(&self, error: &IssueError) {
        let (failures, next_try) = (self.failures, moment(self.next_try));
        if self.certificates.serving().source == "acme" {
            tracing::warn!(%error, failures, next_try, "the certificate was not renewed");
        } else {
            tracing::warn!(
                alarm = "certificate", %error, failures, next_try,
                "ALARM: there is no certificate of the authority yet; the self-signed one is served"
            );
        }
    }

    async fn order(&self, renewal: &Renewal, new_key: bool) -> Result<(), IssueError> {
        let text = |e: TlsError| IssueError::new(e.to_string());
        let key = renewal.store.key(new_key).map_err(text)?;
        let Issued { chain, account } = renewal.issuer.issue(&key, &renewal.names).await?;
        let first = CertificateDer::from_pem_slice(chain.as_bytes()).ok();
        let facts = first.as_ref().and_then(|der| Facts::of(der));
        let facts = facts.ok_or_else(|| IssueError::new("the authority sent no certificate".into()))?;
        if !facts.covers(&renewal.names) {
            let names = facts.names.join(", ");
            return Err(IssueError::new(format!("the authority made a certificate for other names: {names}")));
        }
        // Tried before it takes the old one's place: a key that does not fit would be served for ever.
        self.certificates.try_pair(&key, &chain).map_err(text)?;
        renewal.store.keep(&key, &chain).map_err(text)?;
        self.certificates.reload().map_err(text)?;
        self.certificates.account(Some(account));
        Ok(())
    }

    fn raise(&self, alarm: &Alarm, facts: &Facts) {
        let trouble = self.certificates.trouble().map(|t| t.text).unwrap_or_default();
        let next_try = if self.renewal.is_some() { moment(self.next_try) } else { String::new() };
        tracing::warn!(
            alarm = "certificate",
            names = facts.names.join(" "),
            not_after = moment(facts.not_after),
            days_left = alarm.days_left,
            last_error = trouble,
            next_try,
            "{}",
            if facts.is_expired(self.clock.now()) {
                "ALARM: the certificate has expired and is served all the same; renew it"
            } else {
                "ALARM: the certificate ends soon; renew it"
            }
        );
    }

    fn keep_report(&mut self) {
        let renewal = self.renewal.as_ref();
        let mut report = self.certificates.report();
        report.next_try = renewal.map(|_| self.next_try);
        report.failures = self.failures;
        report.wish = renewal.map(Renewal::wish).unwrap_or_default();
        if self.kept.as_ref() != Some(&report) {
            self.certificates.keep_report(&report);
            self.kept = Some(report);
        }
    }
}

/// Until `shutdown`.
pub async fn run(mut upkeep: Upkeep, mut shutdown: Shutdown) {
    loop {
        // An order that is cut off here is asked for again at the next start.
        tokio::select! {
            () = shutdown.fired() => return,
            _ = upkeep.step() => {}
        }
        tokio::select! {
            () = shutdown.fired() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
