//! Commands of `store` and their arguments.

use super::read::{Sample, sample};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

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
    /// Give back the space of what nobody needs any more (after `delete`, `merge`, `transfer`).
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
