//! A Postfix of our own: its own folders, loopback only. What it does with mail says whoever starts it.

use super::{Smtp, run};
use anyhow::{Context as _, Result};
use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const MASTER_CF: &str = "
ADDRESS inet n - n - - smtpd
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
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// A Postfix; stops when dropped.
pub struct MailServer {
    master: Child,
    /// Where it listens.
    pub address: (Ipv4Addr, u16),
    /// Its folder.
    pub folder: PathBuf,
}

/// Whether one can be started; says so where not, and fails under CI.
pub fn has_postfix(what: &str) -> bool {
    let is_root = run(Command::new("id").arg("-u"), b"").is_ok_and(|id| id.text().trim() == "0");
    let may = is_root && Path::new("/usr/lib/postfix/sbin/master").exists();
    if !may {
        assert!(std::env::var_os("CI").is_none(), "{what} needs Postfix, started by root");
        eprintln!("NOT RUN: {what} needs Postfix, started by root");
    }
    may
}

impl MailServer {
    /// Starts one in `folder`, which is made; `settings` go into its main.cf.
    pub fn start(folder: &Path, address: (Ipv4Addr, u16), settings: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Its daemons run as another user.
        for folder in folder.ancestors().take(2) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        let config = folder.join("etc");
        let (queue, data, log) = (folder.join("queue"), folder.join("data"), folder.join("maillog"));
        for made in [&config, &queue, &data] {
            std::fs::create_dir_all(made)?;
        }
        run(Command::new("chown").arg("postfix").arg(&data), b"")?.expect(0)?;
        let main = format!(
            "compatibility_level = 3.6\nmail_owner = postfix\nsetgid_group = postdrop\n\
             queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = {}\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmydestination =\nalias_maps =\nalias_database =\n\
             mynetworks = 127.0.0.0/8\nlocal_header_rewrite_clients =\nsmtp_dns_support_level = disabled\n\
             minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\n{settings}\n",
            queue.display(),
            data.display(),
            log.display(),
            folder.display(),
        );
        std::fs::write(config.join("main.cf"), main)?;
        std::fs::write(
            config.join("master.cf"),
            MASTER_CF.replace("ADDRESS", &format!("{}:{}", address.0, address.1)),
        )?;
        run(Command::new("postfix").arg("-c").arg(&config).arg("check"), b"")?.expect(0)?;
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let postfix = Self { master: command.spawn()?, address, folder: folder.to_owned() };
        drop(postfix.connect()?);
        Ok(postfix)
    }

    /// One that delivers everything for a domain to a Maildir in its folder.
    pub fn delivering(folder: &Path, address: (Ipv4Addr, u16), domain: &str) -> Result<Self> {
        let mail = folder.join("mail");
        std::fs::create_dir_all(&mail)?;
        run(Command::new("chown").arg("postfix").arg(&mail), b"")?.expect(0)?;
        let id =
            |flag: &str| run(Command::new("id").args([flag, "postfix"]), b"").map(|id| id.text().trim().to_owned());
        std::fs::write(folder.join("boxes"), format!("/@{}$/ all/\n", domain.replace('.', "\\.")))?;
        let settings = format!(
            "myhostname = mx.{domain}\nvirtual_mailbox_domains = {domain}\nvirtual_mailbox_base = {}\n\
             virtual_mailbox_maps = regexp:{}\nvirtual_minimum_uid = 1\nvirtual_uid_maps = static:{}\n\
             virtual_gid_maps = static:{}\nrelayhost =",
            mail.display(),
            folder.join("boxes").display(),
            id("-u")?,
            id("-g")?,
        );
        Self::start(folder, address, &settings)
    }

    /// The one of this folder, which was stopped before.
    pub fn start_again(folder: &Path, address: (Ipv4Addr, u16)) -> Result<Self> {
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(folder.join("etc")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let postfix = Self { master: command.spawn()?, address, folder: folder.to_owned() };
        drop(postfix.connect()?);
        Ok(postfix)
    }

    /// Every message that [`Self::delivering`] took, in the order of their coming.
    pub fn mails(&self) -> Result<Vec<String>> {
        mails(&self.folder)
    }

    /// A connection, once it answers.
    pub fn connect(&self) -> Result<Smtp> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Smtp::connect(self.address.into()) {
                Err(error) if Instant::now() > deadline => return Err(error.context("Postfix does not answer")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                connected => return connected,
            }
        }
    }

    /// Reads its configuration again after a change of one setting.
    pub fn set(&self, setting: &str) -> Result<()> {
        let config = self.folder.join("etc");
        run(Command::new("postconf").arg("-c").arg(&config).arg(setting), b"")?.expect(0)?;
        run(Command::new("postfix").arg("-c").arg(&config).arg("reload"), b"")?.expect(0)?;
        Ok(())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("maillog")).unwrap_or_default()
    }
}

/// What lies in the Maildir of a folder.
pub fn mails(folder: &Path) -> Result<Vec<String>> {
    let new = folder.join("mail/all/new");
    if !new.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&new)? {
        let path = entry?.path();
        found.push((
            std::fs::metadata(&path)?.modified()?,
            String::from_utf8_lossy(&std::fs::read(&path)?).into_owned(),
        ));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, mail)| mail).collect())
}

/// A header field of a mail, unfolded.
pub fn field(mail: &str, name: &str) -> Result<String> {
    let mut lines = mail.lines().take_while(|line| !line.is_empty());
    let prefix = format!("{name}: ");
    let mut value =
        lines.find_map(|line| line.strip_prefix(&prefix)).with_context(|| format!("no {name} in\n{mail}"))?.to_owned();
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push(' ');
        value.push_str(line.trim());
    }
    Ok(value)
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // SIGTERM: master ends its daemons, too.
        let _ = Command::new("kill").args(["-TERM", &self.master.id().to_string()]).status();
        let _ = self.master.wait();
    }
}
