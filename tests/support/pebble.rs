//! A real ACME server on loopback: Pebble, with a DNS that knows every name as 127.0.0.1.

use super::{ports::free_ports, program::run};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START: Duration = Duration::from_secs(30);

/// Whether the programs are there; under continuous integration they must be.
pub fn is_installed() -> Result<bool> {
    let found = ["pebble", "pebble-challtestsrv", "openssl"].iter().all(|name| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
    });
    ensure!(found || std::env::var_os("CI").is_none(), "pebble, pebble-challtestsrv or openssl is missing");
    if !found {
        println!("NOT RUN: pebble, pebble-challtestsrv or openssl is missing");
    }
    Ok(found)
}

/// What it demands.
pub struct Demands {
    /// Seconds that its certificates live.
    pub validity: u64,
    /// Where it knocks for TLS-ALPN-01.
    pub tls_port: u16,
    /// Where it knocks for HTTP-01.
    pub http_port: u16,
    /// Identifier and key (base64url) of an external account, if it wants one.
    pub binding: Option<(&'static str, &'static str)>,
}

/// Both programs; ended with the value.
pub struct Pebble {
    folder: PathBuf,
    port: u16,
    management: u16,
    log: PathBuf,
    programs: Vec<Child>,
}

impl Pebble {
    /// Starts it in a folder and waits until it answers.
    pub fn start(folder: &Path, demands: &Demands) -> Result<Self> {
        let folder = folder.join("pebble");
        std::fs::create_dir(&folder)?;
        let [port, management, dns, dns_management] = free_ports()?;
        make_certificate(&folder)?;
        let (required, keys) = match demands.binding {
            Some((kid, key)) => (true, serde_json::json!({ kid: key })),
            None => (false, serde_json::json!({})),
        };
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.join("server.pem"),
            "privateKey": folder.join("server.key"),
            "httpPort": demands.http_port,
            "tlsPort": demands.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": required,
            "externalAccountMACKeys": keys,
            "certificateValidityPeriod": demands.validity,
        }});
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let log = folder.join("log");
        let output = || -> Result<Stdio> { Ok(std::fs::File::options().create(true).append(true).open(&log)?.into()) };
        let names = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{dns_management}")])
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn()?;
        let server = Command::new("pebble")
            .arg("-config")
            .arg(folder.join("config.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            // It refuses every fifth nonce, as it may (RFC 8555 §6.5), and looks at nothing it has seen before.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "20"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn()?;
        let pebble = Self { folder, port, management, log, programs: vec![names, server] };
        let deadline = Instant::now() + START;
        while [port, management, dns_management]
            .iter()
            .any(|p| std::net::TcpStream::connect(("127.0.0.1", *p)).is_err())
        {
            ensure!(Instant::now() < deadline, "pebble does not start:\n{}", pebble.log()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(pebble)
    }

    /// Its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What its own certificate is checked with.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What its certificates are checked with, as a file.
    pub fn root(&self) -> Result<PathBuf> {
        let file = self.folder.join("root.pem");
        let url = format!("https://localhost:{}/roots/0", self.management);
        let fetched =
            run(Command::new("curl").args(["-sf", "--cacert"]).arg(self.ca_file()).arg(url), b"")?.expect(0)?;
        std::fs::write(&file, fetched.out)?;
        Ok(file)
    }

    /// What it wrote.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("log of pebble")
    }

    /// Orders it has taken.
    pub fn orders(&self) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains("Added order")).count())
    }

    /// Accounts it has made.
    pub fn accounts(&self) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains("There are now")).filter(|l| l.contains("account")).count())
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// An authority and a certificate for `localhost` by it.
fn make_certificate(folder: &Path) -> Result<()> {
    let openssl = |arguments: &[&str]| -> Result<()> {
        let output = run(Command::new("openssl").current_dir(folder).args(arguments), b"")?;
        if output.code != 0 {
            bail!("openssl {arguments:?}: {}", output.err);
        }
        Ok(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority =
        ["req", "-x509", "-days", "2", "-subj", "/CN=directory authority", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&authority[..], &key[..]].concat())?;
    openssl(
        &[&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"][..], &key[..]].concat(),
    )?;
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n")?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ])
}
