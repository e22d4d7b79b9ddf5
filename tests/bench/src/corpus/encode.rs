//! Transfer encodings as senders write them: base64 in lines of 76, quoted-printable with soft breaks (RFC 2045 §6.7,
//! §6.8), long header values folded.

use data_encoding::BASE64;

/// Base64 in lines of 76 characters ended by CRLF.
pub(super) fn base64_lines(octets: &[u8], out: &mut Vec<u8>) {
    // 57 octets make a line.
    for line in octets.chunks(57) {
        out.extend_from_slice(BASE64.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Quoted-printable of text whose lines end with LF.
pub(super) fn quoted_printable(text: &str, out: &mut Vec<u8>) {
    for line in text.split('\n') {
        let mut column = 0;
        let last = line.len().saturating_sub(1);
        for (place, octet) in line.bytes().enumerate() {
            let plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && place < last);
            let width = if plain { 1 } else { 3 };
            if column + width > 75 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            column += width;
            match plain {
                true => out.push(octet),
                false => out.extend_from_slice(format!("={octet:02X}").as_bytes()),
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A header field folded at 70 characters.
pub(super) fn folded(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    for piece in value.as_bytes().chunks(70) {
        out.push(b' ');
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}
