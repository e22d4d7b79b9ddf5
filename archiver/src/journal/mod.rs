//! What a message that was collected is, and what of it is archived for whom.
//!
//! Every dialect has its own file; only the profile of a source decides whether
//! a report is unwrapped at all, never the content alone, and one level only: a report inside the original is content.
//! Messages are read in blocks; only header blocks (1 MiB each) and the envelope text (64 MiB) are copied.
//! Nothing here touches a file, a clock or a socket, and nothing is ever dropped: what cannot be understood is archived
//! as it is or held.

mod address;
mod bounce;
mod content;
mod copy;
mod envelope;
mod exchange;
mod header;
mod media;
mod report;
mod split;
mod text;
mod transfer;
mod verdict;
mod zimbra;

pub use content::Content;
pub use transfer::{Decoded, Decoder, Encoding};
pub use verdict::{Handling, Kind, Recipient, RecipientKind, Role, Verdict};

use crate::octets::Octets;
use header::Header;
use std::io;

/// How messages of a source are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Journal reports, unwrapped.
    #[default]
    Journal,
    /// Copies of messages; recipients from the headers that a trusted mail server added, then from the message.
    Multidrop,
    /// Messages of one owner.
    Single,
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "journal" => Ok(Self::Journal),
            "multidrop" => Ok(Self::Multidrop),
            "single" => Ok(Self::Single),
            _ => Err(format!("`{text}` is not a profile; use journal, multidrop or single")),
        }
    }
}

/// What is known about a message besides its octets.
#[derive(Debug, Clone)]
pub struct Context {
    /// The profile of its source.
    pub profile: Profile,
    /// Whether the evidence fits the source's rules.
    pub trusted: bool,
    /// The envelope recipients the gateway saw: addresses of the journal, never owners.
    pub rcpt: Vec<String>,
    /// Further addresses that name the archive, not a person.
    pub ignore: Vec<String>,
    /// The mail server whose added headers count; without it the host of the topmost `Received … by`.
    pub trusted_host: Option<String>,
    /// Headers that name envelope recipients, lower case, in order; empty for the usual ones.
    pub envelope_headers: Vec<String>,
}

impl Default for Context {
    /// A trusted journal source.
    fn default() -> Self {
        Self {
            profile: Profile::Journal,
            trusted: true,
            rcpt: Vec::new(),
            ignore: Vec::new(),
            trusted_host: None,
            envelope_headers: Vec::new(),
        }
    }
}

/// Says what `message` (as it was sent, without trace header) is and what is to be archived for whom.
///
/// # Errors
/// Only what reading the octets gives; no content is an error.
pub fn examine(message: &dyn Octets, context: &Context) -> io::Result<Verdict> {
    let header = Header::read(message, 0..message.len())?;
    let mut verdict = match context.profile {
        Profile::Journal => examine_journal(message, &header, context)?,
        Profile::Multidrop | Profile::Single => copy::examine(message, &header, context),
    };
    if header.fields().is_empty() {
        // Not one field: whatever it is, nobody sent it as a mail.
        verdict.reason = "it has no header field: this is no message".to_owned();
        hold(&mut verdict);
    }
    if !context.trusted {
        verdict.reason = format!("the source is not authenticated ({})", verdict.reason);
        hold(&mut verdict);
    }
    match &verdict.content {
        Some(content) if verdict.date.is_none() => {
            let octets = content.octets(message)?;
            verdict.date = Header::read(&*octets, 0..octets.len())?.date();
        }
        Some(_) => {}
        None => verdict.date = None,
    }
    Ok(verdict)
}

fn hold(verdict: &mut Verdict) {
    verdict.handling = Handling::Quarantine;
    verdict.content = None;
    verdict.alternates.clear();
    verdict.embedded_size = None;
}

/// Name (lower case) and value of the fields of the outermost header that have one of these names.
///
/// # Errors
/// Only what reading the octets gives.
pub fn outer_fields(message: &dyn Octets, names: &[&str]) -> io::Result<Vec<(String, String)>> {
    let header = Header::read(message, 0..message.len())?;
    let wanted = header.fields().iter().filter(|field| names.contains(&field.name.as_str()));
    Ok(wanted.map(|field| (field.name.clone(), field.value.clone())).collect())
}

fn examine_journal(message: &dyn Octets, header: &Header, context: &Context) -> io::Result<Verdict> {
    if let Some(dialect) = exchange::dialect(header) {
        let mut verdict = report::unwrap(message, header, message.len(), dialect)?.verdict(message.len());
        if exchange::is_marked_twice(header) {
            verdict.reason = "the header that marks a report is there twice".to_owned();
            hold(&mut verdict);
        }
        return Ok(verdict);
    }
    if let Some(verdict) = bounce::examine(message, header)? {
        return Ok(verdict);
    }
    Ok(match zimbra::examine(message, header)? {
        Some(verdict) => verdict,
        None => copy::examine(message, header, context),
    })
}
