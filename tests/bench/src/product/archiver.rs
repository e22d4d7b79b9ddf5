//! An archiver that collects from a gateway or imports files.

use super::{Gateway, program};
use crate::{
    process::{Cost, must, run},
    profile::perf,
};
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// An archiver with its store.
pub(crate) struct Archiver {
    folder: PathBuf,
}

impl Archiver {
    /// Makes one in `folder`, with an owner for each address of `owners` and no source.
    pub(crate) fn new(folder: &Path, owners: &BTreeSet<String>) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let archiver = Self { folder: folder.to_owned() };
        must(&mut archiver.command(&["init", "--data", "data"])?)?;
        archiver.configure("")?;
        let owners = owners
            .iter()
            .enumerate()
            .map(|(number, address)| format!("[[owner]]\nname = \"person{number}\"\naddresses = [\"{address}\"]\n\n"));
        fs::write(folder.join("owners.toml"), owners.collect::<String>())?;
        Ok(archiver)
    }

    /// Makes it collect every mailbox of the running gateway.
    pub(crate) fn collect_from(&self, gateway: &Gateway) -> Result<()> {
        let pin = self.pin(&gateway.certificate())?;
        let mut sources = String::new();
        for (number, account) in gateway.accounts.iter().enumerate() {
            let file = format!("mailbox{number}.password");
            fs::write(self.folder.join(&file), format!("{}\n", account.password))?;
            fs::set_permissions(self.folder.join(&file), fs::Permissions::from_mode(0o600))?;
            sources += &format!(
                "\n[[source]]\nname = \"mailbox{number}\"\nkind = \"gateway\"\nprofile = \"journal\"\nhosts = [\"{}\"]\n\
                 mailbox = \"{}\"\npassword_file = \"{file}\"\ntls = {{ verify = \"pin\", pin_sha256 = [\"{pin}\"] }}\n\
                 delete = \"at-once\"\nunknown = \"catchall\"\n",
                gateway.pop3s, account.name
            );
        }
        self.configure(&sources)
    }

    /// One round of every source.
    pub(crate) fn round(&self) -> Result<Cost> {
        run(&self.command(&["run", "--once", "--json"])?, &self.folder)
    }

    /// The same while perf samples it; what that costs is in it.
    pub(crate) fn sampled_round(&self, data: &Path) -> Result<Cost> {
        run(&perf::around(&self.command(&["run", "--once", "--json"])?, data), &self.folder)
    }

    /// Runs a command to its end.
    pub(crate) fn must(&self, arguments: &[&str]) -> Result<String> {
        must(&mut self.command(arguments)?)
    }

    /// What stays for ever: packs and records.
    pub(crate) fn kept(&self) -> [PathBuf; 2] {
        [self.store().join("packs"), self.store().join("records")]
    }

    /// Everything in the store's folder, the catalog too.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("data/stores/main")
    }

    fn configure(&self, sources: &str) -> Result<()> {
        let domains = "own_domains = [\"aurora.example\", \"borealis.example\", \"cobalt.example\"]";
        let text = format!("data_dir = \"data\"\n{domains}\nowners_file = \"owners.toml\"\n{sources}");
        Ok(fs::write(self.folder.join("postkeep-archiver.toml"), text)?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("postkeep-archiver")?);
        command.current_dir(&self.folder).args(["--config", "postkeep-archiver.toml"]).args(arguments);
        Ok(command)
    }

    /// SHA-256 of the public key of a certificate in a file, by openssl.
    fn pin(&self, certificate: &Path) -> Result<String> {
        let script = "openssl x509 -in \"$1\" -pubkey -noout | openssl pkey -pubin -outform der | sha256sum";
        let said = must(Command::new("sh").args(["-c", script, "sh"]).arg(certificate))?;
        Ok(said.split(' ').next().context("sha256sum")?.to_owned())
    }
}
