//! A secret wrapped by a password: Argon2id (RFC 9106) makes a key, XChaCha20-Poly1305 seals the secret with it
//! (`docs/formats/keys.md`). Success of the unwrapping is the password check: there is no second hash to steal.

use super::{Password, SecretBytes, random};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"PKW1";
const HEADER: usize = 54;
const TAG: usize = 16;
/// 1 GiB: parameters from a file may not make the program take more.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;

/// Argon2id cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u8,
}

impl KdfParams {
    /// For passwords we made: their own entropy carries them.
    pub const GENERATED: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    /// For passwords a person chose (RFC 9106 §4, second recommended option).
    pub const CHOSEN: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
}

/// Why a wrapped secret stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwrapError {
    /// The password (or the context it is bound to) is another one.
    #[error("wrong password")]
    WrongKey,
    /// Not a wrapped secret, or one cut short.
    #[error("wrapped key damaged")]
    Damaged,
    /// Parameters beyond what this program accepts.
    #[error("wrapped key asks for more memory or passes than allowed")]
    Excessive,
    /// The memory could not be had.
    #[error("not enough memory to derive the key")]
    Memory,
}

/// Wraps `secret`. `context` is bound in: unwrapping with another context fails.
///
/// # Errors
/// [`UnwrapError::Memory`] or [`UnwrapError::Excessive`] for unusable parameters.
pub fn wrap_key(password: &Password, params: KdfParams, secret: &[u8], context: &[u8]) -> Result<Vec<u8>, UnwrapError> {
    let (salt, nonce) = (random::<16>(), random::<24>());
    let mut out = Vec::with_capacity(HEADER + secret.len() + TAG);
    out.extend_from_slice(MAGIC);
    out.push(1);
    out.extend_from_slice(&params.memory_kib.to_be_bytes());
    out.extend_from_slice(&params.passes.to_be_bytes());
    out.push(params.lanes);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&nonce);
    let key = derive(password, params, &salt)?;
    let aad = [out.as_slice(), context].concat();
    let sealed = XChaCha20Poly1305::new((&*key).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: secret, aad: &aad })
        .map_err(|_| UnwrapError::Damaged)?;
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Unwraps what [`wrap_key`] made.
///
/// # Errors
/// [`UnwrapError`].
pub fn unwrap_key(password: &Password, wrapped: &[u8], context: &[u8]) -> Result<SecretBytes, UnwrapError> {
    let params = wrapped_params(wrapped)?;
    let (header, sealed) = wrapped.split_at_checked(HEADER).ok_or(UnwrapError::Damaged)?;
    let salt: [u8; 16] = header.get(14..30).and_then(|s| s.try_into().ok()).ok_or(UnwrapError::Damaged)?;
    let nonce: [u8; 24] = header.get(30..54).and_then(|n| n.try_into().ok()).ok_or(UnwrapError::Damaged)?;
    let key = derive(password, params, &salt)?;
    let aad = [header, context].concat();
    XChaCha20Poly1305::new((&*key).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: &aad })
        .map(SecretBytes::new)
        .map_err(|_| UnwrapError::WrongKey)
}

/// The cost a wrapped secret asks for; checked against the cap before any memory is taken.
///
/// # Errors
/// [`UnwrapError::Damaged`] or [`UnwrapError::Excessive`].
pub fn wrapped_params(wrapped: &[u8]) -> Result<KdfParams, UnwrapError> {
    let int = |at: usize| wrapped.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    if wrapped.get(..5) != Some(&[b'P', b'K', b'W', b'1', 1]) || wrapped.len() < HEADER + TAG {
        return Err(UnwrapError::Damaged);
    }
    let params = KdfParams {
        memory_kib: int(5).ok_or(UnwrapError::Damaged)?,
        passes: int(9).ok_or(UnwrapError::Damaged)?,
        lanes: *wrapped.get(13).ok_or(UnwrapError::Damaged)?,
    };
    if params.memory_kib > MAX_MEMORY_KIB || params.passes > 64 || params.lanes > 64 {
        return Err(UnwrapError::Excessive);
    }
    Ok(params)
}

fn derive(password: &Password, params: KdfParams, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, UnwrapError> {
    let params = Params::new(params.memory_kib, params.passes, u32::from(params.lanes), Some(32))
        .map_err(|_| UnwrapError::Excessive)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.expose(), salt, key.as_mut())
        .map_err(|_| UnwrapError::Memory)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: KdfParams = KdfParams { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn only_password_and_context_together_open() {
        let password = Password::received(b"correct horse battery");
        let wrapped = wrap_key(&password, CHEAP, b"secret", b"mbx-1").expect("wraps");
        assert_eq!(unwrap_key(&password, &wrapped, b"mbx-1").expect("opens").expose(), b"secret");
        assert_eq!(unwrap_key(&password, &wrapped, b"mbx-2").err(), Some(UnwrapError::WrongKey));
        let other = Password::received(b"wrong");
        assert_eq!(unwrap_key(&other, &wrapped, b"mbx-1").err(), Some(UnwrapError::WrongKey));
    }

    #[test]
    fn every_changed_octet_and_every_cut_is_noticed() {
        let password = Password::received(b"correct horse battery");
        let wrapped = wrap_key(&password, CHEAP, b"secret", b"").expect("wraps");
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(unwrap_key(&password, &changed, b"").is_err(), "octet {at}");
            assert!(unwrap_key(&password, &wrapped[..at], b"").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_greedy_file_is_refused_before_memory_is_taken() {
        let mut wrapped = wrap_key(&Password::received(b"x"), CHEAP, b"s", b"").expect("wraps");
        wrapped[5..9].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(wrapped_params(&wrapped), Err(UnwrapError::Excessive));
    }
}
