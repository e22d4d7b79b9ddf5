//! Secrets a person gives: lines on standard input or, at a terminal, prompts without echo; never the command line.

use super::Failure;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use zeroize::Zeroizing;

/// A longer line is not a password.
const MAX_LINE: u64 = 4096;

/// One secret per prompt; the prompts show only at a terminal.
///
/// # Errors
/// [`Failure`] when a line is missing or cannot be read.
pub fn secret_lines<const N: usize>(prompts: [&str; N]) -> Result<[Zeroizing<String>; N], Failure> {
    let terminal = std::io::stdin().is_terminal();
    let mut stdin = std::io::stdin().lock();
    let mut lines: [Zeroizing<String>; N] = std::array::from_fn(|_| Zeroizing::default());
    for (line, prompt) in lines.iter_mut().zip(prompts) {
        *line = if terminal { prompted(prompt)? } else { piped(&mut stdin)? };
    }
    Ok(lines)
}

fn prompted(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let prompt = if prompt.is_empty() { "Password: " } else { prompt };
    let read = rpassword::prompt_password(prompt).map(Zeroizing::new);
    read.map_err(|e| Failure::cannot(format!("cannot read the password from the terminal: {e}")))
}

fn piped(stdin: &mut std::io::StdinLock<'_>) -> Result<Zeroizing<String>, Failure> {
    let mut octets = Zeroizing::new(Vec::with_capacity(256));
    let read = stdin.take(MAX_LINE).read_until(b'\n', &mut octets);
    read.map_err(|e| Failure::cannot(format!("cannot read the password from standard input: {e}")))?;
    if octets.is_empty() {
        return Err(Failure::usage("a password is missing on standard input; write one per line"));
    }
    let line = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| Failure::usage("the password is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
