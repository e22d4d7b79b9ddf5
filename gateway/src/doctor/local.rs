//! Checks of this machine: clock, disk, permissions, certificate, what recovery would find, ports, rules.

use super::{Doctor, Finding};
use crate::{
    config::CertificateSource,
    mailbox::Mailboxes,
    server::{Presence, can_bind},
    tls::{Alarms, clock::moment},
    verify::Verifier,
};
use postkeep_shared::{
    disk::{Disk, Standing, standing},
    run::now_ms,
};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// A clock before this release was written (2026-11-01) is wrong.
const WRITTEN: i64 = 1_793_491_200;
/// Longest wait for a port of ours.
const GREETING: Duration = Duration::from_secs(5);
/// Folders below the data directory that are looked through for exposed files.
const DEPTH: usize = 4;

impl Doctor<'_> {
    pub(super) fn machine(&self) -> Vec<Finding> {
        let mut findings = vec![self.clock(), self.disk_space(), self.file_system(), self.permissions()];
        findings.extend(self.certificate_state());
        findings.push(self.quarantine());
        if self.thorough {
            findings.push(self.messages());
        }
        findings
    }

    fn now() -> i64 {
        i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
    }

    fn clock(&self) -> Finding {
        let (now, remedy) = (Self::now(), "set the clock, and keep it right with chrony or systemd-timesyncd");
        let started = Presence::running(self.disk.as_ref(), &self.config.data_dir).map(|p| p.started_ms);
        if now < WRITTEN {
            return Finding::problem(
                "clock",
                format!("it shows {}, before this program was written", moment(now)),
                remedy,
            );
        }
        if started.is_some_and(|started| started > now_ms()) {
            return Finding::problem("clock", "it shows a time before the start of the running server", remedy);
        }
        Finding::ok("clock", moment(now))
    }

    fn disk_space(&self) -> Finding {
        let path = self.config.data_dir.display();
        let space = match self.disk.space(&self.config.data_dir) {
            Ok(space) => space,
            Err(error) => {
                return Finding::problem("disk", error.to_string(), "run `postkeep-gateway init` or mend the disk");
            }
        };
        let shown = format!("{} of {} octets free at {path}", space.free, space.total);
        if space.read_only {
            return Finding::problem(
                "disk",
                format!("{path} is mounted read-only"),
                "look at the kernel's log, then remount it",
            );
        }
        if space.total > 0 && space.free < space.total / 20 {
            return Finding::problem("disk", shown, "make room: below a twentieth new mail is put off with 452");
        }
        if space.total > 0 && space.free < space.total / 10 {
            return Finding::note("disk", shown, "make room: below a tenth the trash is given up early");
        }
        if space.free_inodes < 1000 {
            return Finding::problem(
                "disk",
                format!("{} inodes left at {path}", space.free_inodes),
                "remove small files",
            );
        }
        Finding::ok("disk", shown)
    }

    fn file_system(&self) -> Finding {
        let remedy = "move the data directory to a local ext4, XFS or Btrfs";
        match standing(&self.config.data_dir) {
            Ok(Standing::Fit) => Finding::ok("file-system", "keeps what it synced"),
            Ok(Standing::Doubtful(kind)) => {
                Finding::note("file-system", format!("{kind}: a crash may take mail"), remedy)
            }
            Ok(Standing::Unfit(kind)) => Finding::problem("file-system", format!("{kind}: no locks, no syncs"), remedy),
            Err(error) => Finding::unknown("file-system", error.to_string(), remedy),
        }
    }

    /// Everything in the data directory is made private, so all of it is looked at, and the directory itself. Only the
    /// index is the library's: it holds names and sizes, and the directory around it is closed.
    fn permissions(&self) -> Finding {
        let (mut seen, mut exposed) = (0, Vec::new());
        let data = &self.config.data_dir;
        if self.disk.entry(data).is_ok_and(|entry| entry.mode & 0o077 != 0) {
            exposed.push(data.display().to_string());
        }
        exposed_below(self.disk.as_ref(), data, DEPTH, &mut seen, &mut exposed);
        match exposed.first() {
            None => Finding::ok("permissions", format!("{seen} files and folders, none open to others")),
            Some(first) => Finding::problem(
                "permissions",
                format!("{} of {seen} are open to others, such as {first}", exposed.len()),
                "run chmod -R go= on the data directory",
            ),
        }
    }

    fn certificate_state(&self) -> Vec<Finding> {
        let check = "certificate";
        let acme = matches!(self.config.tls.source, CertificateSource::Acme(_));
        let Some((facts, source)) = &self.certificate else {
            return vec![Finding::note(check, "none yet", "the first start makes or asks for one")];
        };
        let now = Self::now();
        let shown = format!("{} by {}, until {}", facts.names.join(" "), facts.issuer, moment(facts.not_after));
        let mut findings = Vec::new();
        if facts.is_expired(now) {
            findings.push(Finding::problem(check, format!("{shown}: expired"), "renew it; it is served until then"));
        } else if now < facts.not_before {
            findings.push(Finding::problem(check, format!("{shown}: not valid yet"), "compare the clock"));
        } else if Alarms::default().due(facts, now).is_some() {
            findings.push(Finding::problem(check, shown, "renew it; `status` shows the last error"));
        } else {
            findings.push(Finding::ok(check, shown));
        }
        if acme && source != "acme" {
            let remedy = "see the last error in `status`; port 443 or 80 must be reachable under every name";
            findings.push(Finding::problem(
                check,
                "the authority has given none yet; the self-signed one is served",
                remedy,
            ));
        }
        if !facts.covers(std::slice::from_ref(&self.config.hostname)) {
            let text = format!("{} is not among its names", self.config.hostname);
            findings.push(Finding::problem(check, text, "get one with the host name, or correct `hostname`"));
        }
        findings
    }

    /// What start-up recovery could not explain.
    fn quarantine(&self) -> Finding {
        let folder = self.config.data_dir.join("quarantine");
        match self.disk.list(&folder) {
            Ok(entries) if !entries.is_empty() => {
                let text = format!("{} entries in {}", entries.len(), folder.display());
                Finding::problem(
                    "recovery",
                    text,
                    "a start found files that nothing explains; look at them, then remove them",
                )
            }
            Err(error) if !error.is_missing() => Finding::unknown("recovery", error.to_string(), "mend the disk"),
            _ => Finding::ok("recovery", "nothing in quarantine"),
        }
    }

    fn messages(&self) -> Finding {
        let remedy = "run `postkeep-gateway verify` for all of it; docs/operations.md says what to do";
        let all = match Mailboxes::existing(&self.config.data_dir, Arc::clone(&self.disk)) {
            Ok(all) => all,
            Err(error) => return Finding::problem("verify", error.to_string(), "run `postkeep-gateway init` first"),
        };
        match Verifier::new(&self.config.data_dir, Arc::clone(&self.disk), all).run(None) {
            Ok(outcome) if outcome.problems.is_empty() => {
                Finding::ok("verify", format!("{} waiting messages fit their ledger entries", outcome.messages))
            }
            Ok(outcome) => {
                let first = outcome.problems.first().map(|p| p.detail.clone()).unwrap_or_default();
                Finding::problem("verify", format!("{} problems, first: {first}", outcome.problems.len()), remedy)
            }
            Err(error) => Finding::problem("verify", error.to_string(), remedy),
        }
    }

    /// A running server must greet at every address; without one every address must be free to be bound.
    pub(super) async fn ports(&self) -> Vec<Finding> {
        let Some(running) = Presence::running(self.disk.as_ref(), &self.config.data_dir) else {
            let mut findings = vec![Finding::note("server", "it does not run", "start `postkeep-gateway serve`")];
            for (kind, address, bound) in can_bind(self.config) {
                findings.push(match bound {
                    Ok(()) => Finding::ok("port", format!("{kind} {address} can be bound")),
                    Err(failure) => Finding::problem("port", failure.text, "another program or a missing capability"),
                });
            }
            return findings;
        };
        let mut findings = vec![Finding::ok("server", format!("runs as process {}", running.pid))];
        for (kind, address) in &running.addresses {
            findings.push(match greeting(kind, *address).await {
                Ok(()) => Finding::ok("port", format!("{kind} {address} answers")),
                Err(what) => Finding::problem("port", format!("{kind} {address}: {what}"), "see the server's log"),
            });
        }
        findings
    }

    pub(super) fn rules(&self) -> Vec<Finding> {
        let sources = &self.config.sources;
        let mut findings: Vec<Finding> = Vec::new();
        if sources.all().all(|rules| rules.is_empty()) {
            let text = "none: the secret mailbox address is the only evidence, every report counts as trusted";
            findings.push(Finding::note("source-rules", text, "see docs/sources.md"));
        }
        findings.extend(sources.warnings.iter().map(|text| Finding::note("source-rules", text, "see docs/sources.md")));
        findings
    }
}

