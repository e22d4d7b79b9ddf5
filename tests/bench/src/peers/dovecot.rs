//! Dovecot with mail-crypt: every user's private key is encrypted with the user's password, as a Postkeep mailbox's is.

use super::{PASSWORD, certificate, users};
use crate::{
    client::pop3::Account,
    process::{Server, free_port, must},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

pub(crate) const PROGRAMS: &[&str] = &[
    "dovecot",
    "doveadm",
    "/usr/lib/dovecot/lmtp",
    "/usr/lib/dovecot/pop3",
    "/usr/lib/dovecot/modules/lib10_mail_crypt_plugin.so",
];
/// Whose the mail is; Debian has it, and nothing of its own runs as it here.
const OWNER: &str = "nobody";

/// A running Dovecot.
pub(crate) struct Dovecot {
    mail: PathBuf,
    pub(crate) server: Server,
    pub(crate) lmtp: u16,
    pub(crate) pop3s: SocketAddr,
}

impl Dovecot {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mail = folder.join("mail");
        for made in ["mail", "run", "state"] {
            fs::create_dir(folder.join(made))?;
        }
        must(Command::new("chown").arg(OWNER).arg(&mail))?;
        certificate(folder)?;
        let hash = must(Command::new("doveadm").args(["pw", "-s", "BLF-CRYPT", "-r", "5", "-p", PASSWORD]))?;
        let passwords: String = users().iter().map(|user| format!("{user}:{}\n", hash.trim())).collect();
        fs::write(folder.join("passwd"), passwords)?;
        let (lmtp, pop3s) = (free_port()?, free_port()?);
        let file = folder.join("dovecot.conf");
        fs::write(&file, configuration(folder, lmtp, pop3s))?;
        let mut server =
            Server::start(Command::new("dovecot").arg("-F").arg("-c").arg(&file), &folder.join("dovecot.out"))?;
        let pop3s = server.answers(pop3s)?;
        for user in users() {
            let mut generate = Command::new("doveadm");
            generate.arg("-c").arg(&file).args(["-o", &format!("plugin/mail_crypt_private_password={PASSWORD}")]);
            must(generate.args(["mailbox", "cryptokey", "generate", "-U", "-u", &user]))?;
        }
        Ok(Self { mail, server, lmtp, pop3s })
    }

    pub(crate) fn accounts() -> Vec<Account> {
        users().into_iter().map(|name| Account { name, password: PASSWORD.to_owned() }).collect()
    }

    /// Messages delivered.
    pub(crate) fn stored(&self) -> Result<usize> {
        let mut count = 0;
        for user in users() {
            for part in ["new", "cur"] {
                // The folder comes with the first message.
                count += fs::read_dir(self.mail.join(&user).join("Maildir").join(part)).map_or(0, Iterator::count);
            }
        }
        Ok(count)
    }

    /// Waits until so many were delivered.
    pub(crate) fn wait_for(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(600);
        while self.stored()? < count {
            ensure!(Instant::now() < deadline, "{} of {count} messages delivered", self.stored()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn mail(&self) -> &Path {
        &self.mail
    }

    /// Encrypted, as told: every file of a sample begins with what mail-crypt writes.
    pub(crate) fn check_encrypted(&self) -> Result<()> {
        let user = users().into_iter().next().context("a user")?;
        let new = fs::read_dir(self.mail.join(user).join("Maildir/new"))?.next().context("no message")??;
        ensure!(fs::read(new.path())?.starts_with(b"CRYPTED"), "{} is not encrypted", new.path().display());
        Ok(())
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.server.stop()
    }
}

fn configuration(folder: &Path, lmtp: u16, pop3s: u16) -> String {
    let folder = folder.display();
    format!(
        "base_dir = {folder}/run\nstate_dir = {folder}/state\ninstance_name = postkeep-bench\n\
         log_path = {folder}/dovecot.log\nprotocols = pop3 lmtp\nlisten = 127.0.0.1\nssl = yes\n\
         ssl_cert = <{folder}/cert.pem\nssl_key = <{folder}/key.pem\ndisable_plaintext_auth = yes\n\
         mail_uid = {OWNER}\nmail_gid = nogroup\nfirst_valid_uid = 100\nlast_valid_uid = 0\nfirst_valid_gid = 1\n\
         last_valid_gid = 0\nmail_home = {folder}/mail/%n\nmail_location = maildir:~/Maildir\nmail_plugins = mail_crypt\n\
         mail_attribute_dict = file:%h/dovecot-attributes\nauth_username_format = %n\n\
         plugin {{\n  mail_crypt_curve = prime256v1\n  mail_crypt_save_version = 2\n  \
         mail_crypt_require_encrypted_user_key = yes\n}}\n\
         passdb {{\n  driver = passwd-file\n  args = username_format=%n {folder}/passwd\n  \
         override_fields = userdb_mail_crypt_private_password=%w\n}}\n\
         userdb {{\n  driver = prefetch\n}}\n\
         userdb {{\n  driver = static\n  args = uid={OWNER} gid=nogroup home={folder}/mail/%n\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {lmtp}\n  }}\n}}\n\
         service pop3-login {{\n  service_count = 0\n  inet_listener pop3 {{\n    port = 0\n  }}\n  \
         inet_listener pop3s {{\n    address = 127.0.0.1\n    port = {pop3s}\n    ssl = yes\n  }}\n}}\n\
         protocol lmtp {{\n  mail_plugins = $mail_plugins\n}}\nprotocol pop3 {{\n  mail_plugins = $mail_plugins\n}}\n"
    )
}
