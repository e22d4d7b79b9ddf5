//! What both sides of a TLS connection agree on: provider, versions, and nothing older than TLS 1.2.
//!
//! Provider: aws-lc-rs, for its speed and for X25519MLKEM768 (`docs/decisions/`). TLS 1.2 stays because older
//! Exchange servers have nothing newer; every suite left has forward secrecy (RFC 9325 §4.2).

mod verify;

pub use verify::{Verify, client_config, public_key_digest};

use std::sync::Arc;
use tokio_rustls::rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

/// Versions spoken, newest first.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The cryptography every TLS configuration of both programs is built with.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
