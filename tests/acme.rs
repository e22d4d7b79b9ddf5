//! Certificates of a real ACME server: issued, renewed, presented by SMTP and POP3, and kept over a restart.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{
    Gateway, folder,
    pebble::{Demands, Pebble, is_installed},
    ports::free_ports,
    run, sha256,
};

const NAME: &str = "msgw.archive.example";
const PATIENCE: Duration = Duration::from_secs(90);

/// `[tls]` of a gateway that asks `pebble`; `more` goes into `[tls.acme]`.
fn acme(gateway: &Gateway, pebble: &Pebble, more: &str) -> Result<()> {
    gateway.configure("")?;
    let text = std::fs::read_to_string(&gateway.config)?;
    let acme = format!(
        "mode = \"acme\"\n[tls.acme]\ndirectory = \"{}\"\ndirectory_ca_file = \"{}\"\naccept_terms = true\n\
         contact = [\"admin@archive.example\"]\n{more}\n",
        pebble.directory(),
        pebble.ca_file().display()
    );
    Ok(std::fs::write(&gateway.config, text.replace("mode = \"self-signed\"", &acme))?)
}

/// Waits until `status` shows what is wanted.
fn wait(gateway: &Gateway, pebble: &Pebble, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = gateway.run(&["status", "--json"], b"")?.json()?;
        if wanted(&status) {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!("{what}: {status:#}\n{}\n{}", gateway.server()?.log(), pebble.log()?);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text<'a>(status: &'a Value, key: &str) -> Result<&'a str> {
    status.pointer(&format!("/certificate/{key}")).and_then(Value::as_str).with_context(|| format!("{key}: {status:#}"))
}

/// What a port presents: verified by openssl against the authority and the name, as PEM. Its times are left out, so
/// that a slow machine sees the same as a fast one.
fn presented(gateway: &Gateway, root: &Path, kind: &str, starttls: &[&str]) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &gateway.address(kind)?.to_string(), "-servername", NAME]).args(starttls);
    command.args(["-verify_return_error", "-verify_hostname", NAME, "-no_check_time", "-CAfile"]).arg(root);
    let output = run(&mut command, b"QUIT\r\n")?;
    let said = output.text();
    ensure!(said.contains("Verify return code: 0 (ok)"), "{kind}: {said}\n{}", output.err);
    let end = "-----END CERTIFICATE-----";
    let from = said.find("-----BEGIN CERTIFICATE-----").context("a certificate")?;
    let to = said.find(end).context("its end")?;
    Ok(said.get(from..to + end.len()).unwrap_or_default().to_owned())
}

/// The certificate that SMTP with STARTTLS, POP3 with STLS and POP3 over TLS all present.
fn presented_everywhere(gateway: &Gateway, root: &Path) -> Result<String> {
    let smtp = presented(gateway, root, "smtp", &["-starttls", "smtp"])?;
    ensure!(presented(gateway, root, "pop3", &["-starttls", "pop3"])? == smtp, "POP3 presents another certificate");
    ensure!(presented(gateway, root, "pop3s", &[])? == smtp, "POP3 over TLS presents another certificate");
    Ok(smtp)
}

#[test]
fn tls_alpn_01_is_issued_and_renewed_by_itself() -> Result<()> {
    if !is_installed()? {
        return Ok(());
    }
    let folder = folder()?;
    let [tls_port, http_port] = free_ports()?;
    // With 15 seconds of life the renewal is due after 10.
    let demands = Demands { validity: 15, tls_port, http_port, binding: None };
    let pebble = Pebble::start(folder.path(), &demands)?;
    let mut gateway = Gateway::create(folder.path())?;
    acme(&gateway, &pebble, &format!("tls_listen = [\"127.0.0.1:{tls_port}\"]\nhttp_listen = []"))?;
    let started = Instant::now();
    gateway.start()?;
    let issued = |status: &Value| status.pointer("/certificate/source").and_then(Value::as_str) == Some("acme");
    let status = wait(&gateway, &pebble, "issued", issued)?;
    let after = started.elapsed().as_secs_f32();
    let root = pebble.root()?;
    let first = presented_everywhere(&gateway, &root)?;
    let (expires, key) = (text(&status, "expires")?.to_owned(), text(&status, "public_key_sha256")?.to_owned());
    println!("TLS-ALPN-01: first certificate {after:.1} s after the start, until {expires}, key {}", &key[..16]);

    let renewed = |status: &Value| status.pointer("/certificate/expires").and_then(Value::as_str) != Some(&expires);
    let status = wait(&gateway, &pebble, "renewed", renewed)?;
    let second = presented_everywhere(&gateway, &root)?;
    ensure!(second != first, "the renewed certificate is not presented");
    ensure!(text(&status, "public_key_sha256")? == key, "the key changed");
    println!(
        "TLS-ALPN-01: renewed by itself {:.1} s after the start, same key; SMTP STARTTLS, POP3 STLS and POP3 over TLS \
         present {} and then {}",
        started.elapsed().as_secs_f32(),
        &sha256(first.as_bytes())[..12],
        &sha256(second.as_bytes())[..12]
    );
    gateway.stop()?;
    Ok(())
}

