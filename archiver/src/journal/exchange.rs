//! Reports of Exchange 2007 and later, of Microsoft 365 and of servers that took over the form; and those of 2003.
//!
//! Known by one header field of the outermost message (journal-formats §1.2, §3).

use super::{header::Header, report::Dialect};

const MARKERS: [&str; 3] = ["x-ms-journal-report", "x-ms-exchange-organization-journal-report", "x-wm-journal-report"];

/// Whether a marker stands there twice: a server writes it once, so somebody else wrote the other.
pub(super) fn is_marked_twice(header: &Header) -> bool {
    MARKERS.into_iter().any(|marker| header.all(marker).count() > 1)
}

/// Which report this is the header of, if any. Field values do not matter for Exchange 2007: real ones are empty.
pub(super) fn dialect(header: &Header) -> Option<Dialect> {
    // The second name is the first inside the organisation; the third is Amazon's.
    if header.fields().iter().any(|field| MARKERS.contains(&field.name.as_str())) {
        return Some(Dialect::Exchange);
    }
    // "Content-Identifer" is how Exchange 2003 spells it.
    let older = ["content-identifer", "content-identifier"];
    let mut values = older.into_iter().flat_map(|name| header.all(name));
    values.any(|value| value.eq_ignore_ascii_case("exjournalreport")).then_some(Dialect::Exchange2003)
}
