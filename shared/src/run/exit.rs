//! How a command ends: a documented exit code, and one clear sentence where it failed.

use std::process::ExitCode;

/// The exit codes of both programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, all well.
    Done = 0,
    /// Done, but something needs attention: damage or a gap found, a message left, a source unreachable.
    Attention = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Cannot do it: I/O, network, permission.
    Cannot = 3,
    /// Wrong password or key.
    WrongKey = 4,
    /// Refused because it would lose data.
    Refused = 5,
}

/// A command that failed: what, where and what to do, in one sentence without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// For the person at the terminal.
    pub text: String,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Wrong usage or configuration.
    pub fn usage(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, text.to_string())
    }

    /// I/O, network or permission.
    pub fn cannot(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Cannot, text.to_string())
    }

    /// Wrong password or key.
    pub fn wrong_key(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::WrongKey, text.to_string())
    }

    /// Refused because it would lose data.
    pub fn refused(text: impl std::fmt::Display) -> Self {
        Self::new(Exit::Refused, text.to_string())
    }
}

impl From<crate::disk::DiskError> for Failure {
    fn from(error: crate::disk::DiskError) -> Self {
        Self::cannot(error)
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Ends `main`: prints the failure as `program: sentence` on standard error.
#[must_use]
pub fn finish(program: &str, result: Result<Exit, Failure>) -> ExitCode {
    let exit = result.unwrap_or_else(|failure| {
        eprintln!("{program}: {failure}");
        failure.exit
    });
    ExitCode::from(exit as u8)
}
