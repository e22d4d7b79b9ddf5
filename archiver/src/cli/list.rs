//! `list`.

use super::{
    ListArgs,
    store::{ended, open_reader, printable, stdout_failed},
};
use crate::{
    config::ArchiverConfig,
    filing::{CATCH_ALL, Owners},
    store::StoreError,
};
use postkeep_shared::run::{Exit, Failure};
use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

/// Lists messages, oldest first: one line each, or one JSON document per line.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &ListArgs) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut any = false;
    let listed = store.list(&args.owner, args.folder.as_deref(), &mut |listed| {
        any = true;
        let line = if args.json {
            serde_json::to_string(&listed).unwrap_or_default()
        } else {
            let (date, from) = (listed.date.unwrap_or_default(), listed.from.unwrap_or_default());
            let subject = listed.subject.unwrap_or_default();
            let line =
                format!("{}  {date:<20}  {:<18}  {:>10}  {from}  {subject}", listed.id, listed.folder, listed.size);
            printable(&line)
        };
        writeln!(out, "{line}").map_err(StoreError::Output)
    });
    match listed {
        Ok(()) => out.flush().map_err(stdout_failed)?,
        Err(error) => return Err(error.into()),
    }
    match ended(&store) {
        Exit::Done if !any => known(config, &args.owner),
        ended => Ok(ended),
    }
}

/// An empty archive is fine, an owner that nobody has heard of is a slip. Archives of owners who left keep listing.
fn known(config: Option<&Path>, owner: &str) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    let owners = Owners::load(&config.owners_file)?;
    if owner == CATCH_ALL || owners.all().iter().any(|o| o.name == owner) {
        return Ok(Exit::Done);
    }
    Err(Failure::usage(format!("there is no owner `{owner}`; see `postkeep-archiver owner list`")))
}