#[test]
fn http_01_with_an_external_account_survives_a_restart_without_an_order() -> Result<()> {
    if !is_installed()? {
        return Ok(());
    }
    let folder = folder()?;
    let [tls_port, http_port] = free_ports()?;
    let mac_key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let demands = Demands { validity: 7_776_000, tls_port, http_port, binding: Some(("kid-1", mac_key)) };
    let pebble = Pebble::start(folder.path(), &demands)?;
    let mut gateway = Gateway::create(folder.path())?;
    let key_file = gateway.folder.join("eab.key");
    std::fs::write(&key_file, format!("{mac_key}\n"))?;
    acme(
        &gateway,
        &pebble,
        &format!(
            "tls_listen = []\nhttp_listen = [\"127.0.0.1:{http_port}\"]\nnames = [\"mx2.archive.example\"]\n\
             eab_kid = \"kid-1\"\neab_key_file = \"eab.key\""
        ),
    )?;
    let refused = gateway.run(&["check-config"], b"")?.expect(2)?;
    ensure!(refused.err.contains("eab.key") && refused.err.contains("chmod 600"), "{}", refused.err);
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600))?;
    gateway.run(&["check-config"], b"")?.expect(0)?;

    gateway.start()?;
    let issued = |status: &Value| status.pointer("/certificate/source").and_then(Value::as_str) == Some("acme");
    let status = wait(&gateway, &pebble, "issued", issued)?;
    let root = pebble.root()?;
    let first = presented_everywhere(&gateway, &root)?;
    let account = text(&status, "account")?.to_owned();
    let names = status.pointer("/certificate/names").context("names")?.to_string();
    ensure!(names.contains(NAME) && names.contains("mx2.archive.example"), "{names}");
    ensure!(pebble.orders()? == 1, "{} orders", pebble.orders()?);

    gateway.stop()?;
    gateway.start()?;
    ensure!(presented_everywhere(&gateway, &root)? == first, "another certificate after the restart");
    let status = wait(&gateway, &pebble, "after the restart", issued)?;
    ensure!(text(&status, "account")? == account);
    ensure!(pebble.orders()? == 1, "the restart ordered");
    println!(
        "HTTP-01 with external account: {names}, account {account}; after a restart 0 new orders, same certificate"
    );

    gateway.run(&["certificate", "renew"], b"")?.expect(0)?;
    let expires = text(&status, "not_before")?.to_owned();
    let key = text(&status, "public_key_sha256")?.to_owned();
    let renewed = |status: &Value| status.pointer("/certificate/not_before").and_then(Value::as_str) != Some(&expires);
    let status = wait(&gateway, &pebble, "renewed", renewed)?;
    let second = presented_everywhere(&gateway, &root)?;
    ensure!(second != first && text(&status, "public_key_sha256")? == key && text(&status, "account")? == account);
    ensure!(pebble.orders()? == 2, "{} orders", pebble.orders()?);

    let record = gateway.run(&["certificate", "next-key"], b"")?.expect(0)?.text();
    gateway.run(&["certificate", "rotate-key"], b"")?.expect(0)?;
    let rotated = |status: &Value| {
        status.pointer("/certificate/public_key_sha256").and_then(Value::as_str).is_some_and(|k| k != key)
    };
    let status = wait(&gateway, &pebble, "rotated", rotated)?;
    let announced = format!("_25._tcp.{NAME}. IN TLSA 3 1 1 {}", text(&status, "public_key_sha256")?);
    ensure!(record.lines().any(|line| line == announced), "{record}");
    ensure!(presented_everywhere(&gateway, &root)? != second);
    println!(
        "HTTP-01: renewed by command with the same key, then with the key announced before; {} orders",
        pebble.orders()?
    );
    gateway.stop()?;
    for file in support::files_below(&gateway.data().join("tls"))? {
        let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{}: {mode:o}", file.display());
    }
    Ok(())
}
