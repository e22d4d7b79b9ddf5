//! Owners from a table (CSV): the first line names the columns, every mistake is told with its line.
//!
//! Read, not written: what comes out is owners and addresses to add. Separators are found out (`,`, `;` or tab: what
//! spreadsheets write depends on the country).

use super::{
    Owner, is_x500, normalise,
    owners::{check_address, check_name},
};
use postkeep_shared::config::Mistake;
use std::collections::HashMap;

const COLUMNS: [&str; 5] = ["name", "full_name", "addresses", "aliases", "x500"];

/// Reads a table of owners.
///
/// # Errors
/// Every mistake, with line and column.
pub fn read_csv(octets: &[u8]) -> Result<Vec<Owner>, Vec<Mistake>> {
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    let mut table = Table { mistakes: Vec::new(), owners: Vec::new(), lines: HashMap::new() };
    table.read(octets);
    if table.mistakes.is_empty() { Ok(table.owners) } else { Err(table.mistakes) }
}

struct Table {
    mistakes: Vec<Mistake>,
    owners: Vec<Owner>,
    /// In which line a name stood.
    lines: HashMap<String, u64>,
}

impl Table {
    fn mistake(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.mistakes.push(Mistake { key: place.into(), text: text.into() });
    }

    fn read(&mut self, octets: &[u8]) {
        let head = octets.split(|b| *b == b'\n').next().unwrap_or_default();
        let count = |separator: u8| head.iter().filter(|b| **b == separator).count();
        let separator = [b',', b';', b'\t'].into_iter().max_by_key(|s| (count(*s), *s == b',')).unwrap_or(b',');
        let mut builder = csv::ReaderBuilder::new();
        let mut reader = builder.delimiter(separator).has_headers(false).flexible(true).from_reader(octets);
        let mut columns: Option<Vec<Option<usize>>> = None;
        for record in reader.byte_records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.mistake("", format!("cannot be read on: {error}")),
            };
            let line = record.position().map_or(0, csv::Position::line);
            let mut cells = Vec::new();
            for (at, cell) in record.iter().enumerate() {
                match std::str::from_utf8(cell) {
                    Ok(text) => cells.push(text.trim().to_owned()),
                    Err(_) => {
                        let place = format!("line {line}, column {}", at + 1);
                        self.mistake(place, "not UTF-8; save the file as \"CSV UTF-8\"");
                        cells.push(String::new());
                    }
                }
            }
            match &columns {
                None => match self.columns(&cells) {
                    Some(found) => columns = Some(found),
                    None => return,
                },
                Some(columns) => self.row(line, columns, &cells),
            }
        }
        if columns.is_none() {
            self.mistake("", format!("empty; the first line names the columns: {}", COLUMNS.join(",")));
        }
    }

    /// Which column of ours each of theirs is.
    fn columns(&mut self, cells: &[String]) -> Option<Vec<Option<usize>>> {
        let before = self.mistakes.len();
        let known = COLUMNS.join(", ");
        let mut found: Vec<Option<usize>> = Vec::new();
        for (at, cell) in cells.iter().enumerate() {
            let name = cell.to_lowercase().replace([' ', '-'], "_");
            let column = COLUMNS.iter().position(|column| *column == name);
            let place = format!("line 1, column {}", at + 1);
            if column.is_none() {
                self.mistake(place, format!("`{cell}` is no column; the first line names them: {known}"));
            } else if found.contains(&column) {
                self.mistake(place, format!("`{cell}` is there twice; join the two columns"));
            }
            found.push(column);
        }
        for (at, column) in COLUMNS.iter().enumerate().filter(|(_, column)| ["name", "addresses"].contains(*column)) {
            if !found.contains(&Some(at)) {
                self.mistake("line 1", format!("there is no column `{column}`; add it"));
            }
        }
        (self.mistakes.len() == before).then_some(found)
    }

    fn row(&mut self, line: u64, columns: &[Option<usize>], cells: &[String]) {
        if cells.iter().all(String::is_empty) {
            return;
        }
        if cells.len() != columns.len() {
            let text = format!(
                "{} cells, but the first line names {} columns; put cells with a separator in them in quotes",
                cells.len(),
                columns.len()
            );
            return self.mistake(format!("line {line}"), text);
        }
        let cell = |column: usize| {
            let at = columns.iter().position(|c| *c == Some(column));
            at.and_then(|at| cells.get(at)).map(String::as_str).unwrap_or_default()
        };
        let name = cell(0).to_owned();
        let place = |column: &str| format!("line {line}, {column}");
        if let Err(text) = check_name(&name) {
            self.mistake(place("name"), text);
        } else if let Some(before) = self.lines.insert(name.to_lowercase(), line) {
            self.mistake(place("name"), format!("`{name}` is in line {before} already; join the two lines"));
        }
        let full_name = Some(cell(1)).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut owner = Owner { name, full_name, ..Owner::default() };
        let mut any = false;
        for (column, list) in [(2, &mut owner.addresses), (3, &mut owner.aliases), (4, &mut owner.x500)] {
            let label = COLUMNS.get(column).copied().unwrap_or_default();
            for address in addresses(cell(column)) {
                any = true;
                match check_address(&address) {
                    Ok(()) if column == 4 && !is_x500(&normalise(&address)) => {
                        self.mistake(place(label), format!("`{address}` is no X.500 name; they begin with /o="));
                    }
                    Ok(()) => list.push(address),
                    Err(text) => self.mistake(place(label), text),
                }
            }
        }
        if !any {
            self.mistake(place("addresses"), "empty; an owner needs at least one address");
        }
        self.owners.push(owner);
    }
}

