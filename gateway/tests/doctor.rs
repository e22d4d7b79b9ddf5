//! `doctor` against a DNS of the test: what is right, what is wrong, what cannot be known.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[path = "support/dns.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod dns;

use dns::{Data, Line, Server};
use serde_json::Value;
use std::{net::SocketAddr, path::Path, process::Command, sync::atomic::Ordering};

const NAME: &str = "msgw.archive.example";
const CAA: u16 = 257;
const TLSA: u16 = 52;

fn line(name: &str, data: Data) -> Line {
    Line { name: name.to_owned(), ttl: 60, data }
}

fn txt(name: &str, text: &str) -> Line {
    line(name, Data::Txt(vec![text.to_owned()]))
}

/// RFC 8659 §4.1: flags, length of the tag, tag, value.
fn caa(name: &str, issuer: &str) -> Line {
    line(name, Data::Raw(CAA, [&[0, 5][..], b"issue", issuer.as_bytes()].concat()))
}

fn tlsa(digest: &str) -> Line {
    let data = data_encoding::HEXLOWER.decode(digest.as_bytes()).unwrap();
    line(&format!("_25._tcp.{NAME}"), Data::Raw(TLSA, [&[3, 1, 1][..], &data].concat()))
}

fn postkeep(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep-gateway"));
    let output = command.current_dir(folder).args(arguments).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A gateway that was never started and asks this DNS; `tls` goes into `[tls]`.
fn gateway(folder: &Path, dns: SocketAddr, tls: &str) {
    let text = format!(
        "hostname = '{NAME}'\ndomains = ['{NAME}', 'archive.example']\n[smtp]\nlisten = ['127.0.0.1:0']\n\
         [pop3]\nlisten = ['127.0.0.1:0']\nlisten_tls = []\n[dns]\nservers = ['{dns}']\n[tls]\n{tls}\n"
    );
    let (code, _, error) = postkeep(folder, &["init", "--hostname", NAME]);
    assert_eq!(code, 0, "{error}");
    std::fs::write(folder.join("postkeep-gateway.toml"), text).unwrap();
}

/// `doctor --json`: exit code, and the states of its findings with what they say.
async fn doctor(folder: &Path) -> (i32, Value) {
    let folder = folder.to_owned();
    let ran = tokio::task::spawn_blocking(move || postkeep(&folder, &["doctor", "--json"]));
    let (code, out, error) = ran.await.unwrap();
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{error}")))
}

fn found(document: &Value, check: &str, state: &str, part: &str) -> bool {
    let fits = |finding: &Value| {
        finding["check"] == check && finding["state"] == state && finding["detail"].as_str().unwrap().contains(part)
    };
    document["findings"].as_array().unwrap().iter().any(fits)
}

fn published(document: &Value) -> Vec<String> {
    let text = |record: &Value, key: &str| record[key].as_str().unwrap().to_owned();
    let line = |r: &Value| format!("{} {} {}", text(r, "name"), text(r, "type"), text(r, "value"));
    document["publish"].as_array().unwrap().iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_everything_right_and_then_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    // A certificate of an authority, as files.
    let authority = rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let own = postkeep_gateway::tls::Facts::of(certificate.der()).unwrap().public_key_sha256;
    std::fs::write(folder.path().join("a.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("a.key"), key.serialize_pem()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder.path().join("a.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    gateway(folder.path(), server.address, "mode = 'files'\ncertificate_file = 'a.pem'\nkey_file = 'a.key'");

    let (code, empty) = doctor(folder.path()).await;
    assert_eq!(code, 1);
    for (check, state, part) in [
        ("clock", "ok", ""),
        ("permissions", "ok", "none open"),
        ("certificate", "ok", NAME),
        ("verify", "ok", "0 waiting"),
        ("port", "ok", "smtp 127.0.0.1:0 can be bound"),
        ("source-rules", "note", "secret mailbox address"),
        ("dns-address", "problem", "has no address"),
        ("dns-mx", "problem", "archive.example has no MX record"),
        ("dns-mx", "ok", "needs none"),
        ("dns-tlsa", "note", "has none"),
    ] {
        assert!(found(&empty, check, state, part), "{check} {state} {part}: {empty:#}");
    }
    let published = published(&empty);
    for record in [
        format!("archive.example. MX 10 {NAME}."),
        format!("_25._tcp.{NAME}. TLSA 3 1 1 {own}"),
        "_mta-sts.archive.example. TXT \"v=STSv1; id=1\"".to_owned(),
        "_smtp._tls.archive.example. TXT \"v=TLSRPTv1; rua=mailto:postmaster@archive.example\"".to_owned(),
    ] {
        assert!(published.contains(&record), "{record}: {published:#?}");
    }
    let policy = empty["policies"][1].clone();
    assert_eq!(policy["url"], "https://mta-sts.archive.example/.well-known/mta-sts.txt");
    assert!(policy["text"].as_str().unwrap().contains(&format!("mode: testing\nmx: {NAME}\n")));

    let right = vec![
        line(NAME, Data::Address("192.0.2.7".parse().unwrap())),
        line("7.2.0.192.in-addr.arpa", Data::Ptr(NAME)),
        line("archive.example", Data::Mx(10, NAME)),
        tlsa(&own),
        tlsa(&"00".repeat(32)),
        txt("_mta-sts.archive.example", "v=STSv1; id=7"),
        txt("_smtp._tls.archive.example", "v=TLSRPTv1; rua=mailto:tls@other.example"),
    ];
    let wrong = vec![
        line(NAME, Data::Address("192.0.2.7".parse().unwrap())),
        line("7.2.0.192.in-addr.arpa", Data::Ptr("host.provider.example")),
        line("archive.example", Data::Mx(10, "mail.elsewhere.example")),
        tlsa(&"00".repeat(32)),
        txt("_mta-sts.archive.example", "v=STSv1;"),
        txt("_smtp._tls.archive.example", "v=TLSRPTv1;"),
    ];
    *server.table.lock().unwrap() = right;
    // The index is sled's, whose files are as open as the umask lets them be.
    std::fs::create_dir(folder.path().join("data/index")).unwrap();
    std::fs::set_permissions(folder.path().join("data/index"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, document) = doctor(folder.path()).await;
    assert_eq!((code, document["ok"].as_bool()), (0, Some(true)), "{document:#}");
    for check in ["dns-address", "dns-reverse", "dns-mx", "dns-tlsa", "dns-mta-sts", "dns-tlsrpt"] {
        assert!(found(&document, check, "ok", ""), "{check}: {document:#}");
    }
    *server.table.lock().unwrap() = wrong;
    std::fs::set_permissions(folder.path().join("data/node.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, document) = doctor(folder.path()).await;
    assert_eq!((code, document["ok"].as_bool()), (1, Some(false)));
    for (check, state, part) in [
        ("dns-reverse", "note", "is host.provider.example"),
        ("dns-mx", "problem", "goes to mail.elsewhere.example"),
        ("dns-tlsa", "problem", "not the key that is served"),
        ("dns-mta-sts", "problem", "has no id"),
        ("dns-tlsrpt", "problem", "has no rua"),
        ("permissions", "problem", "node.key"),
    ] {
        assert!(found(&document, check, state, part), "{check} {state} {part}: {document:#}");
    }
    std::fs::set_permissions(folder.path().join("data/node.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(folder.path().join("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
    server.sick.store(true, Ordering::SeqCst);
    let (code, document) = doctor(folder.path()).await;
    assert_eq!(code, 1, "what cannot be known is not a pass");
    assert!(found(&document, "dns-mx", "unknown", ""), "{document:#}");
    assert!(found(&document, "permissions", "problem", "data"), "{document:#}");
    println!("doctor: {} findings, each seen right, wrong and unknown", document["findings"].as_array().unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_may_not_issue_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![caa("archive.example", "letsencrypt.org")]).await;
    let tls = "mode = 'acme'\n[tls.acme]\naccept_terms = true\ncontact = ['tls@other.example']\n\
               tls_listen = ['127.0.0.1:0']\nhttp_listen = []";
    gateway(folder.path(), server.address, tls);
    let (_, document) = doctor(folder.path()).await;
    assert!(found(&document, "dns-caa", "ok", "at archive.example: letsencrypt.org"), "{document:#}");
    assert!(published(&document).contains(&format!("{NAME}. CAA 0 issue \"letsencrypt.org\"")));
    let store = folder.path().join("data/tls/acme");
    let label = "acme-v02.api.letsencrypt.org-";
    // The folder's name ends with the start of a digest; the command makes it, so that this test need not know it.
    assert_eq!(postkeep(folder.path(), &["certificate", "next-key"]).0, 0);
    let made = std::fs::read_dir(&store).unwrap().next().unwrap().unwrap().path();
    assert!(made.file_name().unwrap().to_str().unwrap().starts_with(label));
    std::fs::write(made.join("account.url"), "https://acme.example/7\n").unwrap();
    let (_, document) = doctor(folder.path()).await;
    let expected = format!("{NAME}. CAA 0 issue \"letsencrypt.org; accounturi=https://acme.example/7\"");
    assert!(published(&document).contains(&expected), "{document:#}");
    for (issuer, state) in [
        ("letsencrypt.org; accounturi=https://acme.example/7", "ok"),
        ("letsencrypt.org; accounturi=https://acme.example/8", "problem"),
        ("other.example", "problem"),
        (";", "problem"),
    ] {
        *server.table.lock().unwrap() = vec![caa(NAME, issuer), caa("archive.example", "letsencrypt.org")];
        let (_, document) = doctor(folder.path()).await;
        assert!(found(&document, "dns-caa", state, &format!("at {NAME}: {issuer}")), "{issuer} {state}: {document:#}");
    }
}
