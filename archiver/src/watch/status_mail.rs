//! The status mail: one page with what needs attention first, then the figures; as plain text and as HTML.
//!
//! What is said is gathered once ([`page`]) and only then written in two forms, so both say the same. Addresses and subjects
//! of messages never stand in it, nor whole names of mailboxes.

use super::Found;
use postkeep_shared::{
    alarm::{Active, shortened, span_text},
    mailer::{Letter, our_name},
    run::LocalTime,
};
use serde_json::Value;
use std::time::Duration;

/// Everything on the page.
#[derive(Debug, Clone)]
pub struct Page {
    host: String,
    at_ms: u64,
    /// One line each: what a person should look at.
    pub attention: Vec<String>,
    /// Headed lists of names and values.
    pub sections: Vec<(&'static str, Vec<(String, String)>)>,
}

/// Gathers the page.
#[must_use]
pub fn page(found: &Found, active: Vec<Active>, now_ms: u64) -> Page {
    let mut attention: Vec<String> = active
        .into_iter()
        .filter(|alarm| !alarm.settling)
        .map(|alarm| {
            let lasts = span_text(Duration::from_millis(now_ms.saturating_sub(alarm.since_ms)));
            format!("{}: {}, for {lasts}. {}", capital(alarm.kind.title()), alarm.subject, alarm.detail)
        })
        .collect();
    let unowned = found.board.store.as_ref().map_or(0, |store| store.unowned);
    if unowned > 0 {
        attention.push(format!("{unowned} addresses have no owner: `owner unowned` lists them with their messages."));
    }
    if found.reconciled.is_none() {
        attention.push("Nothing was ever reconciled: run `postkeep-archiver reconcile`.".into());
    }
    let sections = vec![
        ("Mail", mail(found, now_ms)),
        ("Sources", sources(found, now_ms)),
        ("Archive", archive(found)),
        ("Machine", machine(found, now_ms)),
    ];
    Page { host: our_name(), at_ms: now_ms, attention, sections }
}

fn mail(found: &Found, now_ms: u64) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let all: Vec<&Value> = found
        .reconciled
        .iter()
        .filter_map(|all| all.get("sources")?.as_object())
        .flat_map(|sources| sources.values())
        .filter_map(|source| source.get("rows")?.as_array())
        .flatten()
        .collect();
    let sum = |key: &str| all.iter().filter_map(|row| row.get(key)?.as_u64()).sum::<u64>();
    for (name, key) in [
        ("accepted by gateways", "accepted"),
        ("collected", "collected"),
        ("filed to owners", "filed"),
        ("catch-all", "catchall"),
        ("quarantined", "quarantined"),
        ("dead letters", "dead_letters"),
        ("waiting at gateways", "waiting"),
        ("removed by others", "removed_by_others"),
        ("missing", "missing"),
    ] {
        rows.push((name.to_owned(), if all.is_empty() { "not known".to_owned() } else { grouped(sum(key)) }));
    }
    let green = found.reconciled.as_ref().and_then(|all| {
        let whole = all.get("last_green_ms").and_then(Value::as_u64);
        // Where it is kept by source only: the oldest of them.
        let sources = || all.get("sources")?.as_object()?.values().map(|s| s.get("last_green_ms")?.as_u64()).min()?;
        whole.or_else(sources)
    });
    let green = green.map_or("never".to_owned(), |at| {
        format!("{} ({} ago)", LocalTime::of(at).text(), span_text(Duration::from_millis(now_ms.saturating_sub(at))))
    });
    rows.push(("every number added up last".to_owned(), green));
    rows
}

