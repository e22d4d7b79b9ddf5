//! The body that all journal reports share: an envelope text, then the message itself.
//!
//! `multipart/mixed { text/plain, message/rfc822 }` (journal-formats §2.2). Only the top level is looked at: a deeper
//! message is content, and a report found inside the original was sent by anybody. Exactly one case of two messages is
//! known: the protected one with its clear copy (§2.6). What is not beyond doubt is not unwrapped.

use super::{
    Content, Decoded, Encoding, Handling, Kind, Role, Verdict,
    envelope::Envelope,
    header::Header,
    media::MediaType,
    split::{Multipart, Part, split},
    text,
};
use crate::octets::Octets;
use std::{io, ops::Range};

/// Octets of an envelope text at most: half a million recipients.
const MAX_ENVELOPE: u64 = 64 * 1024 * 1024;
/// Multiparts inside each other in which the envelope text is looked for.
const MAX_DEPTH: u32 = 3;

/// The servers whose reports differ in what may be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Exchange 2007 and later, Microsoft 365, Amazon WorkMail.
    Exchange,
    /// Exchange 2003 and Citadel: the latter's Message-ID is a number of its own, so it is not compared.
    Exchange2003,
}

impl Dialect {
    fn kind(self) -> Kind {
        match self {
            Self::Exchange => Kind::JournalReport,
            Self::Exchange2003 => Kind::JournalReportEx2003,
        }
    }
}

/// What a report turned out to be, before anybody asked who sent it.
pub(super) struct Unwrapped {
    pub kind: Kind,
    pub handling: Handling,
    pub reason: &'static str,
    pub envelope: Envelope,
    pub content: Option<Content>,
    pub alternates: Vec<(Role, Content)>,
    pub embedded_size: Option<u64>,
    /// The date of the content, where its header was read already.
    pub date: Option<i64>,
}

impl Unwrapped {
    /// The verdict, for a source that is trusted. For archive-as-is the content is the `whole` message.
    pub(super) fn verdict(self, whole: u64) -> Verdict {
        let (content, date) = match self.handling {
            Handling::Archive => (self.content, self.date),
            Handling::ArchiveAsIs => (Some(Content::Range(0..whole)), None),
            Handling::Quarantine => (None, None),
        };
        Verdict {
            kind: self.kind,
            handling: self.handling,
            reason: self.reason.to_owned(),
            warnings: self.envelope.warnings,
            sender: self.envelope.sender,
            on_behalf_of: self.envelope.on_behalf_of,
            recipients: self.envelope.recipients,
            subject: self.envelope.subject,
            message_id: self.envelope.message_id,
            content,
            alternates: self.alternates,
            embedded_size: self.embedded_size,
            date,
        }
    }

    fn new(envelope: Envelope, kind: Kind, handling: Handling, reason: &'static str) -> Self {
        let (content, alternates) = (None, Vec::new());
        Self { kind, handling, reason, envelope, content, alternates, embedded_size: None, date: None }
    }

    fn as_is(envelope: Envelope, reason: &'static str) -> Self {
        Self::new(envelope, Kind::MalformedJournal, Handling::ArchiveAsIs, reason)
    }
}

/// Takes a report apart whose header was read and which ends at `end`.
pub(super) fn unwrap(octets: &dyn Octets, header: &Header, end: u64, dialect: Dialect) -> io::Result<Unwrapped> {
    let media = header.media_type();
    let boundary = media.boundary().filter(|_| media.is_a("multipart"));
    let Some(boundary) = boundary else {
        return Ok(Unwrapped::as_is(
            Envelope::default(),
            "a report that is no multipart: envelope and original unknown",
        ));
    };
    let multipart = split(octets, header.body..end, &boundary)?;
    let (envelope, too_large) = read_envelope(octets, &multipart)?;
    if !multipart.closed && !multipart.too_many {
        let reason = "the closing delimiter is missing: nobody can say that the original is whole";
        return Ok(Unwrapped::new(envelope, Kind::MalformedJournal, Handling::Quarantine, reason));
    }
    let part_too_long = multipart.parts.iter().any(|p| p.header.too_long);
    if header.too_long || part_too_long || multipart.too_many || too_large {
        return Ok(Unwrapped::as_is(envelope, "header, number of parts or envelope beyond every report known"));
    }
    if multipart.reused {
        return Ok(Unwrapped::as_is(
            envelope,
            "the boundary is used again inside: nobody can say where the original ends",
        ));
    }
    if !envelope.is_valid() {
        return Ok(Unwrapped::as_is(envelope, "the envelope lacks a sender or every recipient"));
    }
    let embedded = embedded(octets, &multipart, &envelope)?;
    judge(header, dialect, envelope, embedded)
}

