//! Commands and their arguments (documented names: the README's command tables).

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

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Whose archive.
    #[arg(long, value_name = "NAME")]
    pub owner: String,
    /// Only this folder.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<String>,
    /// JSON, one message per line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The message, as `list` names it.
    pub id: String,
}

/// Arguments of `envelope`.
#[derive(Debug, Args)]
pub struct EnvelopeArgs {
    /// The message, as `list` names it.
    pub id: String,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The message, as `list` names it.
    pub id: String,
    /// An owner or an address: why is the message there, or why not?
    #[arg(value_name = "OWNER|ADDRESS")]
    pub whom: Option<String>,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Whose archive.
    #[arg(long, value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub owner: Option<String>,
    /// Every archive.
    #[arg(long)]
    pub all: bool,
    /// What to write.
    #[arg(long, value_enum, default_value_t = ExportFormat::Eml)]
    pub format: ExportFormat,
    /// A new or empty folder, or one of the same export that was interrupted.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Sign the manifest with the archiver's key.
    #[arg(long)]
    pub sign: bool,
    /// Put header fields before each message that name archive and folder as MailStore does.
    #[arg(long)]
    pub mailstore_headers: bool,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to; best on another machine's disk.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Remove what the archive has no more (packs that were compacted, stores that were detached).
    #[arg(long)]
    pub prune: bool,
    /// Read every file of the copy back too, and copy those anew that have decayed.
    #[arg(long)]
    pub check: bool,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `restore-drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// The copy: what `backup` made, or a copy of the data folder.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// How many messages.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub sample: u64,
    /// The draw of an earlier drill again.
    #[arg(long, value_name = "HEX")]
    pub seed: Option<String>,
    /// Open the copy with its recovery passphrase, read from standard input, instead of the unlock key.
    #[arg(long)]
    pub passphrase_stdin: bool,
    /// Write the signed result to this new file too.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// `--format` of `export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One file per message, exact octets.
    Eml,
    /// Files of many messages, mboxrd; they can be taken apart again to the octet.
    Mbox,
}

/// `--sample`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// Messages.
    Count(u64),
    /// Per cent of all messages.
    Percent(f64),
}

fn sample(text: &str) -> Result<Sample, String> {
    let wrong = || format!("`{text}` is neither a number of messages nor per cent; write for example 100 or 2.5%");
    match text.strip_suffix('%') {
        None => text.parse().ok().filter(|count| *count > 0).map(Sample::Count).ok_or_else(wrong),
        Some(percent) => {
            let percent = percent.trim().parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
            percent.map(Sample::Percent).ok_or_else(wrong)
        }
    }
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// From whose archive.
    #[arg(long, value_name = "NAME")]
    pub owner: String,
    /// The message, as `list` names it; may be given more than once.
    #[arg(long = "id", value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Only from this folder [default: every folder of the owner it is in].
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<String>,
    /// Why. Kept for ever, with the name of the user who runs this.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// JSON, one message per line.
    #[arg(long)]
    pub json: bool,
}