fn sources(found: &Found, now_ms: u64) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let ago = |at: Option<u64>| {
        at.map_or("never".to_owned(), |at| {
            format!("{} ago", span_text(Duration::from_millis(now_ms.saturating_sub(at))))
        })
    };
    for source in &found.board.sources {
        let collected = grouped(source.totals.collected);
        let paused = if source.paused { ", paused" } else { "" };
        let text = format!("{collected} reports since the start, the last {}{paused}", ago(source.last_report_ms));
        rows.push((source.name.clone(), text));
        for (host, standing) in &source.hosts {
            let waiting = standing.waiting.map_or("not known".to_owned(), grouped);
            let state = standing.error.as_ref().map_or_else(
                || format!("well {}", ago(standing.last_ok_ms)),
                |error| format!("NOT WELL: {}", shortened(error)),
            );
            rows.push((format!("  {host}"), format!("{waiting} waiting, {state}")));
        }
    }
    for (name, probe) in &found.probes {
        let text = probe.latency_ms().map_or("none has come back".to_owned(), |latency| {
            format!(
                "came back in {}.{} s, {}",
                latency / 1000,
                latency % 1000 / 100,
                ago(probe.last_arrival().map(|a| a.arrived_ms))
            )
        });
        rows.push((format!("probe {name}"), text));
    }
    if rows.is_empty() {
        rows.push(("service".to_owned(), "does not run, so nothing is known of its sources".to_owned()));
    }
    rows
}

fn archive(found: &Found) -> Vec<(String, String)> {
    let Some(store) = &found.board.store else { return vec![("figures".to_owned(), "not known".to_owned())] };
    let stored = store.pack_bytes + store.record_bytes;
    let percent = if store.bytes_in == 0 { 0.0 } else { stored as f64 / store.bytes_in as f64 * 100.0 };
    vec![
        ("reports".to_owned(), grouped(store.reports)),
        ("messages".to_owned(), grouped(store.messages)),
        ("collected".to_owned(), octets(store.bytes_in)),
        ("on disk".to_owned(), format!("{} ({percent:.0} % of it)", octets(stored))),
        ("dead letters now".to_owned(), grouped(store.dead_letters)),
        ("in quarantine now".to_owned(), grouped(store.quarantined)),
    ]
}

fn machine(found: &Found, now_ms: u64) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Some((place, space)) = &found.space {
        let percent = (space.free.saturating_mul(100)).checked_div(space.total).unwrap_or_default();
        let text = format!("{} of {} free ({percent} %)", octets(space.free), octets(space.total));
        rows.push((format!("disk {place}"), text));
    }
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    for (host, (_, end)) in &found.certificates {
        rows.push((format!("certificate {host}"), format!("{} days left", (end - now).div_euclid(86_400))));
    }
    rows
}

impl Page {
    fn headline(&self) -> String {
        match self.attention.len() {
            0 => "All is well".to_owned(),
            1 => "1 thing needs attention".to_owned(),
            count => format!("{count} things need attention"),
        }
    }

