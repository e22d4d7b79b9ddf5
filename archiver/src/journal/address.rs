//! Addresses in envelopes and headers (RFC 5322 §3.4), read for what they are: nothing may be lost.
//!
//! A well-formed list gives what the RFC says. Anything else gives the most that can be an address: display names without
//! quotes, semicolons for commas, X.500 names with blanks and parentheses. What is written without `@` is kept as it is.

/// One entry of a list of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The address alone; empty for `<>`.
    pub address: String,
    /// Whether it stood bare, as the envelope's grammar wants it.
    pub bare: bool,
}

/// Every address of a list. Names of groups and of people, and comments, are not addresses.
pub(super) fn list(value: &str) -> Vec<Entry> {
    let value = value.trim();
    if is_x500(value) {
        return vec![Entry { address: value.to_owned(), bare: true }];
    }
    let (mut entries, mut name) = (Vec::new(), String::new());
    let several = cut(value, &[',', ';']).len() > 1;
    for piece in cut(value, &[',', ';']) {
        let inner = without_group(&piece).trim();
        if inner.is_empty() {
            continue;
        }
        name.push_str(if name.is_empty() { "" } else { ", " });
        name.push_str(inner);
        // A comma in a display name that nobody quoted: the address is still to come.
        if !inner.contains(['@', '>']) && !is_x500(inner) {
            continue;
        }
        let whole = std::mem::take(&mut name);
        let group = inner.len() < piece.trim().len();
        entries.push(one(&whole, several || group));
    }
    // A name without any address, as Exchange 2003 may write it.
    if !name.is_empty() {
        entries.push(Entry { address: name, bare: !several });
    }
    entries
}

/// The address of one mailbox.
pub(super) fn single(value: &str) -> String {
    list(value).into_iter().next().map(|e| e.address).unwrap_or_default()
}

/// Whether this is an X.500 name, which is one word whatever it holds.
fn is_x500(value: &str) -> bool {
    value.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("/o=") || start.eq_ignore_ascii_case("/c="))
}

fn one(text: &str, in_list: bool) -> Entry {
    let text = text.trim();
    if let Some(inner) = angle(text) {
        let inner = inner.trim();
        // RFC 5322 §4.4: an obsolete route before the address.
        let address = match inner.strip_prefix('@').and_then(|r| r.split_once(':')) {
            Some((_, address)) => address.trim(),
            None => inner,
        };
        return Entry { address: address.to_owned(), bare: false };
    }
    let plain = if is_x500(text) { text.to_owned() } else { without_comments(text) };
    let bare = !in_list && plain.trim() == text;
    Entry { address: plain.trim().to_owned(), bare }
}

/// What stands in the last angle brackets outside quotes; the closing one may be missing.
fn angle(text: &str) -> Option<&str> {
    let (mut start, mut quoted, mut escaped) = (None, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => start = Some(at + 1),
            _ => {}
        }
    }
    // A quote that is never closed hides nothing.
    let start = start.or_else(|| text.rfind('<').filter(|_| quoted).map(|at| at + 1))?;
    let rest = text.get(start..)?;
    Some(rest.rfind('>').and_then(|end| rest.get(..end)).unwrap_or(rest))
}

fn without_comments(text: &str) -> String {
    let (mut plain, mut depth, mut quoted, mut escaped) = (String::new(), 0_u32, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted || depth > 0 => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            plain.push(c);
        }
    }
    // An opening parenthesis that never closes hides nothing.
    if depth > 0 { text.to_owned() } else { plain }
}

/// The members of a group without its name: `Team: a@x.example` (RFC 5322 §3.4); also a prefix like `SMTP:`.
fn without_group(piece: &str) -> &str {
    let mut quoted = false;
    for (at, c) in piece.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '<' | '@' | '/' | '(' if !quoted => return piece,
            ':' if !quoted => return piece.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    piece
}

/// Cuts at separators outside quotes, angle brackets and comments.
pub(super) fn cut(text: &str, separators: &[char]) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let (mut quoted, mut angle, mut comment, mut escaped) = (false, false, 0_u32, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted || comment > 0 => escaped = true,
            '"' if comment == 0 => quoted = !quoted,
            '(' if !quoted => comment += 1,
            ')' if !quoted => comment = comment.saturating_sub(1),
            '<' if !quoted && comment == 0 => angle = true,
            '>' if !quoted && comment == 0 => angle = false,
            _ if separators.contains(&c) && !quoted && !angle && comment == 0 => {
                pieces.push(std::mem::take(&mut piece));
                continue;
            }
            _ => {}
        }
        piece.push(c);
    }
    // Quote, bracket or comment never closed: it was a character, and everything is cut.
    if (quoted || angle || comment > 0) && piece.contains(separators) {
        pieces.extend(piece.split(separators).map(str::to_owned));
    } else {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_they_occur() {
        let cases: [(&str, &[&str]); 22] = [
            ("a@x.example", &["a@x.example"]),
            (" <a@x.example> ", &["a@x.example"]),
            ("<>", &[""]),
            ("", &[]),
            ("Ann Brook <a@x.example>", &["a@x.example"]),
            ("\"Brook, Ann\" <a@x.example>, b@x.example", &["a@x.example", "b@x.example"]),
            ("Brook, Ann <a@x.example>; b@x.example;", &["a@x.example", "b@x.example"]),
            ("Team: a@x.example, B <b@x.example>;", &["a@x.example", "b@x.example"]),
            ("undisclosed-recipients:;", &[]),
            ("SMTP:a@x.example", &["a@x.example"]),
            ("a@x.example (Ann, of course)", &["a@x.example"]),
            ("<@r.example,@s.example:a@x.example>", &["a@x.example"]),
            ("\"a, b\"@x.example", &["\"a, b\"@x.example"]),
            ("/o=Org/ou=Group (F23)/cn=Recipients/cn=a, b", &["/o=Org/ou=Group (F23)/cn=Recipients/cn=a, b"]),
            ("IMCEAEX-_o=A_ou=B+20C@d.example", &["IMCEAEX-_o=A_ou=B+20C@d.example"]),
            ("Administrator", &["Administrator"]),
            ("Brook, Ann", &["Brook, Ann"]),
            ("\"unclosed <a@x.example>", &["a@x.example"]),
            ("\"unclosed <a@x.example>, b@x.example", &["a@x.example", "b@x.example"]),
            ("Ann <a@x.example", &["a@x.example"]),
            ("jürgen@münchen.example", &["jürgen@münchen.example"]),
            ("user@[IPv6:2001:db8::1]", &["user@[IPv6:2001:db8::1]"]),
        ];
        for (text, wanted) in cases {
            let found: Vec<String> = list(text).into_iter().map(|e| e.address).collect();
            assert_eq!(found, wanted, "{text}");
        }
        assert!(list("a@x.example")[0].bare && !list("<a@x.example>")[0].bare);
    }
}
