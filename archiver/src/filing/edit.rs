//! Changes to the text of an owners file that leave everything else in it as it stands: comments, order, spelling.
//!
//! Every change is checked by reading the new text again. Where a file is written in a way that cannot be changed in
//! place (owners as inline tables), it is written anew as a whole.

use super::{
    Owner, Owners,
    owners::{quoted, quoted_list},
};
use std::{collections::HashMap, ops::Range};
use toml::{Spanned, de::DeTable, de::DeValue};

/// The text of an owners file that says what `after` says, changed as little as can be.
#[must_use]
pub fn edited(text: &str, after: &Owners) -> String {
    let mark = '\u{feff}';
    let plain = text.strip_prefix(mark).unwrap_or(text);
    let changed = in_place(plain, after).filter(|new| Owners::parse(new).is_ok_and(|o| o.all() == after.all()));
    match changed {
        Some(new) if plain.len() < text.len() => format!("{mark}{new}"),
        Some(new) => new,
        None => after.to_toml(),
    }
}

/// A place in the text and what is to stand there.
type Splice = (Range<usize>, String);

fn in_place(text: &str, after: &Owners) -> Option<String> {
    let before = Owners::parse(text).ok()?;
    let document = DeTable::parse(text).ok()?;
    let tables = match document.get_ref().get("owner") {
        Some(value) => value.get_ref().as_array()?.iter().map(|v| v.get_ref().as_table()).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    let wanted: HashMap<String, &Owner> = after.all().iter().map(|o| (o.name.to_lowercase(), o)).collect();
    let mut splices = Vec::new();
    for (table, owner) in tables.into_iter().zip(before.all()) {
        match wanted.get(&owner.name.to_lowercase()) {
            None => splices.push((whole(text, table)?, String::new())),
            Some(new) => splices.extend(changes(text, table, owner, new)?),
        }
    }
    splices.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = String::new();
    let mut at = 0;
    for (range, new) in splices {
        out += text.get(at..range.start)?;
        out += &new;
        at = range.end;
    }
    out += text.get(at..)?;
    let known = |owner: &&Owner| before.named(&owner.name).is_none();
    for owner in after.all().iter().filter(known) {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out += &owner.to_toml();
    }
    Some(out)
}

/// The lines of a table, from its header to its last value, and one empty line behind.
fn whole(text: &str, table: &DeTable<'_>) -> Option<Range<usize>> {
    let first = table.keys().map(|key| key.span().start).min()?;
    let last = table.values().map(|value| value.span().end).max()?;
    let is_header = |line: &str| line.trim_start().starts_with("[[");
    let mut start = None;
    let mut at = 0;
    for line in text.get(..first)?.split_inclusive('\n') {
        if is_header(line) {
            start = Some(at);
        }
        at += line.len();
    }
    let mut end = line_end(text, last);
    if text.get(end..)?.starts_with('\n') {
        end += 1;
    }
    Some(start?..end)
}

/// Behind the line feed of the line in which `at` lies.
fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.find('\n').map_or(text.len(), |lf| at + lf + 1)
}

fn changes(text: &str, table: &DeTable<'_>, old: &Owner, new: &Owner) -> Option<Vec<Splice>> {
    let mut splices = Vec::new();
    let mut lines = String::new();
    if old.full_name != new.full_name {
        let value = quoted(new.full_name.as_deref()?);
        match table.get("full_name") {
            Some(there) => splices.push((there.span(), value)),
            None => lines += &format!("full_name = {value}\n"),
        }
    }
    let lists = [
        ("addresses", &old.addresses, &new.addresses),
        ("aliases", &old.aliases, &new.aliases),
        ("x500", &old.x500, &new.x500),
    ];
    for (key, old, new) in lists.into_iter().filter(|(_, old, new)| old != new) {
        match table.get(key) {
            Some(there) => splices.push(list(there, old, new)?),
            None => lines += &format!("{key} = {}\n", quoted_list(new)),
        }
    }
    if !lines.is_empty() {
        let end = line_end(text, table.values().map(|value| value.span().end).max()?);
        let separate = if text.get(..end)?.ends_with('\n') { "" } else { "\n" };
        splices.push((end..end, format!("{separate}{lines}")));
    }
    Some(splices)
}

