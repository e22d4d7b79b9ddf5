//! What a source's message is: the journal's reading with the source's settings, and the evidence compared.

use crate::{
    config::Source,
    evidence::TENANT_FIELDS,
    journal::{self, Context, Verdict},
    octets::Octets,
};
use postkeep_shared::receipt::Evidence;
use std::io;

/// Reads a message that came from `source`. `problem` is what is odd about the way it came.
///
/// # Errors
/// Only what reading the octets gives.
pub fn examine(
    source: &Source,
    raw: &dyn Octets,
    evidence: Option<&Evidence>,
    problem: Option<&str>,
) -> io::Result<Verdict> {
    let doubt = match problem {
        Some(problem) => Some(problem.to_owned()),
        None => doubt(source, raw, evidence)?,
    };
    let rcpt = evidence.map(|evidence| evidence.rcpt_to.clone());
    let context = Context { trusted: doubt.is_none(), ..context(source, rcpt) };
    let mut verdict = journal::examine(raw, &context)?;
    if let Some(doubt) = doubt {
        verdict.reason = format!("the source is not authenticated: {doubt}");
    }
    Ok(verdict)
}

/// How messages of a source are read, where nobody doubts that they are its own.
#[must_use]
pub fn context(source: &Source, rcpt: Option<String>) -> Context {
    let mailbox = Some(source.mailbox.clone()).filter(|mailbox| mailbox.contains('@'));
    Context {
        profile: source.profile,
        trusted: true,
        rcpt: rcpt.into_iter().collect(),
        ignore: mailbox.into_iter().chain(source.reading.ignore_addresses.iter().cloned()).collect(),
        trusted_host: source.reading.trusted_host.clone(),
        envelope_headers: source.reading.envelope_headers.clone(),
    }
}

/// Why the message may not be from whom its source says.
fn doubt(source: &Source, raw: &dyn Octets, evidence: Option<&Evidence>) -> io::Result<Option<String>> {
    if let Some(seen) = evidence.filter(|evidence| evidence.verified == Some(false)) {
        return Ok(Some(format!(
            "the gateway's source rules did not fit client {} with MAIL FROM <{}>",
            seen.ip, seen.mail_from
        )));
    }
    let rules = &source.reading.evidence;
    let fields = if rules.tenants.is_empty() { Vec::new() } else { journal::outer_fields(raw, &TENANT_FIELDS)? };
    Ok(rules.fault(evidence, &fields))
}
