//! Writes a pin into the text of a configuration file and leaves every other octet as it is.
//!
//! Invariants: what comes out reads back as what was meant, and differs from what went in by `tls` of one source only;
//! otherwise nothing comes out. What it does not do: touch files, or take a table `[source.tls]` apart (it says so).

use postkeep_shared::mail::Digest;
use serde::Deserialize;
use toml::{Spanned, Table, Value};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    source: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    name: Spanned<String>,
    tls: Option<Spanned<Value>>,
}

/// `text` with `tls = { verify = "pin", … }` in the source of this name.
///
/// # Errors
/// A sentence that says what to write by hand.
pub fn with_pins(text: &str, source: &str, pins: &[Digest]) -> Result<String, String> {
    let listed: Vec<String> = pins.iter().map(|pin| format!("\"{pin}\"")).collect();
    let value = format!("{{ verify = \"pin\", pin_sha256 = [{}] }}", listed.join(", "));
    let by_hand = || format!("write this into its table by hand: tls = {value}");
    let document: Document = toml::from_str(text).map_err(|_| by_hand())?;
    let mut found = document.source.iter().filter(|s| s.name.get_ref() == source);
    let (Some(entry), None) = (found.next(), found.next()) else { return Err(by_hand()) };
    let (from, to, new) = match &entry.tls {
        Some(tls) => {
            let span = tls.span();
            if !text.get(span.clone()).is_some_and(|old| old.starts_with('{')) {
                return Err(by_hand());
            }
            (span.start, span.end, value.clone())
        }
        None => {
            let name = entry.name.span().end;
            let rest = text.get(name..).ok_or_else(by_hand)?;
            let end = name + rest.find('\n').unwrap_or(rest.len());
            let end = if text.get(..end).is_some_and(|t| t.ends_with('\r')) { end - 1 } else { end };
            let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
            (end, end, format!("{line_end}tls = {value}"))
        }
    };
    let (before, after) = (text.get(..from).ok_or_else(by_hand)?, text.get(to..).ok_or_else(by_hand)?);
    let edited = format!("{before}{new}{after}");
    if meant(text, &edited, source, &value) { Ok(edited) } else { Err(by_hand()) }
}

/// Whether both texts say the same but for this source's `tls`, which says `value`.
fn meant(old: &str, new: &str, source: &str, value: &str) -> bool {
    let wanted: Option<Value> =
        toml::from_str::<Table>(&format!("tls = {value}")).ok().and_then(|mut t| t.remove("tls"));
    let without = |text: &str| -> Option<(Table, Option<Value>)> {
        let mut document: Table = toml::from_str(text).ok()?;
        let sources = document.get_mut("source")?.as_array_mut()?;
        let table = sources.iter_mut().find(|s| s.get("name").and_then(Value::as_str) == Some(source))?;
        let tls = table.as_table_mut()?.remove("tls");
        Some((document, tls))
    };
    match (without(old), without(new)) {
        (Some((old, _)), Some((new, tls))) => old == new && tls.is_some() && tls == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str =
        "{ verify = \"pin\", pin_sha256 = [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"] }";

    fn edit(text: &str, source: &str) -> Result<String, String> {
        with_pins(text, source, &[Digest::from_hex(&"a".repeat(64)).expect("digest")])
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        let text = "# head\r\ndata_dir = 'd' # where\r\n\r\n[[source]]\r\nname = \"a\"   # first\r\ntls   =   { verify = \
                    \"system\" }  # kept\r\n[[source]] # second\r\nname = 'b'\r\nhosts = [\r\n 'x:995', # one\r\n]\r\n";
        let one = edit(text, "a").expect("edited");
        assert_eq!(one, text.replace("{ verify = \"system\" }", PIN));
        let two = edit(text, "b").expect("edited");
        assert_eq!(two, text.replace("name = 'b'", &format!("name = 'b'\r\ntls = {PIN}")));
        assert_eq!(edit(&one, "a").expect("edited"), one);
        assert_eq!(
            edit("[[source]]\nname = 'a'", "a").expect("edited"),
            format!("[[source]]\nname = 'a'\ntls = {PIN}")
        );
        let comment = "[[source]]\nname = 'a' # tls = { x }\n#tls = { verify = 'ca' }\n";
        assert!(edit(comment, "a").expect("edited").ends_with("\n#tls = { verify = 'ca' }\n"));
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        for text in [
            "[[source]]\nname = 'a'\n[source.tls]\nverify = 'system'\n",
            "[[source]]\nname = 'a'\ntls.verify = 'system'\n",
            "[[source]]\nname = 'b'\n",
            "source = [{ name = 'a' }]\n",
            "[[source]\nname = 'a'\n",
        ] {
            let said = edit(text, "a").expect_err(text);
            assert!(said.ends_with(&format!("by hand: tls = {PIN}")), "{said}");
        }
    }
}
