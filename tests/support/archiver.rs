//! An archiver in a folder of its own.

use super::{Access, Gateway, Output, program::program, run};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The five owners the tests use.
pub const OWNERS: &[&str] = &["ann", "bob", "carl", "dora", "erik"];

/// An archiver.
pub struct Archiver {
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
}

impl Archiver {
    /// Makes an empty one below `folder` with `postkeep-archiver init`, with [`OWNERS`] and no source.
    pub fn create(folder: &Path) -> Result<Self> {
        let folder = folder.join("archiver");
        std::fs::create_dir(&folder)?;
        let config = folder.join("postkeep-archiver.toml");
        let archiver = Self { folder, config };
        archiver.run(&["init", "--data", "data"], b"")?.expect(0)?;
        archiver.configure("")?;
        let owners: String = OWNERS
            .iter()
            .map(|name| format!("[[owner]]\nname = \"{name}\"\naddresses = [\"{name}@aurora.example\"]\n\n"))
            .collect();
        std::fs::write(archiver.folder.join("owners.toml"), owners)?;
        Ok(archiver)
    }

    /// One that collects the mailbox from the running gateway.
    pub fn collecting(folder: &Path, gateway: &Gateway, access: &Access) -> Result<Self> {
        let archiver = Self::create(folder)?;
        archiver.collect_from(gateway, access)?;
        Ok(archiver)
    }

    /// Points it at the gateway's present ports.
    pub fn collect_from(&self, gateway: &Gateway, access: &Access) -> Result<()> {
        let password = self.folder.join("m365.password");
        std::fs::write(&password, format!("{}\n", access.password))?;
        restrict(&password)?;
        self.configure(&format!(
            "\n[[source]]\nname = \"m365\"\nkind = \"gateway\"\nprofile = \"journal\"\nhosts = [\"{}\"]\n\
             mailbox = \"{}\"\npassword_file = \"m365.password\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ninterval = \"1s\"\ndelete = \"at-once\"\nunknown = \"catchall\"\n",
            gateway.address("pop3s")?,
            access.id,
            gateway.pin()?
        ))
    }

    /// Writes the configuration with `more` at its end.
    pub fn configure(&self, more: &str) -> Result<()> {
        let text =
            format!("data_dir = \"data\"\nown_domains = [\"aurora.example\"]\nowners_file = \"owners.toml\"\n{more}");
        Ok(std::fs::write(&self.config, text)?)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.data().join("stores/main")
    }

    /// A command with its configuration.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("postkeep-archiver")?);
        command.current_dir(&self.folder).arg("--config").arg(&self.config).args(arguments);
        Ok(command)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        run(&mut self.command(arguments)?, input)
    }

    /// One round that must end well; what it says of its source.
    pub fn round(&self) -> Result<Value> {
        let sources = self.run(&["run", "--once", "--json"], b"")?.expect(0)?.json_stream()?;
        sources.into_iter().next().context("run --once --json says nothing")
    }

    /// What `list --json` says of one owner, in the order of the output.
    pub fn list(&self, owner: &str) -> Result<Vec<Value>> {
        self.run(&["list", "--owner", owner, "--json"], b"")?.expect(0)?.json_stream()
    }

    /// Owner and entry of everything in every archive, the catch-all included.
    pub fn list_all(&self) -> Result<Vec<(String, Value)>> {
        let mut all = Vec::new();
        for owner in OWNERS.iter().chain(&["@catchall"]) {
            all.extend(self.list(owner)?.into_iter().map(|entry| ((*owner).to_owned(), entry)));
        }
        Ok(all)
    }

    /// What `reconcile --json` says, with its exit code.
    pub fn reconcile(&self) -> Result<(i32, Vec<Value>)> {
        let output = self.run(&["reconcile", "--json"], b"")?;
        Ok((output.code, output.json_stream()?))
    }

    /// What `store stats --json` says.
    pub fn stats(&self) -> Result<Value> {
        self.run(&["store", "stats", "--json"], b"")?.expect(0)?.json()
    }

    /// What `store verify --json` says, with its exit code.
    pub fn verify(&self) -> Result<(i32, Value)> {
        let output = self.run(&["store", "verify", "--json"], b"")?;
        Ok((output.code, output.json()?))
    }
}

/// Readable by its owner alone, as a password file must be.
pub fn restrict(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?)
}
