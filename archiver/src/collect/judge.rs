//! What a fetched message is worth: where the report lies in it, and whether its receipt holds.
//!
//! A message whose receipt does not hold is kept and never deleted; one that is not what was announced is not even
//! kept, since the next round gets it again. Pure, but for reading the octets. What takes time is [`Measured`] where it was
//! fetched; what it is compared with is known later, under the store's lock.

use super::listing::Listed;
use crate::octets::Octets;
use postkeep_shared::{
    mail::{Digest, Hasher, MailboxId},
    receipt::{Entry, Event, Evidence, Flags, NodeKey, Trace, TraceError, parse_trace},
};
use std::{collections::HashSet, io, ops::Range};

/// Longest trace header.
const MAX_TRACE: u64 = 64 * 1024 + 512;

/// What the message is compared with.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The mailbox that was opened.
    pub mailbox: MailboxId,
    /// The node that signs on this host, where it is known.
    pub node: Option<NodeKey>,
    /// For a message that another node accepted and that was moved here: hash of the receipt it was accepted with, as the
    /// host's own ledger says.
    pub moved: Option<Digest>,
    /// The digest that XRETR named; `None` for RETR.
    pub announced: Option<Digest>,
}

/// A message that is to be stored.
#[derive(Debug)]
pub struct Judged {
    /// The report within the message.
    pub report: Range<u64>,
    /// SHA-256 of the report.
    pub sha256: Digest,
    /// What the gateway saw of the sender.
    pub evidence: Option<Evidence>,
    /// The receipt, if it holds.
    pub receipt: Option<Entry>,
    /// Why it must stay at its source.
    pub problem: Option<String>,
}

/// What a message is by itself: its digests, and whether its receipt is signed by the node that it names.
#[derive(Debug)]
pub struct Measured {
    report: Range<u64>,
    sha256: Digest,
    /// What the gateway wrote in front of the report; else why it does not begin as a gateway's message does.
    traced: Result<Traced, Option<TraceError>>,
}

#[derive(Debug)]
struct Traced {
    trace: Trace,
    /// SHA-256 of the report behind the salt.
    digest: Digest,
    signed: bool,
}

/// Not what the server announced: neither stored nor deleted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("LIST announced {announced} octets and {came} came")]
pub struct Misannounced {
    announced: u64,
    came: u64,
}

/// Measures a message from a gateway; `prefixed` when XRETR gave it, and named its digest. `signed` are the hashes of entries
/// of which the signature was checked: a receipt that is one of them, octet for octet, has that signature too.
///
/// # Errors
/// Reading `message`; the inner error when its length is not the announced one.
pub fn measure(
    message: &dyn Octets,
    listed: &Listed,
    prefixed: bool,
    signed: &HashSet<Digest>,
) -> io::Result<Result<Measured, Misannounced>> {
    let misannounced = || Misannounced { announced: listed.size(), came: message.len() };
    if !prefixed && message.len() != listed.size() {
        return Ok(Err(misannounced()));
    }
    let trace = match parse_trace(&message.view(0..message.len().min(MAX_TRACE))?) {
        Ok(trace) => trace,
        Err(error) => return Ok(Ok(Measured { traced: Err(Some(error)), ..measure_whole(message)? })),
    };
    if prefixed && (message.len() != trace.receipt.xretr_size() || listed.size() != trace.receipt.retr_size()) {
        return Ok(Err(misannounced()));
    }
    let start = trace.len as u64;
    let end = if trace.receipt.is_measured() {
        start.checked_add(trace.receipt.body.size).filter(|end| *end <= message.len())
    } else {
        // A recovered message: nobody measured it. XRETR gives it exactly, RETR always with one CRLF behind it.
        message.len().checked_sub(if prefixed { 0 } else { 2 }).filter(|end| *end >= start)
    };
    let report = start..end.unwrap_or(message.len());
    let (sha256, digest) = digests(message, report.clone(), &trace.evidence.salt)?;
    let signed = signed.contains(&trace.receipt.hash()) || trace.receipt.verify().is_ok();
    Ok(Ok(Measured { report, sha256, traced: Ok(Traced { trace, digest, signed }) }))
}

/// Measures a message from any other server: all of it is the report.
///
/// # Errors
/// Reading `message`.
pub fn measure_whole(message: &dyn Octets) -> io::Result<Measured> {
    let report = 0..message.len();
    let (sha256, _) = digests(message, report.clone(), &[])?;
    Ok(Measured { report, sha256, traced: Err(None) })
}

