//! `init`: writes a commented configuration and an empty data directory.

use super::Context;
use crate::{
    config::{FILE_NAME, GatewayConfig},
    node::Node,
};
use postkeep_shared::{
    disk::{self, Disk, LocalDisk},
    run::{Exit, Failure},
};
use std::path::{Path, PathBuf};

/// Every setting with its comment; the three that `init` knows are filled in.
const TEMPLATE: &str = include_str!("../../../deploy/gateway.toml");

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Args {
    /// Name of this gateway in SMTP, POP3 and certificates
    #[arg(long, value_name = "NAME")]
    pub hostname: String,
    /// Domain that mail is accepted for; may be repeated [default: the host name]
    #[arg(long = "domain", value_name = "NAME")]
    pub domains: Vec<String>,
    /// Data directory; a relative one is relative to the configuration file
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Refused`] when a configuration or data is there already.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let disk = LocalDisk;
    let file = context.named_file().unwrap_or(Path::new(FILE_NAME)).to_owned();
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let data = folder.join(&args.data);
    refuse_existing(&disk, &file, &data)?;
    disk::create_dirs(&disk, folder)?;
    disk::write_new_file(&disk, &file, config_text(&args)?.as_bytes())?;
    let config = match GatewayConfig::load(&file) {
        Ok(config) => config,
        Err(mistakes) => {
            // It came from this command line a moment ago; nothing is lost with it.
            disk.remove_file(&file)?;
            return Err(mistakes.into());
        }
    };
    Node::create(&data, &disk).map_err(Failure::cannot)?;
    println!("configuration  {}", file.display());
    println!("data directory {}", data.display());
    println!("Next: `postkeep-gateway mailbox create`, then `postkeep-gateway serve` (as {}).", config.hostname);
    Ok(Exit::Done)
}

fn refuse_existing(disk: &dyn Disk, file: &Path, data: &Path) -> Result<(), Failure> {
    if disk.entry(file).is_ok() {
        let text = format!("{} is there already and is not overwritten; name another with --config", file.display());
        return Err(Failure::refused(text));
    }
    match disk.list(data) {
        Ok(entries) if entries.is_empty() => Ok(()),
        Ok(_) => Err(Failure::refused(format!("{} is not empty; name another directory with --data", data.display()))),
        Err(e) if e.is_missing() => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The template with host name, domains and data directory filled in.
fn config_text(args: &Args) -> Result<String, Failure> {
    let data = args.data.to_str().ok_or_else(|| Failure::usage("--data must be UTF-8; choose another name"))?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let domains: Vec<String> = args.domains.iter().map(|d| quoted(d)).collect();
    let mut text = String::new();
    for line in TEMPLATE.split_inclusive('\n') {
        if line.starts_with("hostname = ") {
            text.push_str(&format!("hostname = {}\n", quoted(&args.hostname)));
        } else if line.starts_with("# domains = ") && !domains.is_empty() {
            text.push_str(&format!("domains = [{}]\n", domains.join(", ")));
        } else if line.starts_with("# data_dir = ") {
            text.push_str(&format!("data_dir = {}\n", quoted(data)));
        } else {
            text.push_str(line);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(hostname: &str, domains: &[&str], data: &str) -> Args {
        let domains = domains.iter().map(|d| (*d).to_owned()).collect();
        Args { hostname: hostname.into(), domains, data: data.into() }
    }

    fn load(args: &Args) -> Result<GatewayConfig, String> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join(FILE_NAME);
        std::fs::write(&file, config_text(args).expect("text")).expect("writes");
        GatewayConfig::load(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn the_written_configuration_loads() {
        let config = load(&args("gw.example", &[], "data")).expect("valid");
        assert_eq!((config.hostname.as_str(), config.domains.len()), ("gw.example", 1));
        let config = load(&args("gw.example", &["a.example", "b.example"], "/srv/\"odd\" name")).expect("valid");
        assert_eq!(config.domains, ["a.example", "b.example"]);
        assert_eq!(config.data_dir, Path::new("/srv/\"odd\" name"));
        assert!(load(&args("not a name\nx = 1", &[], "data")).is_err());
    }
}
