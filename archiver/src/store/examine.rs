//! One report put together again and compared with everything that was promised of it.

use super::{Store, StoreError, StoreResult, entry::decode_entry};
use data_encoding::HEXLOWER;
use postkeep_shared::mail::{Digest, Hasher};
use std::io::{self, Write};

/// What was found of one report.
pub(crate) struct Examined {
    /// Source, mailbox and name.
    pub(crate) name: String,
    /// Octets that were put together.
    pub(crate) bytes: u64,
    /// Whether a gateway's receipt was compared.
    pub(crate) receipt: bool,
    /// What is not as it was promised.
    pub(crate) problem: Option<String>,
}

impl Store {
    /// Puts the report of record `number` and its messages together, past the page cache.
    pub(crate) fn examine(&self, number: u64) -> StoreResult<Examined> {
        let report = self.report(number)?;
        let mailbox = report.mailbox.as_deref().unwrap_or_default();
        let name = format!("{} {mailbox} {}", report.source, report.uidl);
        let receipt = report.receipt.as_deref().map(|text| decode_entry(text).ok_or(()));
        let salt = report.evidence.as_ref().and_then(|evidence| HEXLOWER.decode(evidence.salt.as_bytes()).ok());
        let mut salted = Salted(Hasher::default());
        salted.0.update(salt.as_deref().unwrap_or_default());
        let (recipe, sha256, size) = (&report.raw.recipe, report.raw.sha256, report.raw.size);
        let found = |receipt, problem| Examined { name: name.clone(), bytes: size, receipt, problem };
        self.set_fresh(true);
        let mut rebuilt = self.rebuild_checked(recipe, sha256, size, &report.uidl, &mut salted);
        if let (Ok(()), Some(message)) = (&rebuilt, &report.message) {
            rebuilt = self.read_message(&HEXLOWER.encode(&message.id.0), &mut io::sink());
        }
        self.set_fresh(false);
        match rebuilt {
            Err(error @ StoreError::Output(_)) => return Err(error),
            Err(error) => return Ok(found(false, Some(error.to_string()))),
            Ok(()) => {}
        }
        let digest: Digest = salted.0.finish();
        Ok(match receipt {
            None => found(false, None),
            Some(Err(())) => found(false, Some("its receipt cannot be read".to_owned())),
            Some(Ok(receipt)) if receipt.verify().is_err() => {
                found(true, Some("the signature of its receipt is wrong".to_owned()))
            }
            // What a gateway took over unmeasured has no digest of the plaintext.
            Some(Ok(receipt)) if !receipt.is_measured() => found(false, None),
            Some(Ok(receipt)) if salt.is_some() && receipt.body.digest != digest => {
                found(true, Some("it is not what the gateway's receipt says".to_owned()))
            }
            Some(Ok(_)) => found(salt.is_some(), None),
        })
    }
}

struct Salted(Hasher);

impl Write for Salted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.update(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
