//! Commands and their arguments (documented names: the README's command tables).

mod held;
mod proof;
mod read;
mod store;

pub use held::{DeadLetterCommand, Decision, QuarantineCommand};
pub use proof::{CheckpointCommand, CheckpointVerifyArgs, ReconcileArgs, StatusArgs};
pub use read::{
    BackupArgs, DeleteArgs, DrillArgs, EnvelopeArgs, ExportArgs, ExportFormat, ListArgs, Sample, ShowArgs, WhyArgs,
};
pub use store::{RekeyArgs, RotateArgs, StateArg, StoreCommand, UnlockArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Collects journal reports, files them to their owners, keeps them and proves it.
#[derive(Debug, Parser)]
#[command(name = "postkeep-archiver", version, about, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 all well, 1 something needs attention, 2 wrong usage or configuration, 3 cannot do it, \
    4 wrong password or key, 5 refused because it would lose data."
)]
pub struct Cli {
    /// Configuration file [default: postkeep-archiver.toml here, then in /etc/postkeep].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration and an owners file, make an empty store, show its recovery passphrase once.
    Init(InitArgs),
    /// One round of every source: collect, store, read back, delete at the source.
    ///
    /// Exit 1 when a host could not be reached, refused the login or gave something odd, or when something was
    /// left, or kept and not filed; 4 when every host asked refused the password.
    Run(RunArgs),
    /// Run every source on its interval until SIGTERM.
    Serve(ServeArgs),
    /// What would be made of one message, without storing it.
    Inspect(InspectArgs),
    /// Take in messages from EML files, folders of them, mbox files and Maildirs.
    ///
    /// Killed anywhere and started again it goes on where it was; nothing is stored twice. Exit 1 when something was
    /// kept unfiled, left or skipped.
    Import(ImportArgs),
    /// Who has an archive.
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Where reports are collected from.
    #[command(subcommand)]
    Source(SourceCommand),
    /// The messages in an owner's archive.
    List(ListArgs),
    /// The exact octets of a message.
    Show(ShowArgs),
    /// The report envelopes a message came with.
    Envelope(EnvelopeArgs),
    /// Why a message is in an archive, or is not, in plain sentences.
    Why(WhyArgs),
    /// Write messages out as plain files with a manifest of SHA-256 sums.
    ///
    /// Interrupted anywhere, the same command goes on; nothing is overwritten. Exit 1 when a message could not be read.
    Export(ExportArgs),
    /// Copy the archive to a folder, also while it is at work; what is there already is not copied again.
    Backup(BackupArgs),
    /// Put messages drawn by lot together from a copy and compare them with records and receipts.
    ///
    /// Prints a signed result; exit 1 on any difference.
    RestoreDrill(DrillArgs),
    /// Take messages out of an owner's archive; who, when and why is recorded.
    ///
    /// What no archive needs any more is given up; `store compact` frees its space. Exit 5 on a write-protected store.
    Delete(DeleteArgs),
    /// The store itself.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Reports held until a person decides.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Reports that nobody could file: kept whole, and tried again.
    #[command(subcommand)]
    DeadLetter(DeadLetterCommand),
    /// Accepted, collected, filed, waiting, missing: do the numbers add up?
    ///
    /// Asks every host (nothing is deleted); exit 0 only when every number adds up.
    Reconcile(ReconcileArgs),
    /// Where all chains of records and ledgers stand, signed: made, shown, compared.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// What was last seen of each source, and what the store holds.
    Status(StatusArgs),
    /// Show alarms, or try whether they arrive.
    #[command(subcommand)]
    Alarm(super::alarm::AlarmCommand),
    /// Send the status mail now, or show it.
    StatusMail(super::alarm::StatusMailArgs),
    /// Marked messages that must come back through the journal.
    #[command(subcommand)]
    Probe(super::alarm::ProbeCommand),
    /// Print every mistake in the configuration at once.
    CheckConfig,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Run with the data on a network file system all the same.
    #[arg(long)]
    pub i_accept_data_loss: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder for state and store, written into the configuration [default: data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Also seal the store's keys to this age recipient, whose identity is kept offline: it opens the archive when
    /// unlock key and recovery passphrase are lost.
    #[arg(long, value_name = "age1…")]
    pub escrow: Option<String>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// One round, then end (the only way so far; `serve` repeats).
    #[arg(long, required = true)]
    pub once: bool,
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// One JSON document per source.
    #[arg(long)]
    pub json: bool,
    /// Run with the data on a network file system all the same.
    #[arg(long)]
    pub i_accept_data_loss: bool,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// EML and mbox files, folders, Maildirs, our own exports.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// They are messages of this source: read and filed by its settings.
    #[arg(long, value_name = "NAME", required_unless_present = "owner", conflicts_with = "owner")]
    pub source: Option<String>,
    /// They are messages of this owner.
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// They are an export of MailStore: its header fields name archive and folder.
    #[arg(long)]
    pub mailstore: bool,
    /// How mbox files quote lines that begin with `From ` [default: looked at].
    #[arg(long, value_enum, value_name = "DIALECT")]
    pub mbox: Option<MboxArg>,
    /// JSON.
    #[arg(long)]
    pub json: bool,
    /// Run with the data on a network file system all the same.
    #[arg(long)]
    pub i_accept_data_loss: bool,
}

/// `--mbox`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MboxArg {
    /// `>From ` once; what was quoted already cannot be told.
    Mboxo,
    /// One more `>`.
    Mboxrd,
    /// As mboxo, with Content-Length.
    Mboxcl,
    /// Not quoted, with Content-Length.
    Mboxcl2,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The message.
    pub file: PathBuf,
    /// How to read it.
    #[arg(long, value_enum, default_value_t = ProfileArg::Journal)]
    pub profile: ProfileArg,
    /// The sender is not known to be the mail server: a report is kept apart, not unwrapped.
    #[arg(long)]
    pub untrusted: bool,
    /// Envelope recipient that the gateway saw.
    #[arg(long, value_name = "ADDR")]
    pub rcpt: Vec<String>,
    /// An address that concerns no owner, such as the mailbox itself.
    #[arg(long, value_name = "ADDR")]
    pub ignore_address: Vec<String>,
    /// The mail server whose added headers count [default: the host of the topmost `Received … by`].
    #[arg(long, value_name = "NAME")]
    pub trusted_host: Option<String>,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// `--profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// Journal reports, unwrapped.
    Journal,
    /// One mailbox for many owners.
    Multidrop,
    /// One owner.
    Single,
}