fn judge(header: &Header, dialect: Dialect, mut envelope: Envelope, found: Found) -> io::Result<Unwrapped> {
    let (message, protected) = match found {
        Found::None => return Ok(Unwrapped::as_is(envelope, "no embedded message: only the envelope can be kept")),
        Found::Ambiguous => {
            return Ok(Unwrapped::as_is(envelope, "two embedded messages that are not one and its copy"));
        }
        Found::One(message) => (message, None),
        Found::Clear { clear, protected } => (clear, Some(protected)),
    };
    if message.size == 0 {
        return Ok(Unwrapped::as_is(envelope, "the embedded message is empty"));
    }
    if dialect == Dialect::Exchange && contradict(header, &envelope, &message.header) {
        let reason = "the Message-IDs of report, envelope and original contradict each other";
        return Ok(Unwrapped::new(envelope, dialect.kind(), Handling::Quarantine, reason));
    }
    envelope.warnings.extend(message.warning.map(str::to_owned));
    let mut unwrapped = Unwrapped::new(envelope, dialect.kind(), Handling::Archive, "a well-formed report");
    if protected.is_some() {
        unwrapped.reason = "a protected message and its clear copy: the clear copy is archived";
    }
    unwrapped.alternates = protected.into_iter().map(|p| (Role::ProtectedOriginal, p.content)).collect();
    unwrapped.date = message.header.date();
    unwrapped.embedded_size = Some(message.size);
    unwrapped.content = Some(message.content);
    Ok(unwrapped)
}

/// The envelope, and whether its text is too large to be read.
fn read_envelope(octets: &dyn Octets, multipart: &Multipart) -> io::Result<(Envelope, bool)> {
    let Some((header, body)) = envelope_part(octets, multipart, MAX_DEPTH)? else {
        return Ok((Envelope::default(), false));
    };
    if body.end - body.start > MAX_ENVELOPE {
        return Ok((Envelope::default(), true));
    }
    let bytes = octets.copy(body)?;
    let bytes = match header.first("content-transfer-encoding").and_then(Encoding::of) {
        Some(encoding) => encoding.decode(&bytes),
        None => bytes,
    };
    let (text, warning) = text::decode(bytes, header.media_type().parameter("charset").as_deref());
    let mut envelope = Envelope::parse(&text);
    envelope.warnings.extend(warning);
    Ok((envelope, false))
}

