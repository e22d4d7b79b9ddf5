//! What the ports speak, seen by openssl: TLS 1.2 and 1.3 only, forward secrecy only (docs/tls.md). An allow-list: what
//! is found must be exactly what the page says.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeSet, path::Path, process::Command};
use support::{
    Gateway, Output,
    authority::{Authority, Pair},
    folder, run,
};

const NAME: &str = "msgw.archive.example";
/// Everything this openssl can do, however weak.
const EVERYTHING: &str = "ALL:COMPLEMENTOFALL";

struct Port<'a> {
    gateway: &'a Gateway,
    kind: &'a str,
    starttls: &'a [&'a str],
}

impl Port<'_> {
    /// A handshake with these options: what openssl says of it.
    fn handshake(&self, options: &[&str]) -> Result<Output> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.gateway.address(self.kind)?.to_string(), "-servername", NAME]);
        run(command.args(self.starttls).args(options), b"")
    }

    /// The protocol and suite of a handshake, if one came about.
    fn agreed(&self, options: &[&str]) -> Result<Option<(String, String)>> {
        let said = self.handshake(options)?.text();
        // `New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384`, or `New, (NONE), Cipher is (NONE)`. For the older versions
        // this line names the suite's first version; `Protocol` below names the one that is spoken.
        let line = said.lines().find(|line| line.contains(", Cipher is ")).unwrap_or_default();
        let suite = line.split(", Cipher is ").nth(1).unwrap_or_default().trim().to_owned();
        if suite.is_empty() || suite == "(NONE)" {
            return Ok(None);
        }
        let session = said.lines().find_map(|line| line.trim().strip_prefix("Protocol  : "));
        let protocol = session.map_or_else(|| line.split(", ").nth(1).unwrap_or_default().to_owned(), str::to_owned);
        Ok(Some((protocol, suite)))
    }

    /// Every suite of TLS 1.2 it takes: what was taken is left out the next time, until nothing is.
    fn suites(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        loop {
            let without: String = found.iter().map(|suite| format!(":!{suite}")).collect();
            let ciphers = format!("{EVERYTHING}{without}:@SECLEVEL=0");
            match self.agreed(&["-tls1_2", "-cipher", &ciphers])? {
                Some((_, suite)) => ensure!(found.insert(suite.clone()), "{suite} although it was not offered"),
                None => return Ok(found),
            }
        }
    }
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn sweep(port: &Port<'_>, key: &str) -> Result<()> {
    let weak = format!("{EVERYTHING}:@SECLEVEL=0");
    for version in ["-tls1", "-tls1_1"] {
        let agreed = port.agreed(&[version, "-cipher", &weak])?;
        ensure!(agreed.is_none(), "{} speaks {agreed:?}", port.kind);
    }
    let suites = port.suites()?;
    let wanted = ["AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305"];
    let wanted: BTreeSet<String> = wanted.iter().map(|suite| format!("ECDHE-{key}-{suite}")).collect();
    ensure!(suites == wanted, "{}: {suites:?}", port.kind);

    let newest = [
        "AES_256_GCM_SHA384",
        "CHACHA20_POLY1305_SHA256",
        "AES_128_GCM_SHA256",
        "AES_128_CCM_SHA256",
        "AES_128_CCM_8_SHA256",
    ];
    let newest = newest.map(|suite| format!("TLS_{suite}"));
    let mut taken = BTreeSet::new();
    for suite in &newest {
        if let Some((protocol, agreed)) = port.agreed(&["-tls1_3", "-ciphersuites", suite])? {
            ensure!(protocol == "TLSv1.3" && agreed == *suite, "{protocol} {agreed}");
            taken.insert(agreed);
        }
    }
    ensure!(taken == newest[..3].iter().cloned().collect(), "{}: {taken:?}", port.kind);

    let mut groups = BTreeSet::new();
    for group in ["X25519", "P-256", "P-384", "P-521", "X448", "ffdhe2048"] {
        if port.agreed(&["-tls1_3", "-groups", group])?.is_some() {
            groups.insert(group.to_owned());
        }
    }
    ensure!(groups == set(&["X25519", "P-256", "P-384"]), "{}: {groups:?}", port.kind);

    let said = port.handshake(&["-tls1_2"])?.text();
    for part in ["Compression: NONE", "Secure Renegotiation IS supported", "Extended master secret: yes"] {
        ensure!(said.contains(part), "{}: not `{part}`: {said}", port.kind);
    }
    println!(
        "{} with {key}: TLS 1.2 {suites:?}; TLS 1.3 {taken:?}; groups {groups:?}; TLS 1.0 and 1.1 refused",
        port.kind
    );
    Ok(())
}

#[test]
fn only_tls_1_2_and_1_3_with_forward_secrecy() -> Result<()> {
    let folder = folder()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let mut gateway = Gateway::create(folder.path())?;
    let live = Pair { certificate: gateway.folder.join("live.pem"), key: gateway.folder.join("live.key") };
    let text = std::fs::read_to_string(&gateway.config)?;
    let files = "mode = \"files\"\ncertificate_file = \"live.pem\"\nkey_file = \"live.key\"";
    std::fs::write(&gateway.config, text.replace("mode = \"self-signed\"", files))?;
    for (rsa, key) in [(false, "ECDSA"), (true, "RSA")] {
        authority.make(key, NAME, (2024, 2100), rsa)?.install(&live)?;
        gateway.start()?;
        let ports: [(&str, &[&str]); 3] =
            [("smtp", &["-starttls", "smtp"]), ("pop3", &["-starttls", "pop3"]), ("pop3s", &[])];
        for (kind, starttls) in ports {
            sweep(&Port { gateway: &gateway, kind, starttls }, key)?;
        }
        gateway.stop()?;
    }
    Ok(())
}

/// The words of the page are those of this test.
#[test]
fn the_page_says_what_is_tested() -> Result<()> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tls.md"))?;
    for word in ["AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305", "X25519", "P-256", "P-384", "TLS 1.1"] {
        page.find(word).with_context(|| format!("docs/tls.md does not name {word}"))?;
    }
    Ok(())
}
