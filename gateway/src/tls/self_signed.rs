//! A certificate made at the first start, so that SMTP and POP3 have TLS before anybody has done anything.
//!
//! It is kept: the archiver pins its public key.

use super::{Pair, TlsError, files};
use postkeep_shared::disk::{Disk, create_dirs, write_new_file};
use std::path::Path;

/// Reads `self-signed.pem` and `.key` in `folder`, or makes them. A key without certificate (a crash in between) gets
/// a new certificate, so a pinned key survives.
pub(super) fn obtain(disk: &dyn Disk, folder: &Path, names: &[String]) -> Result<Pair, TlsError> {
    let (certificate_file, key_file) = (folder.join("self-signed.pem"), folder.join("self-signed.key"));
    let missing = |path: &Path| disk.entry(path).is_err_and(|e| e.is_missing());
    if missing(&certificate_file) {
        create_dirs(disk, folder)?;
        let unusable = |e: rcgen::Error| TlsError::Unusable(e.to_string());
        let key = if missing(&key_file) {
            let key = rcgen::KeyPair::generate().map_err(unusable)?;
            let pem = zeroize::Zeroizing::new(key.serialize_pem());
            write_new_file(disk, &key_file, pem.as_bytes())?;
            key
        } else {
            let pem = zeroize::Zeroizing::new(disk.read(&key_file, 64 * 1024)?);
            let content = || TlsError::Content { file: key_file.clone(), what: "holds no private key" };
            rcgen::KeyPair::from_pem(std::str::from_utf8(&pem).map_err(|_| content())?).map_err(|_| content())?
        };
        write_new_file(disk, &certificate_file, certificate(&key, names).map_err(unusable)?.as_bytes())?;
    }
    files::read(disk, &certificate_file, &key_file)
}

fn certificate(key: &rcgen::KeyPair, names: &[String]) -> Result<String, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names.to_vec())?;
    let mut subject = rcgen::DistinguishedName::new();
    // A common name has at most 64 characters (RFC 5280, appendix A.1); the alternative names have no such limit.
    let name: String = names.first().map(|n| n.chars().take(64).collect()).unwrap_or_default();
    subject.push(rcgen::DnType::CommonName, name);
    params.distinguished_name = subject;
    // No end (RFC 5280 §4.1.2.5): whoever uses it has pinned the key, and an expiry would only stop the mail.
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    Ok(params.self_signed(key)?.pem())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn made_once_kept_private_and_never_replaced() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let tls = folder.path().join("tls");
        let names = ["msgw.archive.example".to_owned()];
        let first = obtain(&LocalDisk, &tls, &names).expect("makes one");
        assert_eq!(LocalDisk.entry(&tls.join("self-signed.key")).expect("is there").mode, 0o600);
        let second = obtain(&LocalDisk, &tls, &names).expect("reads it");
        assert_eq!(first.chain, second.chain);
        assert!(super::super::usable(second).is_ok());
        std::fs::remove_file(tls.join("self-signed.pem")).expect("removes");
        let third = obtain(&LocalDisk, &tls, &names).expect("makes a certificate for the key");
        assert_eq!(first.key.secret_der(), third.key.secret_der());
    }
}
