//! `[mail]`: how the program's own mail goes out.

use super::{Login, SendError};
use crate::{
    config::{Config, Section},
    disk::{Disk as _, LocalDisk},
    tls::Verify,
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A password file larger than this is not one.
const MAX_FILE: u64 = 4096;

/// `[mail]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSettings {
    /// Our own address.
    pub from: String,
    /// Who takes all of it; `None`: the mail exchangers of the recipient's domain.
    pub relay: Option<Relay>,
    /// What we call ourselves in EHLO.
    pub helo: String,
}

/// Who takes our mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where TLS begins.
    pub security: Security,
    /// How its certificate is checked.
    pub verify: Verify,
    /// User name and the file with the password.
    pub login: Option<(String, PathBuf)>,
}

/// Where TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// After STARTTLS, which must be offered.
    StartTls,
    /// With the first octet.
    Tls,
    /// Never: for a relay on the same machine. No password is sent.
    Clear,
    /// With STARTTLS where it is offered, whoever the certificate names (RFC 7435): for mail exchangers, which would get
    /// the mail in clear otherwise.
    Opportunistic,
}

impl MailSettings {
    /// Takes `[mail]`; `None` where there is none. `helo`: our name where the section gives none.
    #[must_use]
    pub fn take(config: &Config, root: &Section, helo: &str) -> Option<Self> {
        if !root.has("mail") {
            return None;
        }
        let section = root.section("mail");
        let from = section.required("from").and_then(|text| address(&section, "from", &text));
        let helo = section.text("helo").unwrap_or_else(|| helo.to_owned());
        if helo.is_empty() || !helo.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c)) {
            section.mistake("helo", "is not a host name; write for example archiver.aurora.example");
        }
        Some(Self { from: from.unwrap_or_default(), relay: Relay::take(config, &section, "relay"), helo })
    }
}

impl Relay {
    /// Takes a server from `key` and the settings beside it; `None` where the key is not there.
    #[must_use]
    pub fn take(config: &Config, section: &Section, key: &str) -> Option<Self> {
        let text = section.text(key);
        let security = match section.choice("security", &["starttls", "tls", "none"]).as_deref() {
            Some("tls") => Security::Tls,
            Some("none") => Security::Clear,
            _ => Security::StartTls,
        };
        let verify = Verify::take(config, &section.section("tls"));
        let (user, file) = (section.text("user"), section.text("password_file"));
        if section.has("password") {
            section.skip("password");
            section.mistake(
                "password",
                "passwords do not stand in the configuration; put it into a file and name that as `password_file`",
            );
        }
        let Some(text) = text else {
            for beside in ["security", "tls", "user", "password_file"].into_iter().filter(|beside| section.has(beside))
            {
                section.mistake(beside, format!("is there without `{key}`; add it or remove this"));
            }
            return None;
        };
        let login = match (user, file) {
            (Some(user), Some(file)) => Some((user, config.resolve(&file))),
            (None, None) => None,
            (Some(_), None) => {
                section.mistake("password_file", "missing; name the file with the password of `user`");
                None
            }
            (None, Some(_)) => {
                section.mistake("user", "missing; add the name that goes with the password");
                None
            }
        };
        if login.is_some() && security == Security::Clear {
            section.mistake("security", "is \"none\" although there is a password; write \"starttls\" or \"tls\"");
        }
        let default = if security == Security::Tls { 465 } else { 587 };
        let Some((host, port)) = host_and_port(&text, default) else {
            section.mistake(key, "is not a server; write name:port, for example \"smtp.aurora.example:587\"");
            return None;
        };
        Some(Self { host, port, security, verify, login })
    }
}

impl Relay {
    /// Reads the files it names: the password and the authority. Connects nowhere.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        login(self.login.as_ref()).map_err(|e| e.to_string())?;
        if self.security != Security::Clear {
            crate::tls::client_config(&self.verify)?;
        }
        Ok(())
    }
}

/// `name`, `name:port`, `[v6]:port`.
#[must_use]
pub fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            name.parse::<std::net::Ipv6Addr>().ok()?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > 253 || !(text.starts_with('[') || name.chars().all(plain)) {
        return None;
    }
    let port = port.map_or(Some(default), |port| port.parse().ok()).filter(|port| *port > 0)?;
    Some((name.to_owned(), port))
}

/// A mail address that can stand in a command: nothing that ends a line or the brackets.
#[must_use]
pub fn address(section: &Section, key: &str, text: &str) -> Option<String> {
    let good = text.len() <= 254
        && text.chars().all(|c| c.is_ascii_graphic() && !"<>\"(),:;\\".contains(c))
        && text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.len() > 1)
        && text.matches('@').count() == 1;
    if !good {
        let shown: String = text.chars().take(60).collect();
        section.mistake(
            key,
            format!("`{}` is not an address; write for example admin@aurora.example", shown.escape_debug()),
        );
    }
    good.then(|| text.to_owned())
}

/// The name of this machine, for EHLO and for the subjects of mails.
#[must_use]
pub fn our_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = text.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Reads the password of a relay. Read anew for each mail, so that a changed one counts at once and none stays in memory.
///
/// # Errors
/// [`SendError::Way`] with a sentence that names the file and never what is in it.
pub fn login(configured: Option<&(String, PathBuf)>) -> Result<Option<Login>, SendError> {
    let Some((user, file)) = configured else { return Ok(None) };
    let password = password(file).map_err(SendError::Way)?;
    Ok(Some(Login { user: user.clone(), password }))
}

fn password(file: &Path) -> Result<Zeroizing<String>, String> {
    let fail = |text: &str| format!("password file {}: {text}", file.display());
    let cannot = |e: crate::disk::DiskError| fail(&format!("cannot be read: {}", e.source));
    let entry = LocalDisk.entry(file).map_err(cannot)?;
    if entry.is_file && entry.mode & 0o077 != 0 {
        return Err(fail("others than its owner may read it; run `chmod 600` on it"));
    }
    let octets = Zeroizing::new(LocalDisk.read(file, MAX_FILE).map_err(cannot)?);
    let line = octets.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(fail("its first line is empty or not UTF-8; write the password into it")),
    }
}
