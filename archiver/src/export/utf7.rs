//! The spelling of folder names in IMAP (RFC 3501 §5.1.3): what is no printable US-ASCII stands in base64 of UTF-16.

/// A folder name in modified UTF-7; `import::maildir::decode_utf7` undoes it.
#[must_use]
pub(super) fn encode(text: &str) -> String {
    let (mut out, mut coded) = (String::new(), Vec::new());
    let close = |coded: &mut Vec<u8>, out: &mut String| {
        if !coded.is_empty() {
            let word = data_encoding::BASE64_NOPAD.encode(coded).replace('/', ",");
            out.extend(["&", &word, "-"]);
            coded.clear();
        }
    };
    for c in text.chars() {
        match c {
            '&' => {
                close(&mut coded, &mut out);
                out.push_str("&-");
            }
            ' '..='~' => {
                close(&mut coded, &mut out);
                out.push(c);
            }
            _ => {
                let mut units = [0; 2];
                coded.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
            }
        }
    }
    close(&mut coded, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::encode;
    use crate::import::maildir::decode_utf7;

    #[test]
    fn there_and_back() {
        assert_eq!((encode("Entwürfe").as_str(), encode("R&D").as_str()), ("Entw&APw-rfe", "R&-D"));
        for text in ["", "plain", "台北/日本語", "a&-b", "𝄞", "&&", "ü&ö"] {
            assert_eq!(decode_utf7(&encode(text)), text);
        }
    }
}
