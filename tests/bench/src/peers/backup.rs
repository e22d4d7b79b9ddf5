//! restic and borg, given the reports as files.

use crate::process::{Cost, must, run};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) const PROGRAMS: &[&str] = &["restic", "borg", "/usr/bin/time"];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Repository version 2: zstd at its default.
    Restic,
    /// repokey-blake2, zstd 3.
    Borg,
}

/// A new repository in `folder`.
pub(crate) struct Repository {
    tool: Tool,
    folder: PathBuf,
}

impl Repository {
    pub(crate) fn new(tool: Tool, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let repository = Self { tool, folder: folder.to_owned() };
        let mut init = repository.command();
        match tool {
            Tool::Restic => init.args(["init", "--repository-version", "2"]),
            Tool::Borg => init.args(["init", "--encryption", "repokey-blake2"]).arg(repository.path()),
        };
        must(&mut init)?;
        Ok(repository)
    }

    /// Takes a folder in.
    pub(crate) fn take(&self, files: &Path) -> Result<Cost> {
        let mut take = self.command();
        match self.tool {
            Tool::Restic => take.args(["backup", "--quiet"]).arg(files),
            Tool::Borg => {
                let archive = format!("{}::bench", self.path().display());
                take.args(["create", "--compression", "zstd,3"]).arg(archive).arg(files)
            }
        };
        run(&take, &self.folder)
    }

    /// Where it stands.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("repository")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(if self.tool == Tool::Restic { "restic" } else { "borg" });
        // Neither may find anything of the user who starts it, nor leave anything there.
        command.env("HOME", &self.folder).env("XDG_CACHE_HOME", self.folder.join("cache"));
        command.env("BORG_BASE_DIR", self.folder.join("borg")).env("BORG_PASSPHRASE", super::PASSWORD);
        command.env("RESTIC_PASSWORD", super::PASSWORD).env("RESTIC_REPOSITORY", self.path());
        command
    }
}
