//! `alarm test`: a notice through every way at once, past the queue, and what came of it.

use super::{AlarmSettings, Event, Kind, Notice, Who, letter};
use crate::{crypt::random, mailer::Mailer, run::now_ms};
use serde::Serialize;

/// What came of one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// `mail:ADDRESS` or `command`.
    pub recipient: String,
    /// It was taken.
    pub ok: bool,
    /// By whom, or why not.
    pub detail: String,
}

/// Sends a test notice to every recipient, one after the other.
pub async fn trial(settings: &AlarmSettings, mailer: Option<&Mailer>, who: &Who) -> Vec<Tried> {
    let now = now_ms();
    let notice = Notice {
        event: Event::Test,
        kind: Kind::Reload,
        subject: who.host.clone(),
        detail: "Nothing is wrong: somebody ran `alarm test`, and alarms would arrive as this did.".into(),
        since_ms: now,
        at_ms: now,
    };
    let mut tried = Vec::new();
    for recipient in settings.recipients() {
        let id = data_encoding::HEXLOWER.encode(&random::<12>());
        let result =
            super::desk::carry(settings, mailer, who, &recipient, &id, super::Post::Notice(notice.clone())).await;
        let (ok, detail) = match result {
            Ok(taken) => (true, format!("taken by {taken}")),
            Err(error) => (false, error),
        };
        tried.push(Tried { recipient, ok, detail });
    }
    tried
}

/// A mail that a command sends by itself, now.
impl Mailer {
    /// As [`Mailer::send`], for a notice.
    pub(super) async fn notice(&self, to: &str, id: &str, notice: &Notice, who: &Who) -> Result<String, String> {
        self.send(to, id, &letter(notice, who)).await.map_err(|e| e.to_string())
    }
}