impl Measured {
    /// Judges the message that was measured, from a gateway.
    ///
    /// # Errors
    /// Reading `message`.
    pub fn judge(&self, message: &dyn Octets, listed: &Listed, expected: &Expected) -> io::Result<Judged> {
        let traced = match &self.traced {
            Ok(traced) => traced,
            Err(error) => return Ok(Judged { problem: error.map(no_trace), ..self.unjudged() }),
        };
        let problem = fault(message, listed, expected, traced, &self.report)?;
        let receipt = problem.is_none().then(|| traced.trace.receipt.clone());
        Ok(Judged { evidence: Some(traced.trace.evidence.clone()), receipt, problem, ..self.unjudged() })
    }

    /// The message as it is, from a server that is compared with nothing.
    #[must_use]
    pub fn unjudged(&self) -> Judged {
        Judged { report: self.report.clone(), sha256: self.sha256, evidence: None, receipt: None, problem: None }
    }
}

fn no_trace(error: TraceError) -> String {
    format!("it does not begin as a gateway's message does ({error})")
}

/// The first thing that does not fit, as the end of a sentence.
fn fault(
    message: &dyn Octets,
    listed: &Listed,
    expected: &Expected,
    traced: &Traced,
    report: &Range<u64>,
) -> io::Result<Option<String>> {
    let Traced { trace: Trace { evidence, receipt: entry, .. }, digest, signed } = traced;
    let body = &entry.body;
    let left = message.copy(report.end..message.len().min(report.end + 4))?;
    // RETR ends every message with CRLF; the receipt tells whether that is the message's own.
    let added = !body.flags.has(Flags::ENDS_WITH_CRLF) && expected.announced.is_none() && left == b"\r\n";
    let name = |uidl: &postkeep_shared::mail::Uidl| uidl.to_string().into_bytes() == listed.uidl();
    let checks: [(bool, &str); 8] = [
        (body.event == Event::Accepted, "its receipt is not for an acceptance"),
        (
            (!entry.is_measured() || report.end - report.start == body.size) && (left.is_empty() || added),
            "its length is not the receipt's",
        ),
        (name(&body.uidl) && name(&evidence.uidl), "its receipt is for a message of another name"),
        (
            body.mailbox == expected.mailbox && evidence.mailbox == expected.mailbox,
            "its receipt is for another mailbox",
        ),
        (
            expected.node.is_none_or(|node| node == entry.node) || expected.moved == Some(entry.hash()),
            "its receipt is signed by another node than before",
        ),
        (*signed, "the signature of its receipt is wrong"),
        (!entry.is_measured() || *digest == body.digest, "its content is not what the receipt was signed for"),
        (expected.announced.is_none_or(|d| d == body.digest), "the server named another digest for it"),
    ];
    Ok(checks.into_iter().find(|(good, _)| !good).map(|(_, fault)| fault.to_owned()))
}

