//! Certificates from an authority (RFC 8555), by rustls-acme's own requests in an order of ours
//! (`docs/decisions/0007-acme.md` says why).
//!
//! Invariants: nothing is ordered that is not due; every request ends in time; a failure changes nothing that is in use.
//! What it does not do: DNS-01, wildcards, names that are addresses, revocation.

mod answers;
mod binding;
mod order;
mod settings;
mod store;

pub use answers::{Answers, Responder};
pub use order::Authority;
pub use settings::{AcmeSettings, Binding};
pub use store::{Request, Store, public_key_sha256};

use super::TlsError;
use postkeep_shared::{disk::Disk, run::printable};

/// How often a request is made at most, each time with a fresh nonce (RFC 8555 §6.5). An authority in trouble may refuse
/// several in a row, and one of a dozen requests that gives up costs the whole order.
const NONCES: usize = 10;

/// Why there is no certificate, in one sentence.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct IssueError(String);

impl IssueError {
    /// An error with this sentence.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// What rustls-acme says, with the authority's own words where there are any.
    fn of(error: &rustls_acme::acme::AcmeError) -> Self {
        let text = error.to_string();
        Self(problem(&text).unwrap_or_else(|| printable(text.as_bytes())))
    }
}

/// The problem document (RFC 7807) that rustls-acme quotes at the end of its error.
fn problem(text: &str) -> Option<String> {
    let (status, quoted) = text.split_once("non 2xx http status: ")?.1.split_once(' ')?;
    let document: String = serde_json::from_str(quoted).ok()?;
    let problem: binding::Problem = serde_json::from_str(&document).ok()?;
    Some(format!("the ACME server answers {status}: {}", problem.text()))
}

/// Checks the files that the settings name.
///
/// # Errors
/// [`TlsError`].
pub fn check(settings: &AcmeSettings, disk: &dyn Disk) -> Result<(), TlsError> {
    if let Some(binding) = &settings.binding {
        binding::mac_key(binding, disk).map_err(|e| TlsError::Binding(e.to_string()))?;
    }
    order::roots(settings).map(drop)
}

/// A certificate that was made.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM, the certificate first.
    pub chain: String,
    /// URL of the account.
    pub account: String,
}

/// Whoever makes certificates.
#[async_trait::async_trait]
pub trait Issuer: Send + Sync {
    /// One order from its beginning to its end, for `names`, with this private key (PEM).
    async fn issue(&self, key: &str, names: &[String]) -> Result<Issued, IssueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_quoted_on_one_line() {
        let quoted = "http request error: non 2xx http status: 429 \"{\\n  \\\"type\\\": \\\"urn:ietf:params:acme:error:\
                      rateLimited\\\",\\n  \\\"detail\\\": \\\"too many\\\\ncertificates\\\"\\n}\"";
        assert_eq!(
            problem(quoted).as_deref(),
            Some("the ACME server answers 429: too many\\x0Acertificates (rateLimited)")
        );
        assert_eq!(problem("io error: x"), None);
        assert_eq!(problem("non 2xx http status: 500 \"oops\""), None);
    }
}
