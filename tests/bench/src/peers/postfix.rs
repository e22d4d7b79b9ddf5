//! Postfix: into its queue (everything on HOLD), or through LMTP into Dovecot.

use super::{DOMAIN, certificate, users};
use crate::process::{Server, free_port, must};
use anyhow::Result;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) const PROGRAMS: &[&str] = &["postfix", "postconf"];

/// Services of Debian's master.cf that a report meets or Postfix cannot do without; none in a chroot.
const MASTER: &str = "\
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
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// What becomes of accepted messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// They stay in the queue.
    Hold,
    /// They are delivered to this port at once.
    Lmtp(u16),
}

/// A running Postfix.
pub(crate) struct Postfix {
    configuration: PathBuf,
    pub(crate) queue: PathBuf,
    pub(crate) server: Server,
    pub(crate) smtp: SocketAddr,
}

impl Postfix {
    pub(crate) fn start(folder: &Path, then: Then) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (configuration, queue, lib) = (folder.join("etc"), folder.join("queue"), folder.join("lib"));
        for made in [&configuration, &queue, &lib] {
            fs::create_dir_all(made)?;
        }
        must(Command::new("chown").arg("postfix").arg(&lib))?;
        certificate(&configuration)?;
        let map: String = users().iter().map(|user| format!("{user}@{DOMAIN} ok\n")).collect();
        fs::write(configuration.join("mailboxes"), map)?;
        let port = free_port()?;
        fs::write(configuration.join("master.cf"), format!("127.0.0.1:{port} inet n - n - - smtpd\n{MASTER}"))?;
        fs::write(configuration.join("main.cf"), main_cf(&configuration, &queue, &lib, then))?;
        let mut command = Command::new("postfix");
        command.arg("-c").arg(&configuration).arg("start-fg");
        let mut server = Server::start(&mut command, &folder.join("postfix.log"))?;
        let smtp = server.answers(port)?;
        Ok(Self { configuration, queue, server, smtp })
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        must(Command::new("postfix").arg("-c").arg(&self.configuration).arg("stop"))?;
        self.server.wait()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The workers end with their master, and the master hears only `postfix stop`.
        let mut stop = Command::new("postfix");
        let _ = stop.arg("-c").arg(&self.configuration).arg("stop").output();
    }
}

fn main_cf(configuration: &Path, queue: &Path, lib: &Path, then: Then) -> String {
    let (configuration, queue, lib) = (configuration.display(), queue.display(), lib.display());
    let (hold, port) = match then {
        Then::Hold => ("check_client_access static:HOLD, ", 9),
        Then::Lmtp(port) => ("", port),
    };
    format!(
        "compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {lib}\ncommand_directory = /usr/sbin\n\
         daemon_directory = /usr/lib/postfix/sbin\nshlib_directory = /usr/lib/postfix\nmeta_directory = /etc/postfix\n\
         mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = msgw.archive.example\nmydestination =\n\
         mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nbiff = no\n\
         message_size_limit = 335544320\nmailbox_size_limit = 0\nvirtual_mailbox_domains = {DOMAIN}\n\
         virtual_mailbox_maps = texthash:{configuration}/mailboxes\nvirtual_transport = lmtp:inet:127.0.0.1:{port}\n\
         smtpd_recipient_restrictions = {hold}reject_unlisted_recipient, reject_unauth_destination\n\
         smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {configuration}/key.pem, {configuration}/cert.pem\n\
         smtpd_client_connection_count_limit = 0\nin_flow_delay = 0\nmaillog_file = /dev/stdout\nalias_maps =\n\
         alias_database =\n"
    )
}
