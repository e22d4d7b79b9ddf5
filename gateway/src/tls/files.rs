//! Certificate and key from PEM files.

use super::{Pair, TlsError};
use postkeep_shared::disk::Disk;
use std::path::Path;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

/// A chain or key larger than this is not one.
const MAX_PEM: u64 = 256 * 1024;

/// Reads both files. The key's permissions are checked on the file that is then read through a link, if it is one
/// (certificate tools keep links).
pub(super) fn read(disk: &dyn Disk, certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let chain = disk.read(&followed(certificate), MAX_PEM)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let content = |file: &Path, what| TlsError::Content { file: file.to_owned(), what };
    let chain = chain.ok().filter(|c| !c.is_empty()).ok_or_else(|| content(certificate, "holds no certificate"))?;
    let key_file = followed(key);
    if disk.entry(&key_file)?.mode & 0o077 != 0 {
        return Err(TlsError::Readable(key.to_owned()));
    }
    let octets = Zeroizing::new(disk.read(&key_file, MAX_PEM)?);
    let private = PrivateKeyDer::from_pem_slice(&octets).map_err(|_| content(key, "holds no private key"))?;
    Ok(Pair { chain, key: private, key_file: key.to_owned() })
}

/// Certificate tools hand out links to the newest file; [`Disk`] opens only the file itself.
pub(super) fn followed(path: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
