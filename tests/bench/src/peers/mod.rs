//! Peers, installed from Debian: Postfix, Dovecot, restic, borg; each with the settings `docs/benchmarks.md` names.

pub(crate) mod backup;
pub(crate) mod dovecot;
pub(crate) mod postfix;

use anyhow::Result;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

/// Mailboxes that reports are spread over, at every server alike.
pub(crate) const MAILBOXES: usize = 8;
pub(crate) const DOMAIN: &str = "archive.example";
pub(crate) const PASSWORD: &str = "secret";

/// Their names.
pub(crate) fn users() -> Vec<String> {
    (0..MAILBOXES).map(|number| format!("journal{number}")).collect()
}

/// Their addresses.
pub(crate) fn recipients() -> Vec<String> {
    users().iter().map(|user| format!("{user}@{DOMAIN}")).collect()
}

/// Writes a certificate and its key as `cert.pem` and `key.pem`.
fn certificate(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["msgw.archive.example".to_owned()])?;
    fs::write(folder.join("cert.pem"), made.cert.pem())?;
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600))?)
}

/// Why servers that need root or a package cannot run here.
pub(crate) fn missing(programs: &[&str], root: bool) -> Option<String> {
    let found = |program: &&&str| {
        let mut found = Command::new("sh");
        found.args(["-c", "command -v \"$0\" >/dev/null 2>&1 || test -x \"$0\"", program]);
        !found.status().is_ok_and(|status| status.success())
    };
    let absent: Vec<&str> = programs.iter().filter(found).copied().collect();
    if !absent.is_empty() {
        return Some(format!("{} not installed", absent.join(", ")));
    }
    let id = Command::new("id").arg("-u").output().ok();
    let is_root = id.is_some_and(|output| output.stdout.starts_with(b"0\n"));
    (root && !is_root).then(|| "must be started as root".to_owned())
}
