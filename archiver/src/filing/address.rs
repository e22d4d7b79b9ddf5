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
}
