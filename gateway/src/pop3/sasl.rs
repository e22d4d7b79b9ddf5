//! SASL PLAIN (RFC 4616): authorization identity, NUL, user, NUL, password.

use super::Credentials;
use data_encoding::BASE64;
use postkeep_shared::crypt::Password;
use zeroize::Zeroizing;

/// Reads a response as sent: base64, or `=` for an empty one. An authorization identity must be empty or the user
/// himself: nobody acts for another here.
pub(super) fn plain(response: &[u8]) -> Option<Credentials> {
    let response = if response == b"=" { b"" } else { response };
    let octets = Zeroizing::new(BASE64.decode(response).ok()?);
    let mut parts = octets.split(|b| *b == 0);
    let (identity, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = parts.next().is_none() && !user.is_empty() && (identity.is_empty() || identity == user);
    fits.then(|| Credentials { user: user.to_vec(), password: Password::received(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let read = |text: &[u8]| plain(BASE64.encode(text).as_bytes());
        for good in [b"\0mbx-1\0secret".as_slice(), b"mbx-1\0mbx-1\0secret"] {
            let credentials = read(good).expect("valid");
            assert_eq!((credentials.user.as_slice(), credentials.password.expose()), (&b"mbx-1"[..], &b"secret"[..]));
        }
        for bad in [b"".as_slice(), b"\0mbx-1", b"\0\0secret", b"\0a\0b\0c", b"\0\0\0", b"other\0mbx-1\0secret"] {
            assert!(read(bad).is_none(), "{bad:?}");
        }
        for bad in [b"=".as_slice(), b"", b"!!!", b"AG1ieA"] {
            assert!(plain(bad).is_none(), "{bad:?}");
        }
    }
}
