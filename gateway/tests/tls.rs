//! Certificates and handshakes: what is refused, and with which words.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

use postkeep_gateway::{
    config::{CertificateSource, TlsConfig},
    tls::{self, Certificates, Protocol, TlsError},
};
use postkeep_shared::{
    disk::LocalDisk,
    tls::{VERSIONS, provider},
};
use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        AlertDescription, ClientConfig, Error, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

const NAME: &str = "msgw.archive.example";

fn self_signed(data: &Path) -> Certificates {
    let config = TlsConfig { source: CertificateSource::SelfSigned };
    Certificates::load(&config, data, &[NAME.to_owned()], Arc::new(LocalDisk)).unwrap()
}

fn client(certificate: &Path, alpn: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// What server and client make of a handshake.
async fn handshake(
    certificates: &Certificates,
    certificate: &Path,
    protocol: Protocol,
    alpn: &[&str],
) -> (Result<String, String>, Result<(), String>) {
    let acceptor = certificates.acceptor(protocol).unwrap();
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let connector = client(certificate, alpn);
    let (server, client) =
        tokio::join!(acceptor.accept(Box::new(ours)), connector.connect(ServerName::try_from(NAME).unwrap(), theirs));
    (
        server.map(|(_, facts)| facts.version_and_suite).map_err(|e| e.to_string()),
        client.map(drop).map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => "alert 120".to_owned(),
            _ => e.to_string(),
        }),
    )
}

#[tokio::test]
async fn the_self_signed_certificate_carries_the_name_and_alpn_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = self_signed(folder.path());
    let file = folder.path().join("tls/self-signed.pem");
    for (protocol, alpn, good) in [
        (Protocol::Pop3, [].as_slice(), true),
        (Protocol::Pop3, &["pop3"], true),
        (Protocol::Pop3, &["imap", "pop3"], true),
        (Protocol::Pop3, &["http/1.1"], false),
        (Protocol::Smtp, &["smtp"], true),
        (Protocol::Smtp, &[], true),
    ] {
        let (server, client) = handshake(&certificates, &file, protocol, alpn).await;
        if good {
            assert!(server.unwrap().starts_with("TLSv1.3 TLS13_"), "{alpn:?}");
            client.unwrap();
        } else {
            assert!(server.is_err());
            assert_eq!(client, Err("alert 120".into()));
        }
    }
}

#[test]
fn bad_files_are_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    self_signed(&folder.path().join("a"));
    self_signed(&folder.path().join("b"));
    let made = |node: &str, name: &str| folder.path().join(node).join("tls").join(name);
    let (certificate, key) = (made("a", "self-signed.pem"), made("a", "self-signed.key"));
    let check = |certificate: &Path, key: &Path| {
        let source = CertificateSource::Files { certificate: certificate.to_owned(), key: key.to_owned() };
        tls::check(&TlsConfig { source }, &LocalDisk)
    };
    check(&certificate, &key).unwrap();
    let readable = folder.path().join("readable.key");
    std::fs::copy(&key, &readable).unwrap();
    std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(check(&certificate, &readable), Err(TlsError::Readable(_))));
    assert!(matches!(check(&certificate, &made("b", "self-signed.key")), Err(TlsError::Mismatch(_))));
    assert!(matches!(check(&key, &key), Err(TlsError::Content { .. })));
    assert!(matches!(check(&certificate, &folder.path().join("none")), Err(TlsError::Disk(_))));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o600)).unwrap();
    for error in [check(&certificate, &empty), check(&empty, &key), check(&certificate, &readable)] {
        let text = error.err().unwrap().to_string();
        assert!(!text.contains('\n') && text.contains(folder.path().to_str().unwrap()), "{text}");
    }
    // A link, as certificate tools keep it, is followed.
    let link = folder.path().join("link.key");
    std::os::unix::fs::symlink(&key, &link).unwrap();
    check(&certificate, &link).unwrap();
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_a_bad_one_keeps_the_old() {
    let folder = tempfile::tempdir().unwrap();
    self_signed(&folder.path().join("a"));
    self_signed(&folder.path().join("b"));
    let file = |name: &str| folder.path().join(name);
    let take = |node: &str| {
        for end in ["pem", "key"] {
            let from = folder.path().join(node).join("tls").join(format!("self-signed.{end}"));
            std::fs::copy(from, file(&format!("live.{end}"))).unwrap();
        }
    };
    take("a");
    let source = CertificateSource::Files { certificate: file("live.pem"), key: file("live.key") };
    let disk = Arc::new(LocalDisk);
    let certificates = Certificates::load(&TlsConfig { source }, folder.path(), &[], disk).unwrap();
    let fits = async |node: &str| {
        let root = folder.path().join(node).join("tls/self-signed.pem");
        handshake(&certificates, &root, Protocol::Smtp, &[]).await.1.is_ok()
    };
    assert!(fits("a").await);
    take("b");
    assert!(fits("a").await, "not read before it is asked for");
    certificates.reload().unwrap();
    assert!(fits("b").await);
    std::fs::write(file("live.pem"), "nothing").unwrap();
    certificates.reload().unwrap_err();
    assert!(fits("b").await);
}
