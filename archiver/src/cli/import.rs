//! `import`: messages from files.
//!
//! Started again after it was killed, it goes on and counts as if nothing had happened. Progress goes to standard error,
//! the final count to standard output. Exit 0 when every message is filed or was there already, 1 when something was kept
//! unfiled, left or skipped.

use super::{
    ImportArgs, MboxArg, check_standing, load_and_lock,
    progress::Bar,
    store::{printable, stdout_failed},
};
use crate::{
    archive::Archive,
    filing::Owners,
    import::{Counts, Import, Target, Tree, mbox},
    octets::Staging,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::json;
use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

/// Skipped files that get a line.
const MAX_SKIPPED: usize = 20;

/// Imports files.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &ImportArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock(config, &*disk)?;
    config.log.start();
    check_standing(&config, args.i_accept_data_loss)?;
    let owners = Owners::load(&config.owners_file)?;
    let target = match (&args.source, &args.owner) {
        (Some(name), _) => {
            let source = config.sources.iter().find(|source| source.name == *name);
            Target::Source(source.ok_or_else(|| {
                Failure::usage(format!("{}: no source is named `{name}`; check --source", config.file.display()))
            })?)
        }
        (None, Some(owner)) => Target::Owner(owner),
        (None, None) => return Err(Failure::usage("say whose messages these are: --source NAME or --owner NAME")),
    };
    let mut tree = Tree::default();
    for path in &args.paths {
        tree.add(path).map_err(|error| Failure::cannot(format!("cannot read {}: {error}", path.display())))?;
    }
    let mut store = Archive::open(&config, &disk)?;
    let staging = Staging::open(&config.staging_dir(), Arc::clone(&disk))?;
    let dialect = args.mbox.map(|dialect| match dialect {
        MboxArg::Mboxo => mbox::Dialect::Mboxo,
        MboxArg::Mboxrd => mbox::Dialect::Mboxrd,
        MboxArg::Mboxcl => mbox::Dialect::Mboxcl,
        MboxArg::Mboxcl2 => mbox::Dialect::Mboxcl2,
    });
    let mut import = Import::new(&mut store, &staging, &config, &owners, target, args.mailstore, dialect)?;
    let mut bar = Bar::new("import", "files", args.json);
    for (number, file) in tree.files.iter().enumerate() {
        import.file(file, &tree.exports)?;
        bar.at(number as u64 + 1, tree.files.len() as u64);
    }
    import.finish()?;
    drop(bar);
    let counts = import.counts;
    say(&counts, &tree, args.json)?;
    let well = !counts.need_attention() && tree.skipped.is_empty();
    Ok(if well { Exit::Done } else { Exit::Attention })
}

fn say(counts: &Counts, tree: &Tree, json: bool) -> Result<(), Failure> {
    for (path, why) in tree.skipped.iter().take(MAX_SKIPPED) {
        eprintln!("import: skipped {}: {why}", printable(&path.display().to_string()));
    }
    if let Some(more @ 1..) = tree.skipped.len().checked_sub(MAX_SKIPPED) {
        eprintln!("import: skipped {more} more");
    }
    let mut out = io::stdout();
    if json {
        let mut document = json!(counts);
        document["files"] = json!(tree.files.len());
        document["skipped"] = json!(tree.skipped.len());
        document["ok"] = json!(counts.add_up());
        return writeln!(out, "{document}").map_err(stdout_failed);
    }
    let line = format!(
        "read {} = filed {} + catch-all {} + duplicates {} + dead letters {} + quarantined {} + left {} + failed {}; {} of \
         them were here before; {} new appearances, {} octets in, {} stored, {} files, {} skipped",
        counts.read,
        counts.filed,
        counts.catchall,
        counts.duplicates,
        counts.dead_letters,
        counts.quarantined,
        counts.left,
        counts.failed,
        counts.before,
        counts.instances,
        counts.bytes_in,
        counts.bytes_stored,
        tree.files.len(),
        tree.skipped.len()
    );
    writeln!(out, "{line}").map_err(stdout_failed)?;
    let problems = counts.problems.iter().map(|problem| printable(problem));
    problems.into_iter().try_for_each(|problem| writeln!(out, "  {problem}")).map_err(stdout_failed)
}