    /// The page in plain text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}\n\nPostkeep archiver on {}, {}\n",
            self.headline(),
            self.host,
            LocalTime::of(self.at_ms).text()
        );
        if !self.attention.is_empty() {
            out.push('\n');
        }
        for line in &self.attention {
            out += &format!("! {line}\n");
        }
        for (title, rows) in &self.sections {
            out += &format!("\n{title}\n{}\n", "-".repeat(title.len()));
            let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
            for (name, value) in rows {
                out += &format!("{name:width$}  {value}\n");
            }
        }
        out
    }

    /// The page in HTML: no script, no picture, nothing from anywhere else.
    #[must_use]
    pub fn html(&self) -> String {
        let (good, color) = if self.attention.is_empty() { ("#e6f4ea", "#137333") } else { ("#fce8e6", "#a50e0e") };
        let mut out = format!(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>Postkeep status</title></head><body style=\"margin:0;padding:24px 12px;\
             background:#f4f5f7;font:15px/1.5 -apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;color:#202124\">\
             <div style=\"max-width:640px;margin:0 auto;background:#fff;border:1px solid #dadce0;border-radius:8px;\
             overflow:hidden\"><div style=\"padding:20px 24px;background:{good};color:{color}\">\
             <div style=\"font-size:22px;font-weight:600\">{}</div><div style=\"font-size:13px;color:#5f6368\">Postkeep \
             archiver on {}, {}</div></div>",
            escaped(&self.headline()),
            escaped(&self.host),
            escaped(&LocalTime::of(self.at_ms).text())
        );
        if !self.attention.is_empty() {
            out += "<ul style=\"margin:0;padding:16px 24px 4px 44px\">";
            for line in &self.attention {
                out += &format!("<li style=\"margin-bottom:8px\">{}</li>", escaped(line));
            }
            out += "</ul>";
        }
        for (title, rows) in &self.sections {
            out += &format!(
                "<div style=\"padding:12px 24px\"><div style=\"font-size:12px;font-weight:600;letter-spacing:.06em;\
                 text-transform:uppercase;color:#5f6368;border-bottom:1px solid #dadce0;padding-bottom:4px\">{}</div>\
                 <table role=\"presentation\" style=\"width:100%;border-collapse:collapse\">",
                escaped(title)
            );
            for (name, value) in rows {
                let indent = if name.starts_with(' ') { "padding-left:16px;" } else { "" };
                out += &format!(
                    "<tr><td style=\"padding:4px 12px 4px 0;{indent}color:#5f6368;vertical-align:top\">{}</td>\
                     <td style=\"padding:4px 0;text-align:right\">{}</td></tr>",
                    escaped(name.trim()),
                    escaped(value)
                );
            }
            out += "</table></div>";
        }
        out += "<div style=\"padding:12px 24px 20px;font-size:12px;color:#5f6368\">Written by postkeep-archiver; \
                <code>status-mail --print</code> shows it at any time.</div></div></body></html>\n";
        out
    }

    /// As it is mailed.
    #[must_use]
    pub fn letter(&self) -> Letter {
        Letter {
            subject: format!("[status] {}: Postkeep on {}", self.headline(), self.host),
            text: self.text(),
            html: Some(self.html()),
            written: i64::try_from(self.at_ms / 1000).unwrap_or_default(),
            replaces: Some("status".into()),
            ..Letter::default()
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12.3 GiB`.
fn octets(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = number as f64;
    if number < 1024 {
        return format!("{number} octets");
    }
    let mut unit = "octets";
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::{HostStanding, SourceStanding};
    use postkeep_shared::{alarm::Kind, disk::Space};

    #[test]
    fn both_forms_say_the_same_and_attention_comes_first() {
        let mut found = Found::default();
        let mut source = SourceStanding { name: "m365".into(), ..SourceStanding::default() };
        let host =
            HostStanding { error: Some("<refused> & gone".into()), waiting: Some(1234), ..HostStanding::default() };
        source.hosts.insert("msgw1.example:995".into(), host);
        found.board.sources.push(source);
        found.space = Some(("data".into(), Space { free: 5 << 30, total: 10 << 30, free_inodes: 5, read_only: false }));
        let rows = r#"{"last_green_ms":1790553600000,"sources":{"m365":{"rows":[{"accepted":1000,"missing":2},{"accepted":234}]}}}"#;
        found.reconciled = serde_json::from_str(rows).ok();
        let alarm = Active {
            kind: Kind::Gap,
            subject: "m365".into(),
            detail: "2 are missing.".into(),
            since_ms: 1_790_553_600_000,
            told_ms: None,
            settling: false,
        };
        let page = page(&found, vec![alarm], 1_790_560_800_000);
        let (text, html) = (page.text(), page.html());
        for wanted in [
            "1 thing needs attention",
            "Numbers do not add up: m365, for 2 h 0 min",
            "1,234",
            "5.0 GiB of 10.0 GiB free (50 %)",
        ] {
            assert!(text.contains(wanted) && html.contains(wanted), "{wanted}\n{text}");
        }
        assert!(text.contains("<refused> & gone") && html.contains("&lt;refused&gt; &amp; gone"));
        assert!(text.find("! Numbers") < text.find("accepted by gateways"));
        assert!(text.lines().count() < 60, "one page");
        let letter = page.letter();
        assert!(letter.subject.starts_with("[status] 1 thing needs attention") && letter.html.is_some());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([grouped(0), grouped(999), grouped(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([octets(5), octets(1 << 20), octets(13_207_024_435)], ["5 octets", "1.0 MiB", "12.3 GiB"]);
    }
}
