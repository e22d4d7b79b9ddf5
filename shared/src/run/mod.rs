//! What every long-running command needs: logs, a signal to stop, and a documented way to end.

mod clock;
mod dumps;
mod exit;
mod local;
pub mod manager;
mod patience;
mod printable;
mod prompt;
mod shutdown;
mod telemetry;

pub use clock::now_ms;
pub use dumps::forbid_core_dumps;
pub use exit::{Exit, Failure, finish};
pub use local::LocalTime;
pub use patience::try_for_a_moment;
pub use printable::printable;
pub use prompt::secret_lines;
pub use shutdown::{Shutdown, ShutdownTrigger, on_signals};
pub use telemetry::{LogFormat, init_logs};
