//! Dot-stuffing both ways (RFC 5321 §4.5.2, RFC 1939 §3): only CRLF is a line end, only CRLF.CRLF ends a message.
//!
//! A bare CR or LF is content. That one rule closes SMTP smuggling (CVE-2023-51764 and its relatives): there is no
//! second spelling of the end that another server could read differently.

use memchr::memchr;

/// Where the decoder stands relative to the last line end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// After CRLF, or at the very start.
    LineStart,
    /// After a dot at the start of a line; it is not content, whatever follows.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
    /// Inside a line.
    Middle,
    /// Inside a line, after a CR.
    Cr,
    /// After CRLF.CRLF.
    Done,
}

/// Undoes dot-stuffing and finds the end of the message.
pub struct DotDecoder {
    at: At,
    bare: bool,
}

/// What [`DotDecoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Input octets used; the rest belongs to what follows the message.
    pub consumed: usize,
    /// The end of the message was among them.
    pub done: bool,
}

impl Default for DotDecoder {
    fn default() -> Self {
        Self { at: At::LineStart, bare: false }
    }
}

impl DotDecoder {
    /// Decodes `input`, appending content to `out`.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Decoded {
        let mut pos = 0;
        while let Some(&byte) = input.get(pos) {
            match self.at {
                At::Done => break,
                At::Middle => {
                    let rest = input.get(pos..).unwrap_or_default();
                    let run = memchr(b'\r', rest).unwrap_or(rest.len());
                    let content = rest.get(..run).unwrap_or_default();
                    self.bare = self.bare || memchr(b'\n', content).is_some();
                    out.extend_from_slice(content);
                    pos += run;
                    if run < rest.len() {
                        out.push(b'\r');
                        pos += 1;
                        self.at = At::Cr;
                    }
                    continue;
                }
                At::LineStart if byte == b'.' => self.at = At::Dot,
                At::Dot if byte == b'\r' => self.at = At::DotCr,
                At::DotCr if byte == b'\n' => {
                    self.at = At::Done;
                    pos += 1;
                    break;
                }
                At::DotCr => {
                    // The dot was stuffing and the CR behind it content; this byte follows that CR.
                    out.push(b'\r');
                    self.at = At::Cr;
                    continue;
                }
                At::Cr if byte == b'\n' => {
                    out.push(b'\n');
                    self.at = At::LineStart;
                }
                At::LineStart | At::Dot | At::Cr => {
                    self.bare = self.bare || byte == b'\n' || self.at == At::Cr;
                    out.push(byte);
                    self.at = if byte == b'\r' { At::Cr } else { At::Middle };
                }
            }
            pos += 1;
        }
        Decoded { consumed: pos, done: self.at == At::Done }
    }

    /// Whether a CR or LF that was not part of a CRLF has been content so far.
    #[must_use]
    pub fn saw_bare_line_end(&self) -> bool {
        self.bare
    }
}

/// Adds dot-stuffing and the end of the message.
pub struct DotEncoder {
    at: At,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self { at: At::LineStart }
    }
}

impl DotEncoder {
    /// Appends `content` to `out`, doubling a dot that stands after CRLF or at the start.
    pub fn encode(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let mut pos = 0;
        while let Some(&byte) = content.get(pos) {
            if self.at == At::Middle {
                let rest = content.get(pos..).unwrap_or_default();
                let run = memchr(b'\r', rest).map_or(rest.len(), |p| p + 1);
                out.extend_from_slice(rest.get(..run).unwrap_or_default());
                pos += run;
                if rest.get(run - 1) == Some(&b'\r') {
                    self.at = At::Cr;
                }
                continue;
            }
            if self.at == At::LineStart && byte == b'.' {
                out.push(b'.');
            }
            out.push(byte);
            self.at = match (self.at, byte) {
                (At::Cr, b'\n') => At::LineStart,
                (_, b'\r') => At::Cr,
                _ => At::Middle,
            };
            pos += 1;
        }
    }

    /// Ends the message. A CRLF is added where the content had none at its end; whether it was, is the answer.
    pub fn finish(self, out: &mut Vec<u8>) -> bool {
        let added = self.at != At::LineStart;
        if added {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(cuts: &[&[u8]]) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut decoder, mut out, mut rest) = (DotDecoder::default(), Vec::new(), Vec::new());
        let mut done = false;
        for cut in cuts {
            if done {
                rest.extend_from_slice(cut);
                continue;
            }
            let step = decoder.decode(cut, &mut out);
            done = step.done;
            rest.extend_from_slice(&cut[step.consumed..]);
        }
        (out, rest, done)
    }

    #[test]
    fn only_crlf_dot_crlf_ends() {
        for (wire, content) in [
            (b".\r\n".as_slice(), b"".as_slice()),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"...\r\n.\r\n", b"..\r\n"),
            (b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n"),
            (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n"),
            (b".\rx\r\n.\r\n", b"\rx\r\n"),
            (b".\r\r\n.\r\n", b"\r\r\n"),
            (b"a\n.\r\n\r\n.\r\n", b"a\n.\r\n\r\n"),
        ] {
            let mut with_more = wire.to_vec();
            with_more.extend_from_slice(b"QUIT\r\n");
            let expected = (content.to_vec(), b"QUIT\r\n".to_vec(), true);
            assert_eq!(decode(&[&with_more]), expected, "{wire:?}");
            let single: Vec<&[u8]> = with_more.chunks(1).collect();
            assert_eq!(decode(&single), expected, "{wire:?} byte by byte");
        }
    }

    /// All strings of five symbols over {CR, LF, ".", "x"}: exactly those holding CRLF.CRLF (the CRLF may be the
    /// one before them) end the message early.
    #[test]
    fn all_1024_smuggling_strings() {
        let symbols = [b'\r', b'\n', b'.', b'x'];
        for n in 0..1024usize {
            let body: Vec<u8> = (0..5).map(|i| symbols[(n >> (2 * i)) & 3]).collect();
            let wire = [b"m".as_slice(), &body, b"\r\n.\r\n"].concat();
            let first_end = wire.windows(5).position(|w| w == b"\r\n.\r\n").expect("appended") + 5;
            for cut in 0..wire.len() {
                let (_, rest, done) = decode(&[&wire[..cut], &wire[cut..]]);
                assert!(done);
                assert_eq!(rest.len(), wire.len() - first_end, "{body:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(content in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..200), cut in 0usize..200) {
            let (mut encoder, mut wire) = (DotEncoder::default(), Vec::new());
            let cut = cut.min(content.len());
            encoder.encode(&content[..cut], &mut wire);
            encoder.encode(&content[cut..], &mut wire);
            let added = encoder.finish(&mut wire);
            let mut expected = content;
            if added {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(decode(&[&wire]), (expected, Vec::new(), true));
        }
    }
}
