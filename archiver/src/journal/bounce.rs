//! Delivery failure notices that return a report to the alternate journaling mailbox (journal-formats §2.8, RFC 6522).
//!
//! The one exception to "one level only": the notice comes from the authenticated source itself. Notices about anything
//! else are ordinary messages.

use super::{
    Content, Handling, Kind, Verdict,
    envelope::Envelope,
    exchange,
    header::Header,
    report::{self, Dialect, Unwrapped},
    split::split,
};
use crate::octets::Octets;
use std::io;

/// What a notice returns.
enum Returned {
    Report { header: Header, end: u64, dialect: Dialect },
    HeadersOnly,
    Encoded,
}

/// The verdict on a notice that returns a report; `None` for any other message.
pub(super) fn examine(octets: &dyn Octets, header: &Header) -> io::Result<Option<Verdict>> {
    let media = header.media_type();
    let Some(boundary) = media.boundary().filter(|_| media.name == "multipart/report") else { return Ok(None) };
    let multipart = split(octets, header.body..octets.len(), &boundary)?;
    let mut returned = None;
    for part in &multipart.parts {
        let media = part.header.media_type();
        if matches!(media.name.as_str(), "text/rfc822-headers" | "message/global-headers") {
            let inner = Header::read(octets, part.body.clone())?;
            returned = exchange::dialect(&inner).map(|_| Returned::HeadersOnly);
        } else if report::is_message(&media) {
            let message = report::open(octets, part)?;
            let dialect = exchange::dialect(&message.header);
            returned = dialect.map(|dialect| match message.content {
                Content::Encoded { .. } => Returned::Encoded,
                Content::Range(range) if message.header.body >= range.end => Returned::HeadersOnly,
                Content::Range(range) => Returned::Report { header: message.header, end: range.end, dialect },
            });
        }
        if returned.is_some() {
            break;
        }
    }
    let as_is = |reason| Unwrapped::empty(Handling::ArchiveAsIs, reason);
    let mut unwrapped = match returned {
        None => return Ok(None),
        Some(Returned::HeadersOnly) => as_is("the notice returns only the header of a report: its content is lost"),
        Some(Returned::Encoded) => as_is("the notice returns a report with an encoding that reports never have"),
        Some(Returned::Report { header, end, dialect }) => report::unwrap(octets, &header, end, dialect)?,
    };
    if unwrapped.handling == Handling::Archive {
        unwrapped.reason = "a delivery failure notice that returns a whole report";
    }
    unwrapped.kind = Kind::NdrOfJournalReport;
    Ok(Some(unwrapped.verdict(octets.len())))
}

impl Unwrapped {
    fn empty(handling: Handling, reason: &'static str) -> Self {
        let (envelope, content, alternates) = (Envelope::default(), None, Vec::new());
        let kind = Kind::NdrOfJournalReport;
        Self { kind, handling, reason, envelope, content, alternates, embedded_size: None, date: None }
    }
}
