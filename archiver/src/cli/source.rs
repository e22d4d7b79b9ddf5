//! `source pin`: shows the key that a source's hosts have, and stores it after a typed yes. `source pause`, `source resume`.
//!
//! A pin is what a self-signed gateway is known by; there is no way to go on without one, or without an authority.

use super::SourceCommand;
use crate::{
    collect::{
        look::{Seen, look},
        pin::with_pins,
    },
    config::{ArchiverConfig, Source, Verify},
    serve::pause::{self, Paused},
    store::rfc3339_ms,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk, replace_file},
    mail::Digest,
    run::{Exit, Failure, now_ms},
};
use std::{
    io::{BufRead as _, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

/// A configuration file larger than this is not one.
const MAX_FILE: u64 = 1024 * 1024;

/// Runs the command.
///
/// # Errors
/// Exit 2 where there is no such source or the file cannot be edited, exit 3 where no host can be seen; exit 1 without a
/// yes.
pub fn run(config: Option<&Path>, command: &SourceCommand) -> Result<Exit, Failure> {
    let (SourceCommand::Pin { name } | SourceCommand::Pause { name } | SourceCommand::Resume { name }) = command;
    let config = ArchiverConfig::find(config)?;
    let source = config.sources.iter().find(|s| s.name == *name);
    let source =
        source.ok_or_else(|| Failure::usage(format!("there is no source `{name}` in {}", config.file.display())))?;
    match command {
        SourceCommand::Pin { .. } => pin(&config, source),
        SourceCommand::Pause { .. } => pause(&config, source),
        SourceCommand::Resume { .. } => resume(&config, source),
    }
}

fn pause(config: &ArchiverConfig, source: &Source) -> Result<Exit, Failure> {
    let paused = Paused { since: rfc3339_ms(now_ms()), by: super::held::who() };
    let new = pause::pause(&LocalDisk, &config.paused_dir(), &source.name, &paused)?;
    let name = &source.name;
    say(&if new {
        format!("{name} is paused; `source resume {name}` ends that")
    } else {
        format!("{name}: paused already")
    })?;
    Ok(Exit::Done)
}

fn resume(config: &ArchiverConfig, source: &Source) -> Result<Exit, Failure> {
    let was = pause::resume(&LocalDisk, &config.paused_dir(), &source.name)?;
    let name = &source.name;
    if source.rhythm.pause {
        let file = config.file.display();
        say(&format!("{name} stays paused: {file} says pause = true; remove that and send the service a SIGHUP"))?;
        return Ok(Exit::Attention);
    }
    say(&if was { format!("{name} is collected from again") } else { format!("{name}: not paused") })?;
    Ok(Exit::Done)
}

fn pin(config: &ArchiverConfig, source: &Source) -> Result<Exit, Failure> {
    let name = &source.name;
    let pins = seen(source)?;
    let old = match &source.tls {
        Verify::Pin(pins) => pins.as_slice(),
        _ => &[],
    };
    if pins.iter().all(|pin| old.contains(pin)) && !old.is_empty() {
        say("The pin that is stored fits; nothing to do.")?;
        return Ok(Exit::Done);
    }
    for pin in old.iter().filter(|pin| !pins.contains(pin)) {
        say(&format!("CHANGED: {pin} was pinned, and no host has that key now."))?;
    }
    if !old.is_empty() {
        say(
            "Somebody in between looks exactly like this. Compare with `postkeep-gateway status` on the gateway itself.",
        )?;
    } else {
        say("Compare the public key with `postkeep-gateway status` on the gateway itself.")?;
    }
    if !agreed()? {
        say("Not stored.")?;
        return Ok(Exit::Attention);
    }
    store(&config.file, name, &pins)?;
    say(&format!("Stored in {}.", config.file.display()))?;
    Ok(Exit::Done)
}

/// Shows what every host has; the keys, each once.
fn seen(source: &Source) -> Result<Vec<Digest>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start: {e}")))?;
    let mut pins = Vec::new();
    for host in &source.hosts {
        let seen = runtime.block_on(look(host)).map_err(|e| Failure::cannot(format!("{host}: {e}")))?;
        let Seen { subject, names, issuer, expires, expired, public_key } = seen;
        say(&format!("{host}"))?;
        say(&format!("  subject            {subject}"))?;
        say(&format!("  names              {}", names.join(", ")))?;
        say(&format!("  issuer             {issuer}"))?;
        say(&format!("  ends               {expires}{}", if expired { " (EXPIRED)" } else { "" }))?;
        say(&format!("  public key SHA-256 {public_key}"))?;
        if !pins.contains(&public_key) {
            pins.push(public_key);
        }
    }
    Ok(pins)
}

/// Only the whole word counts.
fn agreed() -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    let asked = write!(out, "Type yes to trust this key from now on: ").and_then(|()| out.flush());
    asked.map_err(Failure::cannot)?;
    let mut line = String::new();
    let read = std::io::stdin().lock().take(100).read_line(&mut line);
    read.map_err(|e| Failure::cannot(format!("cannot read the answer from standard input: {e}")))?;
    say("")?;
    Ok(line.trim() == "yes")
}

fn store(file: &Path, name: &str, pins: &[Digest]) -> Result<(), Failure> {
    let disk = LocalDisk;
    // A link stays a link: its target is what is replaced.
    let file = std::fs::canonicalize(file).map_err(|e| Failure::cannot(format!("{}: {e}", file.display())))?;
    let before = std::fs::metadata(&file).map_err(|e| Failure::cannot(format!("{}: {e}", file.display())))?;
    let text = String::from_utf8(disk.read(&file, MAX_FILE)?);
    let text = text.map_err(|_| Failure::usage(format!("{}: not UTF-8", file.display())))?;
    let (mark, text) = text.strip_prefix('\u{feff}').map_or(("", text.as_str()), |rest| ("\u{feff}", rest));
    let edited = with_pins(text, name, pins).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    replace_file(&disk, &file, format!("{mark}{edited}").as_bytes())?;
    // The new file is private to whoever ran this; the service must be able to read it as before.
    let kept = chown(&file, Some(before.uid()), Some(before.gid()))
        .and_then(|()| std::fs::set_permissions(&file, before.permissions()));
    kept.map_err(|e| {
        Failure::cannot(format!("{} was stored, but not with its old owner and mode: {e}", file.display()))
    })
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::cannot)
}
