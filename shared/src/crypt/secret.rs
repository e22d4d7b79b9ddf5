//! Secret octets, and randomness.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Octets that are wiped when dropped. No `Debug`, no `Clone` by accident.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes over `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The octets; keep the borrow short and copy nothing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// `N` octets from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give, since no key may be made then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).unwrap_or_else(|e| panic!("the operating system gives no random numbers: {e}"));
    out
}