/// Commands of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// A new, empty store. It opens with the same recovery passphrase as the others.
    Create {
        /// Its name: letters, digits, `-`, `_` and `.`.
        name: String,
        /// A passphrase of its own, shown once: for a store that is to be handed over some day.
        #[arg(long)]
        own_passphrase: bool,
    },
    /// Take in the store in a folder: the folder is moved to the others.
    ///
    /// A store of another archive needs its recovery passphrase (one line on standard input) once; from then on this
    /// archive's unlock key opens it too.
    Attach {
        /// The store's folder; its name is the store's.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Read its passphrase from standard input.
        #[arg(long)]
        passphrase_stdin: bool,
    },
    /// Take a store out of the archive: its folder is moved to `detached`, whole.
    Detach {
        /// The store.
        name: String,
    },
    /// Another name for a store.
    Rename {
        /// The store.
        old: String,
        /// Its new name.
        new: String,
    },
    /// What may be done with a store.
    SetState {
        /// The store.
        name: String,
        /// What.
        #[arg(value_enum)]
        state: StateArg,
    },
    /// Move everything of a store into another. Interrupted anywhere, said again it goes on.
    ///
    /// Each report is written there, read back and compared before it is taken out here. Exit 1 when one had to stay.
    Merge {
        /// The store that is emptied.
        from: String,
        /// The store that takes all of it.
        into: String,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// Move some reports of a store into another, as `merge` does.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Transfer {
        /// Those in this owner's archive; what others have of the same reports goes along.
        #[arg(long, value_name = "NAME", group = "which")]
        owner: Option<String>,
        /// Those collected before this day (UTC).
        #[arg(long, value_name = "YYYY-MM-DD", group = "which")]
        before: Option<String>,
        /// The store that they are in.
        from: String,
        /// The store that takes them.
        into: String,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// Every store: state, messages, octets, problems. Exit 1 when one has a problem.
    List {
        /// JSON, one store per line.
        #[arg(long)]
        json: bool,
    },
    /// Read everything back and compare it with what was promised.
    Verify {
        /// Only the structure: headers, tables, footers, lengths, the chain of records, catalog against packs.
        #[arg(long)]
        quick: bool,
        /// As --quick, and random messages are rebuilt and compared: a number of them, or per cent (`5%`).
        #[arg(long, value_name = "N|P%", conflicts_with = "quick", value_parser = sample)]
        sample: Option<Sample>,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the store holds and how much space it takes.
    Stats {
        /// Also per owner.
        #[arg(long)]
        owners: bool,
        /// JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a new unlock key with the recovery passphrase, where the old key file is lost.
    ///
    /// Asks for the passphrase (one line on standard input), unless the escrow identity is given; refuses while there
    /// is a key file.
    Unlock(UnlockArgs),
    /// Give the store new keys to open it with: a new recovery passphrase, a new unlock key, another escrow.
    ///
    /// Without options: a new passphrase (shown once) and a new unlock key. What opened the store before opens it no
    /// longer, but still opens older copies of store.toml, which hold the same store key: see `rotate`.
    Rekey(RekeyArgs),
    /// Begin a new key epoch: new packs and record files get a new random key; older ones stay readable.
    ///
    /// Asks for the recovery passphrase (one line on standard input). The catalog is built anew.
    Rotate(RotateArgs),
    /// Make record files again where they are damaged or gone, from what is left of them and their copies in the packs.
    ///
    /// Exit 1 when records are lost. The files of before go to `damaged` in the store.
    RebuildRecords {
        /// JSON, one store per line.
        #[arg(long)]
        json: bool,
    },
    /// Save what is whole of a damaged store, and say exactly what is not.
    ///
    /// Exit 1 when something is lost. Damaged files go to `damaged` in the store.
    Repair {
        /// JSON, one store per line.
        #[arg(long)]
        json: bool,
    },
    /// Give back the space of what nobody needs any more (after `delete`).
    Compact {
        /// Only packs of which at least so many per cent are not needed.
        #[arg(long, value_name = "PERCENT", default_value_t = 10)]
        least: u8,
        /// Also seal anew what was sealed with the key of an earlier epoch.
        #[arg(long)]
        old_epochs: bool,
        /// JSON, one store per line.
        #[arg(long)]
        json: bool,
    },
    /// Make the catalog again from packs and records.
    RebuildCatalog {
        /// JSON.
        #[arg(long)]
        json: bool,
    },
}

/// States of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Takes the new mail; the one that did becomes normal.
    Current,
    /// Read, and takes what becomes of its reports later.
    Normal,
    /// Read only.
    WriteProtected,
    /// Not opened.
    Disabled,
}

/// Arguments of `store unlock`.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Open the store with this age identity file instead of the passphrase.
    #[arg(long, value_name = "FILE")]
    pub escrow_identity: Option<PathBuf>,
}

/// Arguments of `store rekey`.
#[derive(Debug, Args)]
pub struct RekeyArgs {
    /// A new recovery passphrase, made and shown once.
    #[arg(long)]
    pub passphrase: bool,
    /// A new recovery passphrase, given as one line on standard input (at least 12 characters).
    #[arg(long, conflicts_with = "passphrase")]
    pub passphrase_stdin: bool,
    /// A new unlock key in place of the old one.
    #[arg(long)]
    pub unlock_key: bool,
    /// The age recipient of the escrow from now on.
    #[arg(long, value_name = "age1…")]
    pub escrow: Option<String>,
    /// No escrow from now on.
    #[arg(long, conflicts_with = "escrow")]
    pub no_escrow: bool,
    /// Open the store with this age identity file instead of the unlock key.
    #[arg(long, value_name = "FILE")]
    pub escrow_identity: Option<PathBuf>,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `store rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Make a new recovery passphrase and show it once, instead of asking for the present one.
    #[arg(long)]
    pub new_passphrase: bool,
    /// JSON.
    #[arg(long)]
    pub json: bool,
}

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
    Release {
        /// The reports, as `list` names them.
        #[arg(value_name = "ID", conflicts_with_all = ["all", "source"])]
        ids: Vec<String>,
        /// Everything in quarantine.
        #[arg(long)]
        all: bool,
        /// With --all: only from this source.
        #[arg(long, value_name = "NAME", requires = "all")]
        source: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// JSON, one report per line.
        #[arg(long)]
        json: bool,
    },
    /// Mark reports as rejected; they are kept. The reason is kept.
    Reject {
        /// The reports, as `list` names them.
        #[arg(value_name = "ID", conflicts_with_all = ["all", "source"])]
        ids: Vec<String>,
        /// Everything in quarantine.
        #[arg(long)]
        all: bool,
        /// With --all: only from this source.
        #[arg(long, value_name = "NAME", requires = "all")]
        source: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// JSON, one report per line.
        #[arg(long)]
        json: bool,
    },
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
