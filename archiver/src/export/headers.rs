//! The header fields that MailStore puts before the messages it exports, for programs that read them.
//!
//! Only what is known of them is written: `X-MailStore-Folder-UTF7` (archive and folder) and `X-MailStore-Date`
//! (when it was archived). See `import::mailstore` for what is read.

use super::utf7::encode;
use crate::store::Listed;

/// The lines, with their line ends; the message follows without an empty line between.
#[must_use]
pub fn header(owner: &str, listed: &Listed) -> String {
    let place = encode(&format!("{owner}/{}", listed.folder));
    format!("X-MailStore-Folder-UTF7: {place}\r\nX-MailStore-Date: {}\r\n", listed.archived_at)
}
