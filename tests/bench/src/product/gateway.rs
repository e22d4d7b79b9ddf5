//! A gateway with its mailboxes.

use super::program;
use crate::{
    client::pop3::Account,
    process::{Server, must},
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

const HOSTNAME: &str = "msgw.archive.example";

/// What is not as in a new installation, besides ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Connections at once, all of one client.
    pub(crate) connections: usize,
    pub(crate) mailboxes: usize,
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) folder: PathBuf,
    pub(crate) accounts: Vec<Account>,
    /// What reports are sent to.
    pub(crate) recipients: Vec<String>,
    server: Option<Server>,
    pub(crate) smtp: SocketAddr,
    pub(crate) pop3s: SocketAddr,
}

impl Gateway {
    /// Makes and starts one in `folder`.
    pub(crate) fn new(folder: &Path, settings: Settings) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut init = command(folder, &["init", "--hostname", HOSTNAME, "--data", "data"])?;
        must(&mut init)?;
        let many = settings.connections + 16;
        let text = format!(
            "hostname = \"{HOSTNAME}\"\ndomains = [\"{HOSTNAME}\"]\ndata_dir = \"data\"\n\n[smtp]\n\
             listen = [\"127.0.0.1:0\"]\nlisten_tls = []\nmax_connections = {many}\nmax_connections_per_ip = {many}\n\n\
             [pop3]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = [\"127.0.0.1:0\"]\n\n[tls]\nmode = \"self-signed\"\n"
        );
        fs::write(folder.join("postkeep-gateway.toml"), text)?;
        let (mut accounts, mut recipients) = (Vec::new(), Vec::new());
        for _ in 0..settings.mailboxes {
            let json = must(&mut command(folder, &["mailbox", "create", "--json"])?)?;
            let json: serde_json::Value = serde_json::from_str(&json)?;
            let text = |key: &str| json.get(key).and_then(|value| value.as_str()).map(str::to_owned).context("create");
            accounts.push(Account { name: text("id")?, password: text("password")? });
            recipients.push(text("address")?);
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (folder, server) = (folder.to_owned(), None);
        let mut gateway = Self { folder, accounts, recipients, server, smtp: nowhere, pop3s: nowhere };
        gateway.start()?;
        Ok(gateway)
    }

    /// Starts it again after [`Self::halt`].
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = self.folder.join("gateway.log");
        let mut server = Server::start(&mut command(&self.folder, &["serve"])?, &log)?;
        self.smtp = server.listening("smtp")?;
        self.pop3s = server.listening("pop3s")?;
        self.server = Some(server);
        Ok(())
    }

    pub(crate) fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the gateway does not run")
    }

    pub(crate) fn halt(&mut self) -> Result<()> {
        self.server.take().context("the gateway does not run")?.stop()
    }

    /// The sealed messages.
    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.join("data/spool")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("data/tls/self-signed.pem")
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("postkeep-gateway")?);
    command.current_dir(folder).args(["--config", "postkeep-gateway.toml"]).args(arguments);
    Ok(command)
}
