//! External account binding (RFC 8555 §7.3.4): the one request that rustls-acme cannot make.
//!
//! A new account is asked for with a second signature inside, made with the key the authority gave out. Afterwards the
//! same account is found by its own key alone (§7.3.1), so everything else goes through rustls-acme.
//! What it does not do: anything but this POST, over one connection that is closed after it.

use super::{IssueError, NONCES, settings::Binding};
use data_encoding::BASE64URL_NOPAD;
use postkeep_shared::disk::Disk;
use rustls_acme::acme::Directory;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, SignatureScheme,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
        sign::SigningKey,
    },
};
use zeroize::Zeroizing;

/// Longest answer that is read.
const ANSWER: u64 = 256 * 1024;
/// A point of P-256 without its leading 4.
const POINT: usize = 64;

/// Makes the account of `account_key` (PKCS#8, P-256) with the binding; harmless where it is there already.
///
/// # Errors
/// [`IssueError`].
pub(super) async fn enrol(
    client: &Arc<ClientConfig>,
    directory: &Directory,
    contact: &[String],
    account_key: &[u8],
    binding: &Binding,
    disk: &dyn Disk,
) -> Result<(), IssueError> {
    let mac_key = mac_key(binding, disk)?;
    let provider = postkeep_shared::tls::provider();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(account_key.to_vec()));
    let key = provider.key_provider.load_private_key(der).map_err(|e| IssueError::new(format!("account key: {e}")))?;
    let jwk = jwk(key.as_ref())?;
    let inner = sealed(&json!({"alg": "HS256", "kid": binding.kid, "url": directory.new_account}), &jwk, |input| {
        Ok(hmac_sha256(&mac_key, input).to_vec())
    })?;
    let payload = json!({"termsOfServiceAgreed": true, "contact": contact, "externalAccountBinding": inner});
    // A nonce may have run out (RFC 8555 §6.5): then the same again with another.
    let mut nonce = directory.nonce(client).await.map_err(|e| IssueError::of(&e))?;
    for _ in 0..NONCES {
        let protected = json!({"alg": "ES256", "jwk": jwk, "nonce": nonce, "url": directory.new_account});
        let body = sealed(&protected, &payload, |input| sign(key.as_ref(), input))?;
        let answer = post(client, &directory.new_account, &body.to_string()).await?;
        if matches!(answer.status, 200 | 201) {
            return Ok(());
        }
        let problem = answer.problem();
        if problem.kind.ends_with(":badNonce") {
            nonce = directory.nonce(client).await.map_err(|e| IssueError::of(&e))?;
            continue;
        }
        return Err(IssueError::new(format!(
            "account with eab_kid {}: {} {}",
            binding.kid,
            answer.status,
            problem.text()
        )));
    }
    Err(IssueError::new("the ACME server takes none of its own nonces".into()))
}

pub(super) fn mac_key(binding: &Binding, disk: &dyn Disk) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    let failed = |what: String| IssueError::new(format!("{}: {what}", binding.key_file.display()));
    let entry = disk.entry(&binding.key_file).map_err(|e| failed(e.to_string()))?;
    if entry.mode & 0o077 != 0 {
        return Err(failed("others can read this key; run chmod 600 on it".into()));
    }
    let text = Zeroizing::new(disk.read(&binding.key_file, 4096).map_err(|e| failed(e.to_string()))?);
    let text = text.trim_ascii();
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |at| at + 1);
    let key = BASE64URL_NOPAD.decode(text.get(..end).unwrap_or_default());
    key.map(Zeroizing::new).map_err(|_| failed("is not base64url; copy the key as the authority shows it".into()))
}

/// A flattened JWS (RFC 7515 §7.2.2).
fn sealed(
    protected: &Value,
    payload: &Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, IssueError>,
) -> Result<Value, IssueError> {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let (protected, payload) = (encode(protected), encode(payload));
    let signature = sign(format!("{protected}.{payload}").as_bytes())?;
    Ok(json!({"protected": protected, "payload": payload, "signature": BASE64URL_NOPAD.encode(&signature)}))
}