/// SHA-256 of the range, plain and behind `salt`, in one pass.
fn digests(message: &dyn Octets, range: Range<u64>, salt: &[u8]) -> io::Result<(Digest, Digest)> {
    let (mut plain, mut salted) = (Hasher::default(), Hasher::default());
    salted.update(salt);
    let is_salted = !salt.is_empty();
    message.for_each_block(range, &mut |block| {
        plain.update(block);
        if is_salted {
            salted.update(block);
        }
        Ok(())
    })?;
    Ok((plain.finish(), salted.finish()))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{MAILBOX, adopted, listed, message, node, salted_digest};
    use super::*;
    use postkeep_shared::{mail::Uidl, receipt::write_receipt_field};

    const UIDL: Uidl = Uidl([7; 16]);

    fn expected(announced: Option<Digest>) -> Expected {
        Expected { mailbox: MAILBOX, node: Some(node()), moved: None, announced }
    }

    fn judge(octets: &[u8], size: u64, uidl: Uidl, expected: &Expected) -> Result<Judged, Misannounced> {
        let (octets, listed) = (octets.to_vec(), listed(1, size, &uidl.to_string()));
        let measured = measure(&octets, &listed, expected.announced.is_some(), &HashSet::new()).expect("reads")?;
        Ok(measured.judge(&octets, &listed, expected).expect("reads"))
    }

    #[test]
    fn good_messages_by_retr_and_xretr() {
        for content in [b"Subject: x\r\n\r\nbody\r\n".as_slice(), b"no line end", b"", b"ends in CR\r"] {
            let (xretr, entry) = message(1, UIDL, content);
            let mut retr = xretr.clone();
            if !content.ends_with(b"\r\n") {
                retr.extend_from_slice(b"\r\n");
            }
            assert_eq!(retr.len() as u64, entry.retr_size());
            for (octets, expected) in [(&retr, expected(None)), (&xretr, expected(Some(entry.body.digest)))] {
                let judged = judge(octets, entry.retr_size(), UIDL, &expected).expect("announced");
                assert_eq!(judged.problem, None, "{content:?}");
                assert_eq!(judged.receipt, Some(entry.clone()));
                let octets = octets.copy(judged.report).expect("reads");
                assert!(octets == content);
                assert_eq!(judged.sha256, Digest::of(content));
            }
        }
    }

    #[test]
    fn a_signature_that_was_checked_is_not_checked_again() {
        let content = b"Subject: x\r\n\r\nbody\r\n";
        let (octets, entry) = message(1, UIDL, content);
        let mut forged = entry.clone();
        forged.signature[0] ^= 1;
        let head = octets.len() - content.len() - write_receipt_field(&entry).len();
        let octets = [&octets[..head], write_receipt_field(&forged).as_bytes(), content].concat();
        let listed = listed(1, forged.retr_size(), &UIDL.to_string());
        let problem = |signed: &[&Entry]| {
            let signed = signed.iter().map(|entry| entry.hash()).collect();
            let measured = measure(&octets, &listed, false, &signed).expect("reads").expect("announced");
            measured.judge(&octets, &listed, &expected(None)).expect("reads").problem
        };
        assert!(problem(&[]).is_some_and(|problem| problem.contains("signature")));
        assert!(problem(&[&entry]).is_some(), "the hash is that of the signature too");
        assert_eq!(problem(&[&forged]), None);
    }

    /// RETR always ends an adopted message with a CRLF of its own: nobody knows whether it had one.
    #[test]
    fn adopted_messages_by_retr_and_xretr() {
        for content in [b"Subject: x\r\n\r\nbody\r\n".as_slice(), b"no line end", b""] {
            let (xretr, entry) = adopted(1, UIDL, content);
            let retr = [xretr.as_slice(), b"\r\n"].concat();
            assert_eq!((xretr.len() as u64, retr.len() as u64), (entry.xretr_size(), entry.retr_size()));
            for (octets, expected) in [(&retr, expected(None)), (&xretr, expected(Some(entry.body.digest)))] {
                let judged = judge(octets, entry.retr_size(), UIDL, &expected).expect("announced");
                assert_eq!(judged.problem, None, "{content:?}");
                assert_eq!(judged.receipt, Some(entry.clone()));
                assert!(octets.copy(judged.report).expect("reads") == content);
            }
        }
    }

    #[test]
    fn every_lie_is_named() {
        let content = b"Subject: x\r\n\r\nbody\r\n";
        let (octets, entry) = message(1, UIDL, content);
        let size = entry.retr_size();
        let problem = |octets: &[u8], uidl, expected: &Expected| {
            let judged = judge(octets, octets.len() as u64, uidl, expected).expect("announced");
            assert!(judged.receipt.is_none());
            judged.problem.expect("has one")
        };
        assert!(judge(&octets, size + 1, UIDL, &expected(None)).is_err());
        assert!(judge(&octets[..octets.len() - 1], size, UIDL, &expected(None)).is_err());
        let mut changed = octets.clone();
        *changed.last_mut().expect("not empty") = b'!';
        assert!(problem(&changed, UIDL, &expected(None)).contains("content is not"));
        let longer = [octets.as_slice(), b"more"].concat();
        assert!(problem(&longer, UIDL, &expected(None)).contains("length"));
        assert!(problem(&octets, Uidl([8; 16]), &expected(None)).contains("another name"));
        let other = Expected { mailbox: MailboxId([9; 16]), ..expected(None) };
        assert!(problem(&octets, UIDL, &other).contains("another mailbox"));
        let other = Expected { node: Some(NodeKey([9; 32])), ..expected(None) };
        assert!(problem(&octets, UIDL, &other).contains("another node"));
        // Moved from another node: good if, and only if, the ledger here names this very receipt.
        let moved = Expected { moved: Some(entry.hash()), ..other.clone() };
        assert_eq!(judge(&octets, size, UIDL, &moved).expect("announced").receipt, Some(entry.clone()));
        let moved = Expected { moved: Some(Digest::of(b"another receipt")), ..other };
        assert!(problem(&octets, UIDL, &moved).contains("another node"));
        let digest = salted_digest(b"other");
        assert!(problem(&octets, UIDL, &expected(Some(digest))).contains("another digest"));
        assert!(problem(b"Subject: x\r\n\r\n", UIDL, &expected(None)).contains("does not begin"));
        assert!(problem(b"", UIDL, &expected(None)).contains("does not begin"));
    }
}
