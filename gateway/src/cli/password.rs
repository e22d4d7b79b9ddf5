//! Passwords come from standard input or, at a terminal, from a prompt without echo; never from the command line.

use postkeep_shared::{
    crypt::{Password, PasswordError},
    run::{Failure, secret_lines as lines},
};
use std::io::IsTerminal as _;

/// Asks for an existing password.
///
/// # Errors
/// [`Failure`] when there is no line.
pub(super) fn ask(prompt: &str) -> Result<Password, Failure> {
    let [line] = lines([prompt])?;
    Ok(Password::received(line.as_bytes()))
}

/// Asks for a new password; twice at a terminal.
///
/// # Errors
/// [`Failure`] when it is too short.
pub(super) fn chosen() -> Result<Password, Failure> {
    if std::io::stdin().is_terminal() {
        let [line, again] = lines(["New password: ", "Again: "])?;
        return twice(&line, &again);
    }
    let [line] = lines([""])?;
    checked(&line)
}

/// The old password and the new one: two lines on standard input, or prompts at a terminal (the new one twice).
///
/// # Errors
/// [`Failure`] when a line is missing or the new password is too short.
pub(super) fn old_and_new(stdin: bool) -> Result<(Password, Password), Failure> {
    let (old, new) = if !stdin && std::io::stdin().is_terminal() {
        let [old, new, again] = lines(["Old password: ", "New password: ", "New password again: "])?;
        (old, twice(&new, &again)?)
    } else {
        let [old, new] = lines(["", ""])?;
        (old, checked(&new)?)
    };
    Ok((Password::received(old.as_bytes()), new))
}

fn twice(one: &str, two: &str) -> Result<Password, Failure> {
    if one != two {
        return Err(Failure::usage("the two new passwords differ; try again"));
    }
    checked(one)
}

fn checked(line: &str) -> Result<Password, Failure> {
    Password::chosen(line).map_err(|e: PasswordError| Failure::usage(e))
}
