//! The command line: one file per subcommand, each with its arguments and its printing and nothing else.
//!
//! Every command gets the file named by `--config` and ends with an [`Exit`] code or one sentence (interfaces.md).

pub mod alarm;
pub mod backup;
pub mod certificate;
pub mod check_config;
pub mod doctor;
pub mod init;
pub mod ledger;
pub mod mailbox;
pub mod open;
mod password;
pub mod serve;
pub mod spool;
pub mod status;
pub mod verify;

use crate::config::GatewayConfig;
use clap::{Parser, Subcommand};
use postkeep_shared::run::{Exit, Failure, finish, forbid_core_dumps};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Accepts journal reports over SMTP, seals them, and hands them out over POP3.
#[derive(Parser)]
#[command(name = "postkeep-gateway", version, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: postkeep-gateway.toml here, then in /etc/postkeep]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented configuration and an empty data directory
    Init(init::Args),
    /// Run the gateway
    Serve(serve::Args),
    /// Print every mistake in the configuration
    CheckConfig(check_config::Args),
    /// Create, list and change mailboxes
    #[command(subcommand)]
    Mailbox(mailbox::Command),
    /// Show the record of what was accepted and what left
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Take over another node's messages
    #[command(subcommand)]
    Spool(spool::Command),
    /// Write configuration, mailboxes and how far the ledgers went into one file
    Backup(backup::BackupArgs),
    /// Make a node from a backup
    Restore(backup::RestoreArgs),
    /// Recompute spool and ledger
    Verify(verify::Args),
    /// What is wrong and how to mend it; the DNS records to publish
    Doctor(doctor::Args),
    /// Mailboxes, certificate, disk and uptime
    Status(status::Args),
    /// Renew the certificate of an authority, or change its key
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Show alarms, or try whether they arrive
    #[command(subcommand)]
    Alarm(alarm::Command),
    /// Write one message to standard output, without the server
    Open(open::Args),
}

/// Where a command finds its configuration.
pub struct Context {
    named: Option<PathBuf>,
}

impl Context {
    /// The configuration file, whether it exists or not.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        postkeep_shared::config::find_file(self.named.as_deref(), crate::config::FILE_NAME)
    }

    /// The file named by `--config`, for a command that creates it.
    #[must_use]
    pub fn named_file(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`Exit::Usage`] with every mistake in it.
    pub fn config(&self) -> Result<GatewayConfig, Failure> {
        Ok(GatewayConfig::load(&self.config_file())?)
    }
}

/// The whole program: reads the command line, runs the command, gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    finish("postkeep-gateway", forbid_core_dumps().and_then(|()| run(cli)))
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let context = Context { named: cli.config };
    match cli.command {
        Command::Init(args) => init::run(&context, args),
        Command::Serve(args) => serve::run(&context, args),
        Command::CheckConfig(args) => check_config::run(&context, args),
        Command::Mailbox(command) => mailbox::run(&context, command),
        Command::Ledger(command) => ledger::run(&context, command),
        Command::Spool(command) => spool::run(&context, command),
        Command::Backup(args) => backup::backup(&context, &args),
        Command::Restore(args) => backup::restore(&context, &args),
        Command::Verify(args) => verify::run(&context, args),
        Command::Doctor(args) => doctor::run(&context, args),
        Command::Status(args) => status::run(&context, args),
        Command::Certificate(command) => certificate::run(&context, command),
        Command::Alarm(command) => alarm::run(&context, &command),
        Command::Open(args) => open::run(&context, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
