//! Content-Type (RFC 2045 §5.1) and parameters that were continued or encoded (RFC 2231).

/// A media type, its parameters apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaType {
    /// `type/subtype` in lower case.
    pub name: String,
    /// Names in lower case; values as written, unquoted.
    parameters: Vec<(String, String)>,
}

impl Default for MediaType {
    fn default() -> Self {
        Self { name: "text/plain".to_owned(), parameters: Vec::new() }
    }
}

impl MediaType {
    /// Reads a field value. What cannot be read is left out.
    pub(super) fn parse(value: &str) -> Self {
        let mut pieces = split_parameters(value).into_iter();
        let name: String = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let name: String = name.split_whitespace().collect();
        let parameters = pieces.filter_map(|piece| {
            let (name, value) = piece.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), unquote(value.trim())))
        });
        let parameters = parameters.collect();
        match name.is_empty() {
            true => Self { parameters, ..Self::default() },
            false => Self { name, parameters },
        }
    }

    /// Whether this is a type of this kind: `multipart`, `message`.
    pub(super) fn is_a(&self, kind: &str) -> bool {
        self.name.split_once('/').is_some_and(|(main, _)| main == kind)
    }

    /// A parameter, put together from its pieces.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let find = |wanted: &str| self.parameters.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.as_str());
        if let Some(value) = find(name) {
            return Some(value.to_owned());
        }
        if let Some(value) = find(&format!("{name}*")) {
            return Some(percent_decode(after_language(value)));
        }
        let mut whole = String::new();
        for index in 0..64 {
            let (plain, encoded) = (format!("{name}*{index}"), format!("{name}*{index}*"));
            match (find(&plain), find(&encoded)) {
                (Some(piece), _) => whole.push_str(piece),
                (None, Some(piece)) if index == 0 => whole.push_str(&percent_decode(after_language(piece))),
                (None, Some(piece)) => whole.push_str(&percent_decode(piece)),
                (None, None) => break,
            }
        }
        Some(whole).filter(|w| !w.is_empty())
    }

    /// The boundary of a multipart: blanks at its end are not part of it (RFC 2046 §5.1.1).
    pub(super) fn boundary(&self) -> Option<String> {
        let boundary = self.parameter("boundary")?;
        let boundary = boundary.trim_end_matches([' ', '\t']);
        (!boundary.is_empty()).then(|| boundary.to_owned())
    }
}

/// Cuts at semicolons outside quotes and drops comments.
fn split_parameters(value: &str) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let (mut quoted, mut comment) = (false, 0_u32);
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if quoted || comment > 0 => {
                let escaped = characters.next();
                if comment == 0 {
                    piece.push(c);
                    piece.extend(escaped);
                }
            }
            '"' if comment == 0 => {
                quoted = !quoted;
                piece.push(c);
            }
            // A comment stands between words; inside one, as in a boundary nobody quoted, it is a character.
            '(' if !quoted && (comment > 0 || piece.is_empty() || piece.ends_with([' ', '\t', '"'])) => comment += 1,
            ')' if comment > 0 => comment -= 1,
            _ if comment > 0 => {}
            ';' if !quoted => pieces.push(std::mem::take(&mut piece)),
            _ => piece.push(c),
        }
    }
    pieces.push(piece);
    pieces
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let (mut text, mut characters) = (String::new(), inner.chars());
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => text.extend(characters.next()),
            _ => text.push(c),
        }
    }
    text
}

/// `charset'language'value` without its first two.
fn after_language(value: &str) -> &str {
    value.splitn(3, '\'').nth(2).unwrap_or(value)
}

fn percent_decode(value: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(octet) => {
                bytes.push(octet);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_as_they_are_written() {
        let cases = [
            ("multipart/mixed; boundary=\"_a-b_\"", "_a-b_"),
            ("Multipart/Mixed;\tBOUNDARY=_a_ ", "_a_"),
            ("multipart/mixed; (comment; x) boundary=\"a;b\\\"c\"; x=y", "a;b\"c"),
            ("multipart/mixed; boundary=\"a b  \"", "a b"),
            ("multipart/mixed; boundary = \"a\" (why not)", "a"),
            ("multipart/mixed; boundary*0=\"abc\"; boundary*1=def", "abcdef"),
            ("multipart/mixed; boundary*=us-ascii'en'a%3Db", "a=b"),
            ("multipart/mixed; boundary=a=b", "a=b"),
            ("multipart/mixed; boundary=--Cit(1)--", "--Cit(1)--"),
        ];
        for (value, boundary) in cases {
            let media = MediaType::parse(value);
            assert_eq!(media.name, "multipart/mixed", "{value}");
            assert_eq!(media.boundary().as_deref(), Some(boundary), "{value}");
        }
        for value in
            ["", ";", "multipart/mixed", "multipart/mixed; boundary", "multipart/mixed; boundary=\"", "=;\"(\\"]
        {
            assert_eq!(MediaType::parse(value).boundary(), None, "{value}");
        }
    }
}
