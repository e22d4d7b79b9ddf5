//! Keys and passwords. Every secret type here is wiped when dropped and has neither `Debug` nor `Display`.

mod password;
mod secret;
mod wrap;

pub use password::{MIN_PASSWORD, Password, PasswordError};
pub use secret::{SecretBytes, random};
pub use wrap::{KdfParams, UnwrapError, unwrap_key, wrap_key, wrapped_params};
