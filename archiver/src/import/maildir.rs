//! Maildir: one message per file in `cur/` and `new/`; Maildir++ folders beside them. Pure.

/// The folder that a Maildir++ directory stands for: `.Sent.2020` is `Sent/2020`. Names are in the UTF-7 of IMAP.
#[must_use]
pub fn folder_of(directory: &str) -> Option<String> {
    let name = directory.strip_prefix('.').filter(|name| !name.is_empty() && !name.starts_with('.'))?;
    Some(name.split('.').map(decode_utf7).collect::<Vec<_>>().join("/"))
}

/// Decodes the modified UTF-7 of RFC 3501 §5.1.3; what is none stays as it is.
#[must_use]
pub fn decode_utf7(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let Some((coded, behind)) = after.split_once('-') else {
            out.push('&');
            rest = after;
            continue;
        };
        match (coded.is_empty(), decode_word(coded)) {
            (true, _) => out.push('&'),
            (false, Some(word)) => out.push_str(&word),
            (false, None) => out.extend(["&", coded, "-"]),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Base64 with `,` for `/`, without padding, of UTF-16 in network order.
fn decode_word(coded: &str) -> Option<String> {
    let octets = data_encoding::BASE64_NOPAD.decode(coded.replace(',', "/").as_bytes()).ok()?;
    let units = octets.chunks_exact(2).map(|pair| pair.iter().fold(0_u16, |n, b| (n << 8) | u16::from(*b)));
    if octets.len() % 2 == 0 { String::from_utf16(&units.collect::<Vec<_>>()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        assert_eq!(folder_of(".Sent").as_deref(), Some("Sent"));
        assert_eq!(folder_of(".Archiv.Gel&APY-scht").as_deref(), Some("Archiv/Gelöscht"));
        for none in ["Sent", ".", "..", ""] {
            assert_eq!(folder_of(none), None, "{none}");
        }
    }

    #[test]
    fn utf7() {
        for (coded, text) in [
            ("Entw&APw-rfe", "Entwürfe"),
            ("R&D", "R&D"),
            ("R&-D", "R&D"),
            ("&U,BTFw-", "台北"),
            ("&!-x", "&!-x"),
            ("&", "&"),
            ("a&AA-b", "a&AA-b"),
        ] {
            assert_eq!(decode_utf7(coded), text, "{coded}");
        }
    }
}