/// Commands of `owner`.
#[derive(Debug, Subcommand)]
pub enum OwnerCommand {
    /// All owners with their addresses.
    List {
        /// JSON, one owner per line.
        #[arg(long)]
        json: bool,
    },
    /// A new owner, or more addresses for one.
    ///
    /// What nobody owned under these addresses is filed in the next round, or by `owner refile`.
    Add {
        /// The owner's name: the name of the archive.
        name: String,
        /// Addresses whose mail is filed to the owner; the first names folders.
        #[arg(required_unless_present_any = ["alias", "x500"], value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// A further address: a former name, a function.
        #[arg(long, value_name = "ADDRESS")]
        alias: Vec<String>,
        /// An X.500 name (legacyExchangeDN).
        #[arg(long, value_name = "NAME")]
        x500: Vec<String>,
        /// Full name, for people.
        #[arg(long, value_name = "TEXT")]
        full_name: Option<String>,
    },
    /// No more mail for an owner, or for some addresses of one. The archive stays as it is.
    Remove {
        /// The owner's name.
        name: String,
        /// Only these addresses.
        #[arg(value_name = "ADDRESS")]
        addresses: Vec<String>,
    },
    /// Owners from a table: the first line names the columns name, full_name, addresses, aliases, x500.
    ///
    /// Every mistake is told at once; with one, nothing is changed.
    Import {
        /// The table, UTF-8, cells separated by comma, semicolon or tab.
        #[arg(value_name = "FILE.csv")]
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Addresses that should have an owner and have none, with their messages. Exit 1 when there are any.
    Unowned {
        /// JSON, one document.
        #[arg(long)]
        json: bool,
    },
    /// File old messages to owners of addresses that nobody owned before. Looks at every report.
    Refile {
        /// JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Commands of `source`.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Show the certificate of a source's hosts, and trust its key after a typed yes.
    ///
    /// Exit 1 without a yes. Nothing is sent to the hosts but the beginning of a TLS handshake.
    Pin {
        /// The source's name.
        name: String,
    },
    /// Collect nothing from a source until `source resume`; a running service notices within seconds.
    ///
    /// A round under way ends as usual. `run --once --source NAME` asks it all the same.
    Pause {
        /// The source's name.
        name: String,
    },
    /// Collect from a paused source again.
    ///
    /// Exit 1 when the configuration pauses it too (`pause = true`).
    Resume {
        /// The source's name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
