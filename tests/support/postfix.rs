//! A Postfix of our own: its own folders, loopback only, never the machine's configuration.

use super::{Smtp, run};
use anyhow::{Result, ensure};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const MASTER: &str = "/usr/lib/postfix/sbin/master";

const MASTER_CF: &str = "
127.0.0.1:PORT inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// Whether this machine has one and the test may start it; under CI it must.
pub fn has_postfix(what: &str) -> Result<bool> {
    let may = Path::new(MASTER).exists() && is_root();
    if !may {
        eprintln!("NOT RUN: {what} needs Postfix and root");
        ensure!(std::env::var_os("CI").is_none(), "under CI everything runs");
    }
    Ok(may)
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
}

/// A running Postfix.
pub struct Postfix {
    master: Child,
    port: u16,
    queue: PathBuf,
    log: PathBuf,
}

impl Postfix {
    /// Starts one below `folder`, with these lines of main.cf for where mail goes.
    pub fn start(folder: &Path, more: &str) -> Result<Self> {
        // Its daemons run as another user.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        let config = folder.join("postfix");
        let (queue, data, log) = (folder.join("queue"), folder.join("postfix-data"), folder.join("maillog"));
        for made in [&config, &queue, &data] {
            std::fs::create_dir(made)?;
        }
        run(Command::new("chown").arg("postfix").arg(&data), b"")?.expect(0)?;
        let port = super::ports::free_port(std::net::Ipv4Addr::LOCALHOST)?;
        let main = format!(
            "compatibility_level = 3.6\nmail_owner = postfix\nsetgid_group = postdrop\n\
             queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = {}\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = relay.sender.example\nmydestination =\n\
             alias_maps =\nalias_database =\nmynetworks = 127.0.0.0/8\nlocal_header_rewrite_clients =\n\
             smtp_tls_security_level = may\nsmtp_connect_timeout = 2s\nminimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\nqueue_run_delay = 1s\n\
             default_destination_concurrency_failed_cohort_limit = 1000\n{more}",
            queue.display(),
            data.display(),
            log.display(),
            folder.display()
        );
        std::fs::write(config.join("main.cf"), main)?;
        std::fs::write(config.join("master.cf"), MASTER_CF.replace("PORT", &port.to_string()))?;
        run(Command::new("postfix").arg("-c").arg(&config).arg("check"), b"")?.expect(0)?;
        let mut command = Command::new(MASTER);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { master: command.spawn()?, port, queue, log })
    }

    /// A connection, as soon as it answers.
    pub fn connect(&self) -> Result<Smtp> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Smtp::connect(([127, 0, 0, 1], self.port).into()) {
                Err(error) if Instant::now() > deadline => return Err(error.context("Postfix does not answer")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                connected => return connected,
            }
        }
    }

    /// Messages it still has.
    pub fn queued(&self) -> Result<usize> {
        let mut count = 0;
        for folder in ["maildrop", "incoming", "active", "deferred"] {
            // A file that goes away while they are counted was one of them.
            count += super::files_below(&self.queue.join(folder)).map_or(1, |files| files.len());
        }
        Ok(count)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// How many lines of its log hold this text.
    pub fn logged(&self, text: &str) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.master.id().to_string()]).status();
        let _ = self.master.wait();
    }
}
