//! Text from a peer, made fit for a log: it can neither end a line nor speak to a terminal.

/// Longest result in characters, so that one peer cannot fill a log with one line.
const LONGEST: usize = 200;

/// `text` with everything outside 0x20 to 0x7E, and the backslash, as `\xNN`; cut after 200 characters.
#[must_use]
pub fn printable(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text {
        let plain = (0x20..=0x7e).contains(byte) && *byte != b'\\';
        let shown = if plain { char::from(*byte).to_string() } else { format!("\\x{byte:02X}") };
        if out.len() + shown.len() > LONGEST {
            out.push_str("...");
            break;
        }
        out.push_str(&shown);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn one_line_whatever_the_octets() {
        let all: Vec<u8> = (0..=255).collect();
        for octets in all.chunks(16) {
            let shown = printable(octets);
            assert!(shown.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{shown}");
        }
        assert_eq!(printable(b"a\r\n\x1b[2J\\"), "a\\x0D\\x0A\\x1B[2J\\x5C");
        assert_eq!(printable(&[b'a'; 1000]).len(), 203);
    }
}
