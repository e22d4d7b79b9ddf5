//! Arguments of `reconcile`, `checkpoint` and `status`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Do not connect: use what was last seen.
    #[arg(long)]
    pub offline: bool,
    /// The numbers of each day (UTC), too.
    #[arg(long)]
    pub by_day: bool,
    /// JSON, one document per mailbox and node.
    #[arg(long)]
    pub json: bool,
}

/// Commands of `checkpoint`.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Make one now and write it into the folder of checkpoints.
    Create {
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// The checkpoints in the folder, the oldest first.
    List {
        /// JSON, one per line.
        #[arg(long)]
        json: bool,
    },
    /// The text of a checkpoint with its signature.
    Show {
        /// Its name or file.
        #[arg(value_name = "NAME|FILE")]
        name: String,
    },
    /// The public key that verifies checkpoints: give it to the auditor.
    Key,
    /// Prove that nothing between two checkpoints was rewritten. Exit 1 with a sentence for everything that does not fit.
    Verify(CheckpointVerifyArgs),
}

/// Arguments of `checkpoint verify`.
#[derive(Debug, Args)]
pub struct CheckpointVerifyArgs {
    /// The older one: its name or file.
    #[arg(value_name = "OLD")]
    pub old: String,
    /// The newer one.
    #[arg(value_name = "NEW")]
    pub new: String,
    /// Public key that must have signed both, or a file with it [default: that of this archive].
    #[arg(long, value_name = "KEY|FILE")]
    pub key: Option<String>,
    /// Folder of a store, or a copy of one (`store.toml` and `records/`); may be given more than once [default: the archive's].
    #[arg(long, value_name = "DIR")]
    pub store: Vec<PathBuf>,
    /// What opens it [default: the archive's `unlock.key`].
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub unlock_key: Option<PathBuf>,
    /// Ask for the recovery passphrase instead (one line on standard input).
    #[arg(long)]
    pub passphrase: bool,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// JSON.
    #[arg(long)]
    pub json: bool,
}