fn exposed_below(disk: &dyn Disk, folder: &Path, depth: usize, seen: &mut usize, exposed: &mut Vec<String>) {
    let Ok(entries) = disk.list(folder) else { return };
    for entry in entries.into_iter().filter(|entry| !(depth == DEPTH && entry.name == "index")) {
        *seen += 1;
        let path = folder.join(&entry.name);
        if entry.mode & 0o077 != 0 && (entry.is_file || entry.is_dir) {
            exposed.push(path.display().to_string());
        }
        if entry.is_dir && depth > 0 {
            exposed_below(disk, &path, depth - 1, seen, exposed);
        }
    }
}

/// Whether our server is there. Behind TLS a connection must do; the greeting would need a handshake.
async fn greeting(kind: &str, address: SocketAddr) -> Result<(), String> {
    let mut target = address;
    if target.ip().is_unspecified() {
        let v4 = target.is_ipv4();
        target.set_ip(if v4 { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let connected =
        timeout(GREETING, TcpStream::connect(target)).await.map_err(|_| "no connection in time".to_owned())?;
    let mut stream = connected.map_err(|e| e.to_string())?;
    let wanted: &[u8] = match kind {
        "smtp" => b"220 ",
        "pop3" => b"+OK",
        _ => return Ok(()),
    };
    let mut start = vec![0; wanted.len()];
    let read = timeout(GREETING, stream.read_exact(&mut start)).await.map_err(|_| "no greeting in time".to_owned())?;
    read.map_err(|e| e.to_string())?;
    if start == wanted { Ok(()) } else { Err(format!("greets with {:?}", String::from_utf8_lossy(&start))) }
}