/// More entries go behind the last; otherwise the list is written anew.
fn list(there: &Spanned<DeValue<'_>>, old: &[String], new: &[String]) -> Option<Splice> {
    let items = there.get_ref().as_array()?;
    match (items.iter().last(), new.strip_prefix(old)) {
        // Entries that say the same twice are not in `old`.
        (Some(last), Some(more)) if items.len() == old.len() => {
            let end = last.span().end;
            Some((end..end, more.iter().map(|text| format!(", {}", quoted(text))).collect()))
        }
        _ => Some((there.span(), quoted_list(new))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Our people.\n\n[[owner]]   # first\nname = 'ann' # the boss\naddresses = [\n  'ann@a.example', # main\n  \"a@a.example\",\n]\n\n\
        # Bob left in May.\n[[owner]]\naddresses = []\nname = \"bob\"\n";

    fn change(text: &str, change: impl FnOnce(&mut Owners)) -> String {
        let mut after = Owners::parse(text).expect("valid");
        change(&mut after);
        let new = edited(text, &after);
        assert_eq!(Owners::parse(&new).expect("still valid").all(), after.all(), "{new}");
        new
    }

    #[test]
    fn nothing_else_changes() {
        assert_eq!(change(FILE, |_| {}), FILE);
        let marked = format!("\u{feff}{FILE}");
        assert_eq!(change(&marked, |_| {}), marked);
        let added = change(FILE, |o| o.add(Owner::new("ann", ["b@a.example"])).expect("valid"));
        assert_eq!(added, FILE.replace("\"a@a.example\",", "\"a@a.example\", \"b@a.example\","));
        let named = Owner { full_name: Some("Bob".into()), aliases: vec!["x@a".into()], ..Owner::new("bob", ["y@a"]) };
        let named = change(FILE, |o| o.add(named).expect("valid"));
        let wanted =
            FILE.replace("addresses = []", "addresses = [\"y@a\"]") + "full_name = \"Bob\"\naliases = [\"x@a\"]\n";
        assert_eq!(named, wanted);
        let fresh = change(FILE, |o| o.add(Owner::new("carl", ["c@a"])).expect("valid"));
        assert_eq!(fresh, format!("{FILE}\n[[owner]]\nname = \"carl\"\naddresses = [\"c@a\"]\n"));
    }

    #[test]
    fn what_is_removed_leaves_the_rest() {
        let fewer = change(FILE, |o| o.remove_addresses("ann", &["ANN@a.example".into()]).expect("has it"));
        let list = "[\n  'ann@a.example', # main\n  \"a@a.example\",\n]";
        assert_eq!(fewer, FILE.replace(list, "[\"a@a.example\"]"));
        let without_bob = change(FILE, |o| drop(o.remove("bob").expect("is there")));
        assert_eq!(without_bob, FILE.split("[[owner]]\naddr").next().expect("there"));
        let without_ann = change(FILE, |o| drop(o.remove("ann").expect("is there")));
        assert!(without_ann.starts_with("# Our people.\n\n# Bob left in May.\n[[owner]]\n"), "{without_ann}");
        let nobody = change(FILE, |o| ["ann", "bob"].iter().for_each(|n| drop(o.remove(n).expect("is there"))));
        assert_eq!(nobody, "# Our people.\n\n# Bob left in May.\n");
    }

    #[test]
    fn every_way_to_write_it_is_understood() {
        for text in [
            "",
            "# nobody yet",
            "owner = [{ name = 'ann', addresses = ['ann@a'] }, { name = 'bob', addresses = [] }]\n",
            "[[owner]]\nname = 'ann'\naddresses = ['ann@a', 'ANN@a']",
            "[[ owner ]]\r\nname = 'ann'\r\naddresses = ['ann@a']\r\n\r\n[[\"owner\"]]\r\nname = '''bob'''\r\naddresses = ['b@a']\r\n",
        ] {
            change(text, |o| o.add(Owner::new("ann", ["new@a", "other@a"])).expect("valid"));
            change(text, |o| o.add(Owner { x500: vec!["/o=x/cn=y".into()], ..Owner::new("bob", []) }).expect("valid"));
            for name in ["ann", "bob"] {
                change(text, |o| drop(o.remove(name)));
            }
        }
    }
}
