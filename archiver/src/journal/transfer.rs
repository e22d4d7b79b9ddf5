//! Content-Transfer-Encoding (RFC 2045 §6): base64 and quoted-printable, decoded in blocks.
//!
//! Decoding is lenient, as every mail reader is: characters that are not base64 are skipped, a wrong `=` sequence stays
//! as it is. The decoder is a small state machine that can be copied at any place, so decoded octets can be read
//! anywhere without holding them: [`Decoded`] keeps one copy per 64 KiB.

use crate::octets::Octets;
use std::{cell::RefCell, io, ops::Range};

/// An encoding that changes octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 2045 §6.8.
    Base64,
    /// RFC 2045 §6.7.
    QuotedPrintable,
}

impl Encoding {
    /// Reads the value of a Content-Transfer-Encoding field; `None` for those that change nothing (7bit, 8bit, binary)
    /// and for unknown ones.
    #[must_use]
    pub fn of(value: &str) -> Option<Self> {
        let word = value.split([';', ' ', '\t', '(']).find(|w| !w.is_empty()).unwrap_or_default();
        match word.trim_matches('"').to_ascii_lowercase().as_str() {
            "base64" => Some(Self::Base64),
            "quoted-printable" => Some(Self::QuotedPrintable),
            _ => None,
        }
    }

    /// Decodes octets that are in memory.
    #[must_use]
    pub fn decode(self, encoded: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::with_capacity(encoded.len());
        let mut decoder = Decoder::new(self);
        decoder.feed(encoded, &mut decoded);
        decoder.end(&mut decoded);
        decoded
    }
}

/// Decodes octets that arrive in blocks.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Base64 { bits: u32, count: u8 },
    Quoted(Quoted),
}

/// What a quoted-printable decoder holds back until it knows more.
#[derive(Debug, Clone, Default)]
struct Quoted {
    /// After `=`: what followed it so far.
    escape: Option<Escape>,
    /// Blanks at what may be the end of a line: a relay may have added them (RFC 2045 §6.7 rule 3).
    blanks: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Escape {
    Begun,
    /// `=` and blanks: a soft break if the line ends now.
    Blanks(Vec<u8>),
    CarriageReturn(Vec<u8>),
    Digit(u8),
}

/// Blanks held back at most; longer runs are content.
const MAX_BLANKS: usize = 1024;

impl Decoder {
    /// A decoder at the beginning.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        let state = match encoding {
            Encoding::Base64 => State::Base64 { bits: 0, count: 0 },
            Encoding::QuotedPrintable => State::Quoted(Quoted::default()),
        };
        Self { state }
    }

    /// Decodes a block; what it gives is appended to `decoded`.
    pub fn feed(&mut self, encoded: &[u8], decoded: &mut Vec<u8>) {
        match &mut self.state {
            State::Base64 { bits, count } => {
                for octet in encoded {
                    // Padding ends one run; another one may follow when encoded pieces were joined.
                    if *octet == b'=' {
                        flush_base64(*bits, *count, decoded);
                        (*bits, *count) = (0, 0);
                        continue;
                    }
                    let value = BASE64_VALUES.get(usize::from(*octet)).copied().unwrap_or(NOTHING);
                    if value == NOTHING {
                        continue;
                    }
                    *bits = (*bits << 6) | u32::from(value);
                    *count += 1;
                    if *count == 4 {
                        let [_, a, b, c] = bits.to_be_bytes();
                        decoded.extend([a, b, c]);
                        (*bits, *count) = (0, 0);
                    }
                }
            }
            State::Quoted(quoted) => encoded.iter().for_each(|octet| quoted.feed(*octet, decoded)),
        }
    }

    /// Gives what was held back at the end.
    pub fn end(&mut self, decoded: &mut Vec<u8>) {
        match &mut self.state {
            State::Base64 { bits, count } => {
                flush_base64(*bits, *count, decoded);
                (*bits, *count) = (0, 0);
            }
            State::Quoted(quoted) => quoted.end(decoded),
        }
    }
}