/// The public key as RFC 7517 writes it: the point is the end of the SPKI.
fn jwk(key: &dyn SigningKey) -> Result<Value, IssueError> {
    let unusable =
        || IssueError::new("the account key is not an ECDSA P-256 key; remove account.key to get another".into());
    let spki = key.public_key().ok_or_else(unusable)?;
    let at = spki.len().checked_sub(POINT).ok_or_else(unusable)?;
    let (x, y) = spki.get(at..).and_then(|point| point.split_at_checked(POINT / 2)).ok_or_else(unusable)?;
    Ok(json!({"crv": "P-256", "kty": "EC", "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y)}))
}

/// ES256 wants r and s with 32 octets each (RFC 7518 §3.4); TLS makes them as DER.
fn sign(key: &dyn SigningKey, input: &[u8]) -> Result<Vec<u8>, IssueError> {
    let failed = || IssueError::new("the account key cannot sign".into());
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).ok_or_else(failed)?;
    let der = signer.sign(input).map_err(|_| failed())?;
    fixed(&der).ok_or_else(failed)
}

/// `SEQUENCE { INTEGER r, INTEGER s }` as two numbers of 32 octets.
fn fixed(der: &[u8]) -> Option<Vec<u8>> {
    let integers = match der {
        [0x30, length, rest @ ..] if usize::from(*length) == rest.len() => rest,
        _ => return None,
    };
    let (r, rest) = integer(integers)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then(|| [r, s].concat())
}

fn integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = der else { return None };
    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
    let value = value.strip_prefix(&[0]).unwrap_or(value);
    let mut number = [0; 32];
    number.get_mut(32_usize.checked_sub(value.len())?..)?.copy_from_slice(value);
    Some((number, rest))
}

/// RFC 2104 over SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = Zeroizing::new([0_u8; 64]);
    if key.len() > block.len() {
        block.iter_mut().zip(Sha256::digest(key)).for_each(|(to, from)| *to = from);
    } else {
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    }
    let pad = |with: u8| Zeroizing::new(block.map(|b| b ^ with));
    let inner = Sha256::new().chain_update(pad(0x36).as_slice()).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c).as_slice()).chain_update(inner).finalize().into()
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) detail: String,
}

impl Problem {
    /// As people read it; the text is the authority's.
    pub(super) fn text(&self) -> String {
        let kind = self.kind.rsplit(':').next().unwrap_or_default();
        postkeep_shared::run::printable(format!("{} ({kind})", self.detail).as_bytes())
    }
}

impl Answer {
    /// The problem document (RFC 7807): the first JSON object in the body, whatever framing is around it.
    fn problem(&self) -> Problem {
        let from = self.body.iter().position(|b| *b == b'{').unwrap_or(self.body.len());
        let mut documents = serde_json::Deserializer::from_slice(self.body.get(from..).unwrap_or_default()).into_iter();
        documents.next().and_then(Result::ok).unwrap_or_default()
    }
}

async fn post(client: &Arc<ClientConfig>, url: &str, body: &str) -> Result<Answer, IssueError> {
    let failed = |what: &dyn std::fmt::Display| IssueError::new(format!("{url}: {what}"));
    let rest = url.strip_prefix("https://").ok_or_else(|| failed(&"is not https"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|e| failed(&e))?),
        _ => (authority, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(&e))?;
    let tcp = TcpStream::connect((host, port)).await.map_err(|e| failed(&e))?;
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, tcp).await.map_err(|e| failed(&e))?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: postkeep-gateway/{}\r\n\
         Content-Type: application/jose+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| failed(&e))?;
    stream.flush().await.map_err(|e| failed(&e))?;
    let mut answer = Vec::new();
    // Some servers end without close_notify; what counts is the status line, which comes first.
    let ended = stream.take(ANSWER).read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(answer.get(..16).unwrap_or_default()).into_owned();
    match text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok()) {
        Some(status) => Ok(Answer { status, body: answer }),
        None => Err(ended.map_or_else(|e| failed(&e), |_| failed(&"no HTTP answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// RFC 4231 §4.2, §4.3, §4.7.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let hex = |key: &[u8], message: &[u8]| HEXLOWER.encode(&hmac_sha256(key, message));
        assert_eq!(hex(&[0x0b; 20], b"Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(
            hex(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn signatures_get_their_fixed_length() {
        let der = |r: &[u8], s: &[u8]| {
            let integer = |v: &[u8]| [&[2, u8::try_from(v.len()).expect("short")], v].concat();
            let both = [integer(r), integer(s)].concat();
            [vec![0x30, u8::try_from(both.len()).expect("short")], both].concat()
        };
        let full = fixed(&der(&[&[0][..], &[0xff; 32]].concat(), &[1])).expect("good");
        assert_eq!(full, [vec![0xff; 32], vec![0; 31], vec![1]].concat());
        for bad in [
            &b""[..],
            b"\x30\x00",
            &der(&[0x7f; 33], &[1]),
            &der(&[1], &[1])[..5],
            &[der(&[1], &[1]), vec![0]].concat(),
        ] {
            assert_eq!(fixed(bad), None, "{bad:?}");
        }
    }
}
