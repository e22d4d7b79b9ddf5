//! `init`: configuration, owners file, data folder with an empty store. Overwrites nothing.

use super::InitArgs;
use crate::{
    config::FILE_NAME,
    signing::ArchiverKey,
    store::{Store, UnlockKey, check_recipient},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk, create_dirs, write_new_file},
    run::{Exit, Failure},
};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What `init` writes; the part that describes a source is left as a comment.
const TEMPLATE: &str = include_str!("../../../deploy/archiver.toml");

const OWNERS: &str = "# Owners: whose archive exists, and under which addresses. `owner add` writes this file too.
#
# [[owner]]
# name = \"ann\"
# addresses = [\"ann@aurora.example\", \"a.example@aurora.example\"]
";

/// Makes a new archive and shows its recovery passphrase once.
///
/// # Errors
/// Exit 5 when anything of it is there already.
pub fn run(config: Option<&Path>, args: &InitArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let file = config.map_or_else(|| PathBuf::from(FILE_NAME), Path::to_owned);
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let data = args.data.clone().unwrap_or_else(|| folder.join("data"));
    let owners = folder.join("owners.toml");
    if let Some(escrow) = &args.escrow {
        check_recipient(escrow)?;
    }
    refuse_present(&*disk, &[&file, &owners, &data.join("unlock.key"), &data.join("stores")])?;
    create_dirs(&*disk, &data)?;
    let _lock = disk.lock(&data.join("lock"))?;
    let key = UnlockKey::create(&data.join("unlock.key"), &*disk)?;
    let passphrase = Password::generate();
    create_dirs(&*disk, &data.join("stores"))?;
    let (main, escrow) = (data.join("stores").join("main"), args.escrow.as_deref());
    Store::create_with_escrow(&main, "main", &passphrase, &key, escrow, Arc::clone(&disk))?;
    ArchiverKey::load_or_create(&data.join("archiver.key"), &*disk)?;
    write_new_file(&*disk, &owners, OWNERS.as_bytes())?;
    write_new_file(&*disk, &file, text(&as_written(&data, &folder)?).as_bytes())?;
    tell(&file, &owners, &data, &passphrase)?;
    Ok(Exit::Done)
}

fn refuse_present(disk: &dyn Disk, paths: &[&Path]) -> Result<(), Failure> {
    for path in paths {
        match disk.entry(path) {
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                return Err(Failure::refused(format!(
                    "{} is there already; nothing was changed. Choose another place with --config and --data",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

/// The data folder as the configuration names it: relative to the configuration where that is the same place.
fn as_written(data: &Path, folder: &Path) -> Result<String, Failure> {
    let short = match data.strip_prefix(folder) {
        Ok(short) => short.to_owned(),
        Err(_) => std::path::absolute(data).map_err(Failure::cannot)?,
    };
    short.to_str().map(str::to_owned).ok_or_else(|| Failure::usage("--data must be a path in UTF-8"))
}

fn text(data: &str) -> String {
    let data = toml::Value::String(data.to_owned()).to_string();
    let mut in_source = false;
    let lines = TEMPLATE.lines().map(|line| {
        in_source |= line.starts_with("[[source]]");
        match line {
            _ if line.starts_with("data_dir") => format!("data_dir = {data}"),
            _ if line.starts_with("own_domains") => "own_domains = []".to_owned(),
            _ if in_source && !line.is_empty() && !line.starts_with('#') => format!("# {line}"),
            _ => line.to_owned(),
        }
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

fn tell(file: &Path, owners: &Path, data: &Path, passphrase: &Password) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let written = (|| {
        writeln!(out, "configuration: {}", file.display())?;
        writeln!(out, "owners: {}", owners.display())?;
        writeln!(out, "data: {}", data.display())?;
        write!(out, "recovery passphrase: ")?;
        out.write_all(passphrase.expose())?;
        writeln!(out)?;
        writeln!(
            out,
            "Write the passphrase down and keep it apart from this machine. It is shown only now, and opens"
        )?;
        writeln!(out, "the archive when {} is lost.", data.join("unlock.key").display())?;
        writeln!(out, "Next: add a [[source]] to the configuration, owners with `owner add`, then `run --once`.")
    })();
    written.map_err(|e: std::io::Error| Failure::cannot(format!("cannot show the recovery passphrase: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ArchiverConfig;

    #[test]
    fn the_template_loads_as_it_is_and_as_init_writes_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, TEMPLATE).expect("writes");
        let config = ArchiverConfig::load(&file).expect("valid");
        assert_eq!(config.sources.len(), 1);
        std::fs::write(&file, text("/some/where \"else\"")).expect("writes");
        let config = ArchiverConfig::load(&file).expect("valid");
        assert!(config.sources.is_empty());
        assert_eq!(config.data_dir, Path::new("/some/where \"else\""));
    }

    #[test]
    fn every_setting_of_the_template_is_explained() {
        for key in [
            "data_dir",
            "own_domains",
            "owners_file",
            "sub_addressing",
            "level",
            "format",
            "name",
            "kind",
            "profile",
            "hosts",
            "mailbox",
            "password_file",
            "tls",
            "interval",
            "delete",
            "unknown",
            "folder",
        ] {
            let lines: Vec<&str> = TEMPLATE.lines().collect();
            let at =
                lines.iter().position(|l| l.starts_with(&format!("{key} =")) || l.starts_with(&format!("{key}  ")));
            let at = at.unwrap_or_else(|| panic!("{key} is not in the template"));
            assert!(lines[at - 1].starts_with('#') || lines[at].contains('#'), "{key} is not explained");
        }
    }
}
