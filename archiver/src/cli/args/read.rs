//! Arguments of commands that show, copy and remove what is in the archive.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

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

pub(super) fn sample(text: &str) -> Result<Sample, String> {
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
