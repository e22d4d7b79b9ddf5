//! A gateway in a folder of its own.

use super::{Output, Pop3, Server, Smtp, program::program, run, wire::pin_of};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const HOSTNAME: &str = "msgw.archive.example";

/// A mailbox as it was created.
#[derive(Debug, Clone)]
pub struct Access {
    pub id: String,
    pub address: String,
    pub password: String,
}

/// A gateway, running or not.
pub struct Gateway {
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    server: Option<Server>,
}

impl Gateway {
    /// Makes an empty one below `folder` with `postkeep-gateway init`.
    pub fn create(folder: &Path) -> Result<Self> {
        let folder = folder.join("gateway");
        std::fs::create_dir(&folder)?;
        let config = folder.join("postkeep-gateway.toml");
        let gateway = Self { folder, config, server: None };
        gateway.run(&["init", "--hostname", HOSTNAME, "--data", "data"], b"")?.expect(0)?;
        gateway.configure("")?;
        Ok(gateway)
    }

    /// One that is in `folder` already.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), config: folder.join("postkeep-gateway.toml"), server: None }
    }

    /// Writes the configuration: free loopback ports, and `more` at its end.
    pub fn configure(&self, more: &str) -> Result<()> {
        let text = format!(
            "hostname = \"{HOSTNAME}\"\ndomains = [\"{HOSTNAME}\"]\ndata_dir = \"data\"\n\n\
             [smtp]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n\n\
             [pop3]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = [\"127.0.0.1:0\"]\n\n\
             [tls]\nmode = \"self-signed\"\n{more}"
        );
        Ok(std::fs::write(&self.config, text)?)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Messages waiting in a mailbox, as files; its folder comes with the first.
    pub fn waiting(&self, id: &str) -> Result<Vec<PathBuf>> {
        let folder = self.data().join("spool").join(id).join("new");
        if folder.exists() { super::files_below(&folder) } else { Ok(Vec::new()) }
    }

    /// A command with its configuration.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("postkeep-gateway")?);
        command.current_dir(&self.folder).arg("--config").arg(&self.config).args(arguments);
        // The machine that tests run on may be short of room; that is no alarm of theirs.
        command.env("POSTKEEP_GATEWAY__ALARMS__DISK_FREE", "0").env("POSTKEEP_GATEWAY__ALARMS__INODES_FREE", "0");
        Ok(command)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        run(&mut self.command(arguments)?, input)
    }

    /// Creates a mailbox.
    pub fn create_mailbox(&self) -> Result<Access> {
        let json = self.run(&["mailbox", "create", "--description", "test", "--json"], b"")?.expect(0)?.json()?;
        let text =
            |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned).context("mailbox create --json");
        Ok(Access { id: text("id")?, address: text("address")?, password: text("password")? })
    }

    /// Starts the server.
    pub fn start(&mut self) -> Result<()> {
        let mut kinds = vec!["smtp", "pop3", "pop3s"];
        if std::fs::read_to_string(&self.config)?.split("[sync]").nth(1).is_some_and(|sync| sync.contains("listen")) {
            kinds.push("sync");
        }
        self.server = Some(Server::start(&mut self.command(&["serve"])?, &kinds)?);
        Ok(())
    }

    /// The running server.
    pub fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the gateway does not run")
    }

    /// Stops it in order and gives the exit code.
    pub fn stop(&mut self) -> Result<i32> {
        self.server.take().context("the gateway does not run")?.stop()
    }

    /// Its exit code, where it ends by itself within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Result<Option<i32>> {
        self.server.as_mut().context("the gateway does not run")?.ended(limit)
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the gateway does not run")?.kill()
    }

    /// A bound address.
    pub fn address(&self, kind: &str) -> Result<SocketAddr> {
        self.server()?.address(kind)
    }

    /// The pin of its self-signed certificate, which the first start made.
    pub fn pin(&self) -> Result<String> {
        pin_of(&self.data().join("tls/self-signed.pem"))
    }

    /// A sender's connection under TLS.
    pub fn smtp(&self) -> Result<Smtp> {
        Smtp::connect_tls(self.address("smtp")?, &self.pin()?)
    }

    /// A session on the implicit-TLS port, logged in.
    pub fn pop3(&self, access: &Access) -> Result<Pop3> {
        let mut pop3 = Pop3::connect_tls(self.address("pop3s")?, &self.pin()?)?;
        pop3.login(&access.id, &access.password)?;
        Ok(pop3)
    }

    /// What `mailbox show --json` says.
    pub fn show(&self, id: &str) -> Result<Value> {
        self.run(&["mailbox", "show", id, "--json"], b"")?.expect(0)?.json()
    }

    /// The ledger, entry by entry.
    pub fn ledger(&self, id: &str) -> Result<Vec<Value>> {
        self.run(&["ledger", "show", id, "--json"], b"")?.expect(0)?.json_stream()
    }
}