/// The whole octets in an unfinished group of four characters.
fn flush_base64(bits: u32, count: u8, decoded: &mut Vec<u8>) {
    match count {
        2 => decoded.push((bits >> 4) as u8),
        3 => decoded.extend([(bits >> 10) as u8, (bits >> 2) as u8]),
        _ => {}
    }
}

/// What each octet means in base64; [`NOTHING`] for those that are passed over.
const BASE64_VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut values, mut index) = ([NOTHING; 256], 0_u8);
    while (index as usize) < alphabet.len() {
        values[alphabet[index as usize] as usize] = index;
        index += 1;
    }
    values
};
const NOTHING: u8 = 255;

fn hex_value(octet: u8) -> Option<u8> {
    (octet as char).to_digit(16).and_then(|v| u8::try_from(v).ok())
}

impl Quoted {
    fn feed(&mut self, octet: u8, decoded: &mut Vec<u8>) {
        match self.escape.take() {
            None => self.plain(octet, decoded),
            Some(Escape::Begun) => match octet {
                b'\r' => self.escape = Some(Escape::CarriageReturn(Vec::new())),
                b'\n' => {}
                b' ' | b'\t' => self.escape = Some(Escape::Blanks(vec![octet])),
                _ if hex_value(octet).is_some() => self.escape = Some(Escape::Digit(octet)),
                _ => self.literal(b"", octet, decoded),
            },
            Some(Escape::Digit(first)) => match (hex_value(first), hex_value(octet)) {
                (Some(high), Some(low)) => decoded.push((high << 4) | low),
                _ => self.literal(&[first], octet, decoded),
            },
            Some(Escape::Blanks(mut blanks)) => match octet {
                b'\r' => self.escape = Some(Escape::CarriageReturn(blanks)),
                b'\n' => {}
                b' ' | b'\t' if blanks.len() < MAX_BLANKS => {
                    blanks.push(octet);
                    self.escape = Some(Escape::Blanks(blanks));
                }
                _ => self.literal(&blanks, octet, decoded),
            },
            Some(Escape::CarriageReturn(mut before)) => {
                if octet != b'\n' {
                    before.push(b'\r');
                    self.literal(&before, octet, decoded);
                }
            }
        }
    }

    /// Not an escape after all: `=` and what followed are content, and `octet` is looked at anew.
    fn literal(&mut self, held: &[u8], octet: u8, decoded: &mut Vec<u8>) {
        decoded.push(b'=');
        decoded.extend_from_slice(held);
        self.plain(octet, decoded);
    }

    fn plain(&mut self, octet: u8, decoded: &mut Vec<u8>) {
        match octet {
            b' ' | b'\t' => {
                if self.blanks.len() >= MAX_BLANKS {
                    decoded.append(&mut self.blanks);
                }
                self.blanks.push(octet);
            }
            b'=' => {
                decoded.append(&mut self.blanks);
                self.escape = Some(Escape::Begun);
            }
            b'\r' | b'\n' => {
                self.blanks.clear();
                decoded.push(octet);
            }
            _ => {
                decoded.append(&mut self.blanks);
                decoded.push(octet);
            }
        }
    }

    fn end(&mut self, decoded: &mut Vec<u8>) {
        match self.escape.take() {
            Some(Escape::Digit(first)) => decoded.extend([b'=', first]),
            // A soft break at the very end, or one cut short.
            Some(Escape::Begun | Escape::Blanks(_) | Escape::CarriageReturn(_)) | None => {}
        }
        self.blanks.clear();
    }
}

/// Encoded octets, read as if they were decoded.
pub struct Decoded<'a> {
    whole: &'a dyn Octets,
    range: Range<u64>,
    places: Vec<Place>,
    len: u64,
    /// The block read last and its place: who reads in order decodes once.
    last: RefCell<(usize, Vec<u8>)>,
}

/// A place where decoding can begin.
struct Place {
    encoded: u64,
    decoded: u64,
    decoder: Decoder,
}

