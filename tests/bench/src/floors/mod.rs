//! Floors: SMTP servers that do only what a line of the table names. What a gateway costs is told against them.
//!
//! They run on the same runtime as the gateway and as a process of their own (`postkeep-bench floor KIND FOLDER`), and
//! are no servers for anybody: no limits, no deadlines, every recipient is welcome.

mod server;
mod store;

pub(crate) use server::serve;

use std::{fmt, str::FromStr};

/// What a floor does with a message before its 250.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    None,
    /// ChaCha20-Poly1305 in blocks of 64 KiB, in memory.
    Crypt,
    /// Write, fsync, rename, fsync of the directory.
    File,
    /// The same of a message that was encrypted.
    Sealed,
    /// Encrypted, appended to one file whose fdatasync is shared.
    Log,
}

const KINDS: [(Kind, &str); 5] =
    [(Kind::None, "none"), (Kind::Crypt, "crypt"), (Kind::File, "file"), (Kind::Sealed, "sealed"), (Kind::Log, "log")];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let kind = KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind);
        kind.ok_or_else(|| anyhow::anyhow!("`{text}` is no floor; there are none, crypt, file, sealed and log"))
    }
}
