//! Bytes that arrived and were not used yet, cut into CRLF lines with a limit.

/// Memory kept when everything was consumed; a session that waits for a command needs no more.
const KEPT: usize = 4 * 1024;

/// Received bytes waiting to be consumed.
#[derive(Default)]
pub struct Input {
    buffer: Vec<u8>,
    start: usize,
    /// Bytes from `start` on that are known to hold no line end.
    scanned: usize,
}

/// Why no line can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line has more octets than allowed, its CRLF included.
    #[error("line too long")]
    TooLong,
    /// CR without LF or LF without CR (RFC 5321 §2.3.8 allows neither in a command).
    #[error("bare CR or LF in a line")]
    BareLineEnd,
}

/// Proof that no byte of the clear-text phase was left when TLS began. Only [`Input::drained`] makes one.
#[derive(Debug)]
pub struct Drained(());

/// Bytes followed the command that starts TLS: the connection must be closed (RFC 3207 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("data after the command that starts TLS")]
pub struct NotDrained;

impl Input {
    /// Appends bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && (self.start == self.buffer.len() || self.start > 64 * 1024) {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The bytes not consumed yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Number of bytes not consumed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether everything was consumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks `count` bytes as used; more than there are counts as all.
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        self.scanned = 0;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            if self.buffer.capacity() > KEPT {
                self.buffer = Vec::new();
            }
        }
    }

    /// Takes `count` bytes out; more than there are counts as all, which are not copied.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        if self.start == 0 && count >= self.buffer.len() {
            self.scanned = 0;
            return std::mem::take(&mut self.buffer);
        }
        let taken = self.bytes().get(..count).unwrap_or(self.bytes()).to_vec();
        self.consume(taken.len());
        taken
    }

    /// Takes one line without its CRLF. `limit` counts the CRLF too. `None`: no whole line yet.
    ///
    /// # Errors
    /// [`LineError`]; the caller answers and closes, nothing was consumed.
    pub fn line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, LineError> {
        let bytes = self.bytes();
        // Only what fits the limit is looked at, so that the cuts do not decide which of two faults is named.
        let window = bytes.get(..limit).unwrap_or(bytes);
        // A CR at the end of what was scanned may still get its LF, so look at it again.
        let from = self.scanned.saturating_sub(1).min(window.len());
        let end = window.iter().skip(from).position(|b| *b == b'\n').map(|p| from + p);
        let Some(end) = end else {
            let body = window.strip_suffix(b"\r").unwrap_or(window);
            if body.get(from.saturating_sub(1)..).unwrap_or_default().contains(&b'\r') {
                return Err(LineError::BareLineEnd);
            }
            if bytes.len() >= limit {
                return Err(LineError::TooLong);
            }
            self.scanned = bytes.len();
            return Ok(None);
        };
        let line = bytes.get(..end).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r").filter(|l| !l.contains(&b'\r')) else {
            return Err(LineError::BareLineEnd);
        };
        let line = line.to_vec();
        self.consume(end + 1);
        Ok(Some(line))
    }

    /// The proof that TLS may start now.
    ///
    /// # Errors
    /// [`NotDrained`] when bytes are waiting: they came in clear and must never be read as if they had not.
    pub fn drained(&self) -> Result<Drained, NotDrained> {
        if self.is_empty() { Ok(Drained(())) } else { Err(NotDrained) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_whole_whatever_the_cuts() {
        let mut input = Input::default();
        let mut lines = Vec::new();
        for byte in b"NOOP\r\n\r\nQUIT\r\n" {
            input.push(&[*byte]);
            while let Some(line) = input.line(100).expect("valid") {
                lines.push(line);
            }
        }
        assert_eq!(lines, [b"NOOP".to_vec(), b"".to_vec(), b"QUIT".to_vec()]);
        assert!(input.drained().is_ok());
    }

    #[test]
    fn bare_line_ends_and_long_lines_are_refused() {
        for (bytes, limit, error) in [
            (b"NOOP\n".as_slice(), 100, LineError::BareLineEnd),
            (b"NO\rOP\r\n", 100, LineError::BareLineEnd),
            (b"NO\rOP", 100, LineError::BareLineEnd),
            (b"12345\r\n", 6, LineError::TooLong),
            (b"123456", 6, LineError::TooLong),
            (b"12\r456789", 6, LineError::BareLineEnd),
            (b"12\r45678\r\n", 6, LineError::BareLineEnd),
            (b"12345\r7", 6, LineError::TooLong),
            (b"123456\n", 6, LineError::TooLong),
        ] {
            let mut gulp = Input::default();
            gulp.push(bytes);
            assert_eq!(gulp.line(limit), Err(error), "{bytes:?}");
            let mut single = Input::default();
            let mut last = Ok(None);
            for byte in bytes {
                single.push(&[*byte]);
                last = single.line(limit);
                if last.is_err() {
                    break;
                }
            }
            assert_eq!(last, Err(error), "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut input = Input::default();
        input.push(b"a\r\nbcdef");
        input.line(100).expect("valid");
        assert_eq!(input.take(2), b"bc");
        assert_eq!(input.take(9), b"def");
        assert!(input.is_empty() && input.take(1).is_empty());
        input.push(b"12\r\n");
        assert_eq!(input.take(1), b"1");
        assert_eq!(input.line(100), Ok(Some(b"2".to_vec())));
        input.push(b"34");
        assert_eq!(input.take(2), b"34");
        assert!(input.drained().is_ok());
    }

    #[test]
    fn waiting_bytes_deny_the_proof() {
        let mut input = Input::default();
        input.push(b"STARTTLS\r\nEHLO x\r\n");
        input.line(100).expect("valid");
        assert_eq!(input.drained().map(|_| ()), Err(NotDrained));
    }
}