impl<'a> Decoded<'a> {
    /// Reads through the octets once to learn how many there are.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub fn new(whole: &'a dyn Octets, range: Range<u64>, encoding: Encoding) -> io::Result<Self> {
        let mut decoder = Decoder::new(encoding);
        let (mut places, mut at, mut len, mut buffer) = (Vec::new(), range.start, 0, Vec::new());
        whole.for_each_block(range.clone(), &mut |block| {
            places.push(Place { encoded: at, decoded: len, decoder: decoder.clone() });
            decoder.feed(block, &mut buffer);
            at += block.len() as u64;
            len += buffer.len() as u64;
            buffer.clear();
            Ok(())
        })?;
        decoder.end(&mut buffer);
        len += buffer.len() as u64;
        Ok(Self { whole, range, places, len, last: RefCell::new((usize::MAX, Vec::new())) })
    }

    /// Decodes the block that begins at a place.
    fn block(&self, index: usize) -> io::Result<Vec<u8>> {
        let place = self.places.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
        let next = self.places.get(index + 1);
        let encoded = self.whole.copy(place.encoded..next.map_or(self.range.end, |p| p.encoded))?;
        let (mut decoder, mut decoded) = (place.decoder.clone(), Vec::with_capacity(encoded.len()));
        decoder.feed(&encoded, &mut decoded);
        if next.is_none() {
            decoder.end(&mut decoded);
        }
        Ok(decoded)
    }
}

impl Octets for Decoded<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut index = self.places.partition_point(|p| p.decoded <= offset).saturating_sub(1);
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let start = self.places.get(index).map_or(0, |p| p.decoded);
            let mut last = self.last.borrow_mut();
            if last.0 != index {
                *last = (index, self.block(index)?);
            }
            let block = &last.1;
            let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let available = block.get(skip..).unwrap_or_default();
            let (now, later) = rest.split_at_mut(available.len().min(rest.len()));
            now.copy_from_slice(available.get(..now.len()).unwrap_or_default());
            offset += now.len() as u64;
            rest = later;
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_forms() {
        let cases: [(Encoding, &[u8], &[u8]); 10] = [
            (Encoding::Base64, b"SGVs\r\nbG8=\r\n", b"Hello"),
            (Encoding::Base64, b"SGVsbG8", b"Hello"),
            (Encoding::Base64, b"SGVsbG8=SGVsbG8=", b"HelloHello"),
            (Encoding::Base64, b"", b""),
            (Encoding::QuotedPrintable, b"a=\r\nb=3D=3d", b"ab=="),
            (Encoding::QuotedPrintable, b"a= \t\r\nb \t\r\nc", b"ab\r\nc"),
            (Encoding::QuotedPrintable, b"=zz=4=", b"=zz=4"),
            (Encoding::QuotedPrintable, b"=\nx=\rx", b"x=\rx"),
            (Encoding::QuotedPrintable, b"x=4", b"x=4"),
            (Encoding::QuotedPrintable, b"=C3=BC\n", "ü\n".as_bytes()),
        ];
        for (encoding, encoded, decoded) in cases {
            assert_eq!(encoding.decode(encoded), decoded, "{}", String::from_utf8_lossy(encoded));
            let (mut decoder, mut bytewise) = (Decoder::new(encoding), Vec::new());
            encoded.iter().for_each(|b| decoder.feed(&[*b], &mut bytewise));
            decoder.end(&mut bytewise);
            assert_eq!(bytewise, decoded);
        }
    }

    #[test]
    fn large_content_is_read_anywhere() {
        let plain: Vec<u8> = (0..400_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_be_bytes()).collect();
        let mut encoded = b"before".to_vec();
        for line in plain.chunks(57) {
            encoded.extend(data_encoding::BASE64.encode(line).into_bytes());
            encoded.extend(b"\r\n");
        }
        let range = 6..encoded.len() as u64;
        let decoded = Decoded::new(&encoded, range, Encoding::Base64).expect("reads");
        assert_eq!(decoded.len(), plain.len() as u64);
        let mut read = Vec::new();
        let mut keep = |block: &[u8]| {
            read.extend_from_slice(block);
            Ok(())
        };
        decoded.for_each_block(0..decoded.len(), &mut keep).expect("reads");
        assert!(read == plain);
        let mut some = [0; 1000];
        decoded.read_at(777_777, &mut some).expect("reads");
        assert_eq!(some, plain[777_777..778_777]);
        assert!(decoded.read_at(plain.len() as u64 - 999, &mut some).is_err());
    }
}
