//! `envelope`.

use super::{
    EnvelopeArgs,
    store::{open_reader, printable, stdout_failed},
};
use postkeep_shared::run::{Exit, Failure};
use serde_json::Value;
use std::{
    io::{self, Write as _},
    path::Path,
};

/// Shows every report that a message came with: one JSON document (an array), or a few lines each.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &EnvelopeArgs) -> Result<Exit, Failure> {
    let envelopes = open_reader(config)?.envelopes(&args.id)?;
    let mut out = io::stdout().lock();
    let written = if args.json {
        writeln!(out, "{}", Value::Array(envelopes))
    } else {
        envelopes.iter().try_for_each(|envelope| out.write_all(text(envelope).as_bytes()))
    };
    written.map_err(stdout_failed)?;
    Ok(Exit::Done)
}

fn text(envelope: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        other => printable(&other.to_string()),
    };
    let mut out = String::new();
    for (name, key) in [
        ("report", "uidl"),
        ("source", "source"),
        ("host", "host"),
        ("mailbox", "mailbox"),
        ("collected", "collected_at"),
        ("kind", "kind"),
        ("sender", "sender"),
        ("on behalf of", "on_behalf_of"),
        ("subject", "subject"),
        ("message id", "message_id"),
        ("report sha256", "report_sha256"),
    ] {
        out.push_str(&format!("{name:<14} {}\n", word(&envelope[key])));
    }
    for recipient in envelope["recipients"].as_array().into_iter().flatten() {
        out.push_str(&format!("{:<14} {} ({})", "recipient", word(&recipient["address"]), word(&recipient["type"])));
        for (label, key) in [("expanded from", "expanded_from"), ("forwarded from", "forwarded_from")] {
            if !recipient[key].is_null() {
                out.push_str(&format!(", {label} {}", word(&recipient[key])));
            }
        }
        out.push('\n');
    }
    for instance in envelope["instances"].as_array().into_iter().flatten() {
        out.push_str(&format!("{:<14} {} / {}", "filed", word(&instance["owner"]), word(&instance["folder"])));
        for reason in instance["because"].as_array().into_iter().flatten() {
            let [part, address, rule] = ["part", "address", "rule"].map(|key| word(&reason[key]));
            out.push_str(&format!(", {part} {address} (rule {rule})"));
        }
        if instance["filed_by"] != "collection" {
            out.push_str(&format!(", {} on {}", word(&instance["filed_by"]), word(&instance["filed_at"])));
        }
        out.push('\n');
    }
    for address in envelope["unowned"].as_array().into_iter().flatten() {
        out.push_str(&format!("{:<14} {}\n", "without owner", word(address)));
    }
    let receipt = &envelope["receipt"];
    if !receipt.is_null() {
        let signature = if receipt["signature"] == true { "signature valid" } else { "SIGNATURE WRONG" };
        let (node, seq, time) = (word(&receipt["node"]), word(&receipt["seq"]), word(&receipt["time"]));
        out.push_str(&format!("{:<14} node {node} seq {seq} at {time}, {signature}\n", "receipt"));
    }
    let seen = &envelope["evidence"];
    if !seen.is_null() {
        let (ip, helo, from) = (word(&seen["ip"]), word(&seen["helo"]), word(&seen["mail_from"]));
        out.push_str(&format!(
            "{:<14} {ip} ({helo}), MAIL FROM <{from}>, TLS {}, {}\n",
            "seen",
            word(&seen["tls"]),
            verified(&seen["verified"])
        ));
    }
    out.push('\n');
    out
}

fn verified(value: &Value) -> &'static str {
    match value {
        Value::Bool(true) => "fits the source rules",
        Value::Bool(false) => "does NOT fit the source rules",
        _ => "no source rules",
    }
}
