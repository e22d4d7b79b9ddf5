//! Certificates of every kind that a test asks for, right and wrong.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use std::{
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A year of rcgen dates.
pub type Year = i32;

/// A certificate and its key as files.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// Puts both in the place of `live`, the way certificate tools do: one after the other, each by rename.
    pub fn install(&self, live: &Self) -> Result<()> {
        for (from, to) in [(&self.certificate, &live.certificate), (&self.key, &live.key)] {
            write_private(&to.with_extension("new"), &std::fs::read(from)?)?;
            std::fs::rename(to.with_extension("new"), to)?;
        }
        Ok(())
    }
}

/// Writes a file that nobody else can read.
pub fn write_private(file: &Path, octets: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(file.write_all(octets)?)
}

/// An authority of a test.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub root: PathBuf,
}

impl Authority {
    /// Makes one whose files go to `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let root = folder.join("root.pem");
        std::fs::write(&root, params.self_signed(&key)?.pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key), root })
    }

    /// A certificate for `host`, valid from and to the start of these years.
    pub fn make(&self, label: &str, host: &str, years: (Year, Year), rsa: bool) -> Result<Pair> {
        let key =
            if rsa { KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)? } else { KeyPair::generate()? };
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |end: &str| self.folder.join(format!("{label}.{end}"));
        let pair = Pair { certificate: file("pem"), key: file("key") };
        std::fs::write(&pair.certificate, certificate.pem())?;
        write_private(&pair.key, key.serialize_pem().as_bytes())?;
        Ok(pair)
    }
}