/// The addresses in a cell. Exchange writes `SMTP:`, `smtp:` and `X500:` before them; what is neither (`SIP:`, `EUM:`,
/// `SPO:`) is no address of mail.
fn addresses(cell: &str) -> Vec<String> {
    let lower = cell.to_lowercase();
    // X.500 names hold blanks and commas.
    let names = ["/o=", "/c="].iter().any(|start| lower.contains(start));
    let cut = |c: char| matches!(c, ';' | '|') || !names && (c == ',' || c.is_whitespace());
    let entries = cell.split(cut).map(str::trim).filter(|entry| !entry.is_empty());
    let address = |entry: &str| match entry.split_once(':') {
        Some((kind, address)) if kind.eq_ignore_ascii_case("smtp") || kind.eq_ignore_ascii_case("x500") => {
            Some(address.trim().to_owned())
        }
        Some((kind, _)) if ["sip", "eum", "spo", "x400"].iter().any(|other| kind.eq_ignore_ascii_case(other)) => None,
        _ => Some(entry.to_owned()),
    };
    entries.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let comma = "name,full_name,addresses,aliases,x500\n\
            ann,\"Ann, the boss\",ann@a.example sales@a.example,old@a.example,\"/o=A, B/ou=x y/cn=ann;/o=A/cn=b\"\n\n\
            bob,,\"SMTP:bob@a.example;smtp:b@a.example;SIP:bob@a.example|X500:/o=A/cn=bob smith\",,\n";
        let owners = read_csv(comma.as_bytes()).expect("valid");
        assert_eq!(owners.len(), 2);
        assert_eq!(owners[0].full_name.as_deref(), Some("Ann, the boss"));
        assert_eq!(owners[0].addresses, ["ann@a.example", "sales@a.example"]);
        assert_eq!(owners[0].x500, ["/o=A, B/ou=x y/cn=ann", "/o=A/cn=b"]);
        assert_eq!(owners[1].addresses, ["bob@a.example", "b@a.example", "/o=A/cn=bob smith"]);
        let other = "\u{feff}Addresses;Name;Full Name\r\n\"a@a.example,b@a.example\";ann;\u{c4}nn\r\n";
        let owners = read_csv(other.as_bytes()).expect("valid");
        assert_eq!((owners[0].name.as_str(), owners[0].addresses.len()), ("ann", 2));
        assert_eq!(read_csv(b"name\taddresses\nann\ta@a\n").expect("valid").len(), 1);
        assert!(read_csv(b"name,addresses\n").expect("nobody").is_empty());
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = b"name,addresses,x500\nann,a@a,\na b,nobody,\nANN,b@a,\ncarl,,\ndora,d@a\nerik,\xff,x@y\n";
        let mistakes = read_csv(text).expect_err("seven mistakes");
        let found: Vec<String> = mistakes.iter().map(|m| format!("{}: {}", m.key, m.text)).collect();
        let wanted = [
            "line 3, name: `a b` has a blank",
            "line 3, addresses: `nobody` is not an address",
            "line 4, name: `ANN` is in line 2 already",
            "line 5, addresses: empty",
            "line 6: 2 cells, but the first line names 3",
            "line 7, column 2: not UTF-8",
            "line 7, x500: `x@y` is no X.500 name",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found} / {wanted}");
        }
        for (text, wanted) in [
            ("", "empty; the first line"),
            ("name,mail\nann,a@a\n", "`mail` is no column"),
            ("full_name\nx\n", "no column `name`"),
            ("name,addresses,name\n", "there twice"),
        ] {
            let mistakes = read_csv(text.as_bytes()).expect_err(text);
            assert!(mistakes.iter().any(|m| m.text.contains(wanted)), "{text}: {mistakes:?}");
        }
    }
}
