//! Text in the charset it says, and in the one it has.

use super::transfer::Encoding;
use std::borrow::Cow;

/// Decodes text. A byte order mark wins over the label; text without a label or labelled us-ascii is UTF-8 if it can be,
/// else Windows-1252, and so is text that is not what its label says. The second value is a warning.
pub(super) fn decode(bytes: Vec<u8>, label: Option<&str>) -> (String, Option<String>) {
    if let Some((encoding, mark)) = encoding_rs::Encoding::for_bom(&bytes) {
        let text = encoding.decode_without_bom_handling(bytes.get(mark..).unwrap_or_default()).0;
        return (text.into_owned(), None);
    }
    let label = label.unwrap_or("us-ascii").trim();
    if is_ascii_label(label) {
        return undeclared(bytes, label);
    }
    let Some(encoding) = encoding_for(label, &bytes) else {
        let (text, _) = undeclared(bytes, label);
        return (text, Some(format!("unknown charset {label}")));
    };
    match encoding.decode_without_bom_handling_and_without_replacement(&bytes) {
        Some(text) => (text.into_owned(), None),
        None if encoding == encoding_rs::UTF_8 => undeclared(bytes, label),
        None => {
            let text = encoding.decode_without_bom_handling(&bytes).0.into_owned();
            (text, Some(format!("bytes that are not {label} were replaced")))
        }
    }
}

fn is_ascii_label(label: &str) -> bool {
    let ascii = ["us-ascii", "ascii", "ansi_x3.4-1968", "iso646-us", ""];
    ascii.iter().any(|a| label.eq_ignore_ascii_case(a))
}

/// UTF-8 if it is, else Windows-1252, in which every octet means something.
fn undeclared(bytes: Vec<u8>, label: &str) -> (String, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) if text.is_ascii() || label.eq_ignore_ascii_case("utf-8") => (text, None),
        Ok(text) => (text, Some(format!("8-bit bytes in a {label} part: decoded as utf-8"))),
        Err(error) => {
            let text = encoding_rs::WINDOWS_1252.decode_without_bom_handling(error.as_bytes()).0.into_owned();
            (text, Some(format!("8-bit bytes in a {label} part: utf-8 failed, decoded as windows-1252")))
        }
    }
}

/// UTF-16 without mark is big-endian by RFC 2781 §4.3 and little-endian in practice: the zeros of ASCII tell.
fn encoding_for(label: &str, bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    if label.eq_ignore_ascii_case("utf-16") {
        let zeros = |first| bytes.iter().skip(first).step_by(2).take(1024).filter(|b| **b == 0).count();
        return Some(if zeros(1) > zeros(0) { encoding_rs::UTF_16LE } else { encoding_rs::UTF_16BE });
    }
    encoding_rs::Encoding::for_label(label.as_bytes())
}

/// Decodes the encoded words of a field (RFC 2047 §2); blanks between two of them disappear.
pub(super) fn decode_words(value: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(value.len()), value);
    // Octets of neighbours in one charset are joined first: producers cut characters in two.
    let mut pending: Option<(String, Vec<u8>)> = None;
    while let Some(start) = rest.find("=?") {
        let (before, from) = rest.split_at(start);
        let Some((charset, bytes, length)) = encoded_word(from) else {
            settle(&mut text, &mut pending);
            text.push_str(before);
            text.push_str("=?");
            rest = from.get(2..).unwrap_or_default();
            continue;
        };
        if pending.is_none() || !before.trim().is_empty() {
            settle(&mut text, &mut pending);
            text.push_str(before);
        }
        match &mut pending {
            Some((known, joined)) if known.eq_ignore_ascii_case(&charset) => joined.extend(bytes),
            _ => {
                settle(&mut text, &mut pending);
                pending = Some((charset, bytes));
            }
        }
        rest = from.get(length..).unwrap_or_default();
    }
    settle(&mut text, &mut pending);
    text.push_str(rest);
    text
}

fn settle(text: &mut String, pending: &mut Option<(String, Vec<u8>)>) {
    if let Some((charset, bytes)) = pending.take() {
        text.push_str(&decode(bytes, Some(&charset)).0);
    }
}

/// Octets of an encoded word's content at most; RFC 2047 allows 75, producers exceed it.
const MAX_WORD: usize = 2000;

/// Charset, octets and length of the encoded word that `text` begins with.
fn encoded_word(text: &str) -> Option<(String, Vec<u8>, usize)> {
    let inner = text.strip_prefix("=?")?;
    let (charset, rest) = inner.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let odd = charset.is_empty() || charset.len() > 60 || charset.contains(char::is_whitespace);
    if odd || encoding.len() != 1 {
        return None;
    }
    // Looked for nearby only: a field full of beginnings without an end must not be searched again for each.
    let near = rest.as_bytes().get(..MAX_WORD).unwrap_or(rest.as_bytes());
    let end = near.windows(2).position(|pair| pair == b"?=")?;
    let content = rest.get(..end)?;
    let bytes = match encoding {
        "B" | "b" => Encoding::Base64.decode(content.as_bytes()),
        "Q" | "q" => {
            let spaced: Cow<'_, str> = content.replace('_', "=20").into();
            Encoding::QuotedPrintable.decode(spaced.as_bytes())
        }
        _ => return None,
    };
    // RFC 2231 §5: the charset may be followed by a language.
    let name = charset.split('*').next().unwrap_or_default().to_owned();
    let length = 2 + charset.len() + 1 + encoding.len() + 1 + content.len() + 2;
    Some((name, bytes, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let cases = [
            ("plain =? text ?= x", "plain =? text ?= x"),
            ("=?utf-8?q?Pr=C3=BCfung_1?=", "Prüfung 1"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b=FC?= c", "abü c"),
            ("=?utf-8?b?w7w=?= x =?utf-8*de?B?w6Q=?=", "ü x ä"),
            ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
            ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
            ("=?x-nonsense?q?a=FC?=", "aü"),
            ("=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
            ("=?utf-8?q?never ends", "=?utf-8?q?never ends"),
        ];
        for (raw, decoded) in cases {
            assert_eq!(decode_words(raw), decoded, "{raw}");
        }
    }

    #[test]
    fn beginnings_without_an_end_are_passed_over() {
        let start = std::time::Instant::now();
        for piece in ["=?a?q?", "=? ", "=?a?q?\r", "=?a?"] {
            let value = piece.repeat(20_000);
            assert!(decode_words(&value).len() <= value.len());
        }
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn charsets() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
        };
        let cases: [(Vec<u8>, Option<&str>, &str, bool); 10] = [
            (b"abc".to_vec(), None, "abc", false),
            (b"\xEF\xBB\xBF\xC3\xBC".to_vec(), Some("iso-8859-1"), "ü", false),
            ("ü".into(), Some("us-ascii"), "ü", true),
            (b"\xFC".to_vec(), Some("us-ascii"), "ü", true),
            (b"\xFC".to_vec(), Some("utf-8"), "ü", true),
            (b"\xE4\xF6 \x80".to_vec(), Some("windows-1252"), "äö €", false),
            (utf16("Sender: ü", true), Some("utf-16"), "Sender: ü", false),
            (utf16("Sender: ü", false), Some("UTF-16"), "Sender: ü", false),
            (b"\xC4\xE3\xBA\xC3".to_vec(), Some("gb18030"), "你好", false),
            (b"x\xFC".to_vec(), Some("no-such"), "xü", true),
        ];
        for (bytes, label, text, warned) in cases {
            let (decoded, warning) = decode(bytes, label);
            assert_eq!((decoded.as_str(), warning.is_some()), (text, warned), "{label:?}");
        }
    }
}
