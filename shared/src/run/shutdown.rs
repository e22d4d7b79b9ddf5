//! One way to say "finish what you do and stop" to every task.

use tokio::sync::watch;

/// Tells a task that the program stops. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// The other end: fires once, for every clone.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger(std::sync::Arc<watch::Sender<bool>>);

impl ShutdownTrigger {
    /// A trigger and its first listener.
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(std::sync::Arc::new(sender)), Shutdown(receiver))
    }

    /// Stops everything that listens.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the program is stopping.
    #[must_use]
    pub fn is_fired(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the program stops (a trigger that is gone counts).
    pub async fn fired(&mut self) {
        let _ = self.0.wait_for(|fired| *fired).await;
    }
}

/// Fires the trigger at SIGTERM or SIGINT, for the life of the runtime.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals(trigger: ShutdownTrigger) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        trigger.fire();
    });
    Ok(())
}
