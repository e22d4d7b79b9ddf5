//! Passwords: made by us, or chosen by a person.

use super::random;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Fewest characters of a chosen password.
pub const MIN_PASSWORD: usize = 12;

/// No character that looks like another, none that a shell or a URL treats specially; 54 of them.
const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzACDEFGHJKLMNPQRTUVWXYZ2345679";

/// A password. Wiped when dropped, never shown by `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

/// Why a chosen password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Fewer than [`MIN_PASSWORD`] characters.
    #[error("the password has fewer than {MIN_PASSWORD} characters; choose a longer one")]
    TooShort,
    /// POP3 could not carry it.
    #[error("the password holds a control character, which no mail client can send; choose another")]
    Control,
}

impl Password {
    /// 32 characters, 184 bits of entropy.
    #[must_use]
    pub fn generate() -> Self {
        let mut out = Vec::with_capacity(32);
        while out.len() < 32 {
            let bytes: Zeroizing<[u8; 64]> = Zeroizing::new(random());
            // Above the largest multiple of the alphabet's length a remainder would favour some characters.
            let fair = 256 - 256 % ALPHABET.len();
            let usable = bytes.iter().filter(|b| usize::from(**b) < fair);
            let chars = usable.filter_map(|b| ALPHABET.get(usize::from(*b) % ALPHABET.len()));
            out.extend(chars.take(32 - out.len()));
        }
        Self(out)
    }

    /// A password chosen by a person.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn chosen(text: &str) -> Result<Self, PasswordError> {
        if text.chars().count() < MIN_PASSWORD {
            return Err(PasswordError::TooShort);
        }
        if text.chars().any(char::is_control) {
            return Err(PasswordError::Control);
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// What a client sent; any octets.
    #[must_use]
    pub fn received(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The octets; keep the borrow short and copy nothing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_safe_to_paste() {
        let (a, b) = (Password::generate(), Password::generate());
        assert_eq!(a.expose().len(), 32);
        assert!(a.expose() != b.expose());
        assert!(a.expose().iter().all(u8::is_ascii_alphanumeric));
        assert!(!a.expose().iter().any(|c| b"0O1lI8BS".contains(c)));
    }

    #[test]
    fn chosen_passwords_have_a_floor() {
        assert_eq!(Password::chosen("elevenchars").err(), Some(PasswordError::TooShort));
        assert_eq!(Password::chosen("twelve chars\n").err(), Some(PasswordError::Control));
        assert!(Password::chosen("zwölf Zeichen!").is_ok());
    }
}
