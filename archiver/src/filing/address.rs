//! One spelling for an address, so that it can be looked up.

/// The spelling an address is compared in: no angle brackets, no surrounding blanks, everything in lower case.
///
/// The domain never has case (RFC 5321 §2.4). The local part has by the letter of it, but no mail server an archive
/// serves tells `Ann@` from `ann@`, and an address that changed case between directory and envelope must not lose its
/// owner. So the local part has no case here either. What is shown and stored keeps its spelling.
#[must_use]
pub fn normalise(address: &str) -> String {
    let trimmed = address.trim();
    let bare = trimmed.strip_prefix('<').and_then(|a| a.strip_suffix('>')).unwrap_or(trimmed);
    let lower = bare.trim().to_lowercase();
    // A name with a final dot is the same host (RFC 1034 §3.1).
    match lower.rsplit_once('@') {
        Some(_) => lower.strip_suffix('.').map(str::to_owned).unwrap_or(lower),
        None => lower,
    }
}

/// The domain of a normalised address.
#[must_use]
pub fn domain(normalised: &str) -> Option<&str> {
    normalised.rsplit_once('@').map(|(_, domain)| domain).filter(|d| !d.is_empty())
}

/// Whether this normalised address is an X.500 name (`/o=…/cn=…`), which only Exchange servers of one organisation use.
#[must_use]
pub fn is_x500(normalised: &str) -> bool {
    normalised.starts_with("/o=") || normalised.starts_with("/c=")
}

/// The X.500 name within a normalised `imceaex-…@domain`: `_` is `/`, `+xx` is an octet in hex.
#[must_use]
pub fn encapsulated(normalised: &str) -> Option<String> {
    let (local, _) = normalised.rsplit_once('@')?;
    let mut octets = local.strip_prefix("imceaex-")?.bytes();
    let mut name = Vec::new();
    while let Some(octet) = octets.next() {
        name.push(match octet {
            b'_' => b'/',
            b'+' => {
                let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let (high, low) = (digit(octets.next()?)?, digit(octets.next()?)?);
                high << 4 | low
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&name).to_lowercase()).filter(|name| is_x500(name))
}

/// A normalised `ann+tag@domain` without its detail (RFC 5233): `ann@domain`.
#[must_use]
pub fn without_detail(normalised: &str, separator: char) -> Option<String> {
    let (local, domain) = normalised.rsplit_once('@')?;
    let (user, _) = local.split_once(separator)?;
    (!user.is_empty() && !local.starts_with('"') && !local.starts_with("imceaex-")).then(|| format!("{user}@{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_agree() {
        for spelling in ["ann@aurora.example", " <Ann@AURORA.example> ", "ANN@aurora.example."] {
            assert_eq!(normalise(spelling), "ann@aurora.example");
        }
        assert_eq!(domain("\"a@b\"@c.example"), Some("c.example"));
        assert_eq!(domain("/o=x/cn=y"), None);
        assert_eq!(normalise("Jörg@Müller.example"), normalise("JÖRG@MÜLLER.example"));
    }

    #[test]
    fn encapsulated_names_come_out() {
        let address = "IMCEAEX-_o=Aurora_ou=Exchange+20Administrative+20Group+20+28FYDIBOHF23SPDLT+29_cn=Recipients_cn=Ann@a.example";
        let name = "/o=aurora/ou=exchange administrative group (fydibohf23spdlt)/cn=recipients/cn=ann";
        assert_eq!(encapsulated(&normalise(address)).as_deref(), Some(name));
        for other in ["ann@a.example", "imceaex-@a.example", "imceaex-_o=x+2@a", "imceaex-_o=x+zz@a", "imceaex-_o=x"] {
            assert_eq!(encapsulated(other), None, "{other}");
        }
    }

    #[test]
    fn details_come_off() {
        assert_eq!(without_detail("ann+tag+more@a.example", '+').as_deref(), Some("ann@a.example"));
        assert_eq!(without_detail("ann-tag@a.example", '-').as_deref(), Some("ann@a.example"));
        for other in ["ann@a.example", "+tag@a.example", "\"a+b\"@a.example", "imceaex-_o=x+20y@a.example", "a+b"] {
            assert_eq!(without_detail(other, '+'), None, "{other}");
        }
    }
}
