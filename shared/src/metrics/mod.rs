//! What monitoring reads of a running program: figures in the Prometheus text format, and two questions about its health.
//!
//! [`Exposition`] writes the text (pure); [`serve`] answers `GET /metrics`, `/healthz` and `/readyz`, and nothing else.
//! What the figures are is the programs' affair ([`Told`]). No password, no key and no address of a person ever stands in
//! a figure or a reason; a mailbox, whose name is a secret, stands as its [`label`](crate::mail::MailboxId::label).

mod listener;
mod process;
mod text;

pub use listener::{bind, serve};
pub use process::process;
pub use text::{Exposition, Family, whole};

/// What a program tells about itself. The calls may block; each is given a few seconds.
pub trait Told: Send + Sync + 'static {
    /// Whether it is alive: restarting it is the remedy when it is not.
    fn alive(&self) -> Health;

    /// Whether it can do its work: restarting it would not help when it cannot.
    fn ready(&self) -> Health;

    /// The figures.
    fn figures(&self, out: &mut Exposition);
}

/// An answer, with every reason against.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Well.
    pub ok: bool,
    /// One sentence each; empty where all is well.
    pub reasons: Vec<String>,
}

impl Health {
    /// Well where there is no reason against.
    #[must_use]
    pub fn of(reasons: Vec<String>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}
