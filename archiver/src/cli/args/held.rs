//! Commands of `quarantine` and `dead-letter`.

use clap::{Args, Subcommand};

/// Commands of `quarantine`.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// What waits for a decision.
    List {
        /// Also what was released or rejected.
        #[arg(long)]
        all: bool,
        /// Only from this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// JSON, one report per line.
        #[arg(long)]
        json: bool,
    },
    /// Everything known of one report: why it is held, what the gateway saw, what was decided.
    Show {
        /// The report, as `list` names it; four digits are enough.
        id: String,
        /// The exact octets of the report instead.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// File reports like fresh ones. The reason is kept.
    Release(Decision),
    /// Mark reports as rejected; they are kept. The reason is kept.
    Reject(Decision),
}

/// Arguments of `quarantine release` and `quarantine reject`.
#[derive(Debug, Args)]
pub struct Decision {
    /// The reports, as `list` names them.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "source"])]
    pub ids: Vec<String>,
    /// Everything in quarantine.
    #[arg(long)]
    pub all: bool,
    /// With --all: only from this source.
    #[arg(long, value_name = "NAME", requires = "all")]
    pub source: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// JSON, one report per line.
    #[arg(long)]
    pub json: bool,
}

/// Commands of `dead-letter`.
#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// All of them.
    List {
        /// Only from this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// JSON, one report per line.
        #[arg(long)]
        json: bool,
    },
    /// Everything known of one.
    Show {
        /// The report, as `list` names it; four digits are enough.
        id: String,
        /// The exact octets of the report instead.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try to file them: after an update, or with other owners.
    Retry {
        /// The reports, as `list` names them [default: all].
        #[arg(value_name = "ID", conflicts_with = "source")]
        ids: Vec<String>,
        /// Only from this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// JSON, one report per line.
        #[arg(long)]
        json: bool,
    },
}