/// The first `text/plain` before the first message; relays and Exchange 2003 put it beside an HTML form of it.
fn envelope_part(octets: &dyn Octets, multipart: &Multipart, depth: u32) -> io::Result<Option<(Header, Range<u64>)>> {
    for part in &multipart.parts {
        let media = part.header.media_type();
        if is_message(&media) {
            break;
        }
        if media.name == "text/plain" {
            return Ok(Some((part.header.clone(), part.body.clone())));
        }
        if let (true, true, Some(boundary)) = (depth > 0, media.is_a("multipart"), media.boundary()) {
            let inner = split(octets, part.body.clone(), &boundary)?;
            if let Some(found) = envelope_part(octets, &inner, depth - 1)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

pub(super) fn is_message(media: &MediaType) -> bool {
    matches!(media.name.as_str(), "message/rfc822" | "message/global")
}

/// A message that a part holds.
pub(super) struct Message {
    pub content: Content,
    pub header: Header,
    pub size: u64,
    warning: Option<&'static str>,
}

enum Found {
    None,
    One(Message),
    Clear { clear: Message, protected: Message },
    Ambiguous,
}

fn embedded(octets: &dyn Octets, multipart: &Multipart, envelope: &Envelope) -> io::Result<Found> {
    let mut messages: Vec<&Part> = multipart.parts.iter().filter(|p| is_message(&p.header.media_type())).collect();
    match (messages.pop(), messages.pop(), messages.is_empty()) {
        (None, ..) => retyped(octets, multipart, envelope),
        (Some(only), None, _) => Ok(Found::One(open(octets, only)?)),
        (Some(second), Some(first), true) => pair(octets, open(octets, first)?, open(octets, second)?),
        _ => Ok(Found::Ambiguous),
    }
}

/// A relay called the message something else: it is one if its Message-ID is that of the envelope.
fn retyped(octets: &dyn Octets, multipart: &Multipart, envelope: &Envelope) -> io::Result<Found> {
    let Some(wanted) = envelope.message_id.as_deref().map(bare_id).filter(|id| !id.is_empty()) else {
        return Ok(Found::None);
    };
    let mut found = Found::None;
    for part in multipart.parts.iter().filter(|p| is_eml(&p.header)) {
        let mut message = open(octets, part)?;
        if message.header.all("message-id").any(|id| bare_id(id) == wanted) {
            message.warning = Some("embedded message not labelled message/rfc822");
            found = match found {
                Found::None => Found::One(message),
                _ => Found::Ambiguous,
            };
        }
    }
    Ok(found)
}

fn is_eml(header: &Header) -> bool {
    let media = header.media_type();
    let disposition = header.first("content-disposition").map(MediaType::parse);
    let name = media.parameter("name").or_else(|| disposition.and_then(|d| d.parameter("filename")));
    let named = name.is_some_and(|n| n.to_ascii_lowercase().trim_end().ends_with(".eml"));
    named || media.is_a("message") && media.name != "message/delivery-status"
}

pub(super) fn open(octets: &dyn Octets, part: &Part) -> io::Result<Message> {
    let (range, encoding) = (part.body.clone(), part.header.first("content-transfer-encoding").and_then(Encoding::of));
    let Some(encoding) = encoding else {
        let header = Header::read(octets, range.clone())?;
        let size = range.end - range.start;
        return Ok(Message { content: Content::Range(range), header, size, warning: None });
    };
    let decoded = Decoded::new(octets, range.clone(), encoding)?;
    let header = Header::read(&decoded, 0..decoded.len())?;
    let warning = Some("encoded message/rfc822");
    Ok(Message { content: Content::Encoded { range, encoding }, header, size: decoded.len(), warning })
}

/// A protected message and its clear copy have one Message-ID; Exchange puts the protected one first.
fn pair(octets: &dyn Octets, first: Message, second: Message) -> io::Result<Found> {
    let ids = [&first, &second].map(|m| m.header.message_id().map(|id| bare_id(&id)).unwrap_or_default());
    let same = ids.iter().any(String::is_empty) || ids.first() == ids.last();
    if !same || first.size == 0 || second.size == 0 {
        return Ok(Found::Ambiguous);
    }
    Ok(match (is_protected(octets, &first)?, is_protected(octets, &second)?) {
        (true, false) => Found::Clear { clear: second, protected: first },
        (false, true) => Found::Clear { clear: first, protected: second },
        _ => Found::Ambiguous,
    })
}

/// Whether a message is rights-protected (journal-formats §2.6).
fn is_protected(octets: &dyn Octets, message: &Message) -> io::Result<bool> {
    let class = message.header.first("content-class").unwrap_or_default();
    if class.to_ascii_lowercase().starts_with("rpmsg.message") || is_rpmsg(&message.header) {
        return Ok(true);
    }
    let media = message.header.media_type();
    let Some(boundary) = media.boundary().filter(|_| media.is_a("multipart")) else { return Ok(false) };
    let content = message.content.octets(octets)?;
    let inner = split(content.as_ref(), message.header.body..message.size, &boundary)?;
    Ok(inner.parts.iter().any(|p| is_rpmsg(&p.header)))
}

fn is_rpmsg(header: &Header) -> bool {
    let media = header.media_type();
    let disposition = header.first("content-disposition").map(MediaType::parse);
    let name = media.parameter("name").or_else(|| disposition.and_then(|d| d.parameter("filename")));
    media.name == "application/x-microsoft-rpmsg-message"
        || name.is_some_and(|n| n.eq_ignore_ascii_case("message.rpmsg"))
}

/// Whether two of the Message-IDs are there and differ. Some originals have two of their own: one that fits is enough.
fn contradict(report: &Header, envelope: &Envelope, original: &Header) -> bool {
    let originals: Vec<String> = original.all("message-id").map(bare_id).filter(|id| !id.is_empty()).collect();
    let stated = [envelope.message_id.as_deref(), report.first("x-ms-exchange-parent-message-id")];
    let stated: Vec<String> = stated.into_iter().flatten().map(bare_id).filter(|id| !id.is_empty()).collect();
    let disagree = stated.first() != stated.last();
    disagree || !originals.is_empty() && stated.iter().any(|id| !originals.contains(id))
}

/// A Message-ID without brackets and blanks.
pub(super) fn bare_id(id: &str) -> String {
    let joined: String = id.split_whitespace().collect();
    let bare = joined.strip_prefix('<').and_then(|i| i.split_once('>')).map(|(id, _)| id.to_owned());
    bare.unwrap_or(joined)
}
