//! Names of folders from a template: `Journal {direction}/{year}`.
//!
//! The same message always gets the same folder, whenever and however often it is collected: only the envelope and the
//! message's own date are used, never the time of collecting. Values cannot lead anywhere else: separators and control
//! characters in them become `_`.

use super::normalise;
use time::OffsetDateTime;

/// The template where a source names none.
const DEFAULT: &str = "Journal {direction}";
/// What stands for year and month of a message without a date that can be read.
const UNDATED: &str = "undated";
/// Octets of one level at most; longer ones are cut.
const MAX_LEVEL: usize = 200;
/// Levels at most.
const MAX_LEVELS: usize = 8;

/// Which way a message went, seen from its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Delivered to the owner.
    Incoming,
    /// Sent by the owner, or on the owner's behalf.
    Outgoing,
}

/// The name of a folder with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// What the places are filled with.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The owner's first address.
    pub owner: &'a str,
    /// The address of the envelope that concerns the owner.
    pub envelope: &'a str,
    /// Which way it went.
    pub direction: Direction,
    /// The message's own date, seconds since 1970-01-01 UTC.
    pub date: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Owner,
    Envelope,
    Direction,
    Year,
    Month,
}

const PLACES: [(&str, Place); 5] = [
    ("u-email", Place::Owner),
    ("h-email", Place::Envelope),
    ("direction", Place::Direction),
    ("year", Place::Year),
    ("month", Place::Month),
];

impl Default for Template {
    fn default() -> Self {
        let places = [Piece::Text("Journal ".to_owned()), Piece::Place(Place::Direction)];
        Self(places.to_vec())
    }
}

impl Template {
    /// Reads a template. Levels are separated by `/`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = "{u-email}, {h-email}, {direction}, {year} and {month}";
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("`{{` without `}}` in `{text}`; the places are {known}"))?;
            let place = PLACES.iter().find(|(known, _)| *known == name).map(|(_, place)| *place);
            let place = place.ok_or_else(|| format!("`{{{name}}}` is not known; the places are {known}"))?;
            pieces.extend([Piece::Text(before.to_owned()), Piece::Place(place)]);
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let texts = || pieces.iter().filter_map(|p| if let Piece::Text(text) = p { Some(text.as_str()) } else { None });
        if texts().any(|t| t.contains('}')) {
            return Err(format!("`}}` without `{{` in `{text}`; the places are {known}"));
        }
        if texts().any(|t| t.contains(|c: char| c.is_control() || c == '\\')) {
            return Err("control characters and `\\` cannot stand in a folder's name; separate levels with `/`".into());
        }
        let levels = text.split('/').count();
        if text.trim().is_empty() || text.split('/').any(|level| matches!(level.trim(), "" | "." | "..")) {
            return Err(format!("`{text}` has an empty level, `.` or `..`; write for example \"{DEFAULT}/{{year}}\""));
        }
        if levels > MAX_LEVELS {
            return Err(format!("`{text}` has {levels} levels; at most {MAX_LEVELS} are possible"));
        }
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// The folder of a message.
    #[must_use]
    pub fn folder(&self, values: &Values<'_>) -> String {
        let date = values.date.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(fixed) => text.push_str(fixed),
                Piece::Place(Place::Owner) => text.push_str(&safe(&normalise(values.owner))),
                Piece::Place(Place::Envelope) => text.push_str(&safe(&normalise(values.envelope))),
                Piece::Place(Place::Direction) => text.push_str(match values.direction {
                    Direction::Incoming => "Incoming",
                    Direction::Outgoing => "Outgoing",
                }),
                Piece::Place(Place::Year) => {
                    text.push_str(&date.map_or(UNDATED.to_owned(), |d| format!("{:04}", d.year())));
                }
                Piece::Place(Place::Month) => {
                    text.push_str(&date.map_or(UNDATED.to_owned(), |d| format!("{:02}", u8::from(d.month()))));
                }
            }
        }
        let levels: Vec<String> = text.split('/').map(level).collect();
        levels.join("/")
    }
}

/// A value that stays within its level.
fn safe(value: &str) -> String {
    value.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c }).collect()
}

fn level(text: &str) -> String {
    let mut text = text.trim();
    if let Some((end, _)) = text.char_indices().find(|(at, c)| at + c.len_utf8() > MAX_LEVEL) {
        text = text.get(..end).unwrap_or_default().trim_end();
    }
    if matches!(text, "" | "." | "..") { "_".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(template: &str, envelope: &str, date: Option<i64>) -> String {
        let values = Values { owner: "Ann@A.example", envelope, direction: Direction::Outgoing, date };
        Template::parse(template).expect("valid").folder(&values)
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(Template::parse(DEFAULT), Ok(Template::default()));
        assert_eq!(folder(DEFAULT, "x@y", None), "Journal Outgoing");
        let all = "{direction}/{year}-{month}/{u-email} as {h-email}";
        assert_eq!(
            folder(all, "A.Example@A.example", Some(1_787_040_000)),
            "Outgoing/2026-08/ann@a.example as a.example@a.example"
        );
        assert_eq!(folder("{year}/{month}", "x@y", None), "undated/undated");
        assert_eq!(folder("{year}", "x@y", Some(i64::MAX)), "undated");
        assert_eq!(folder("{year}", "x@y", Some(-5)), "1969");
    }

    #[test]
    fn values_lead_nowhere_else() {
        assert_eq!(folder("a/{h-email}/b", "../../x\u{0}\r\n@y", None), "a/.._.._x___@y/b");
        assert_eq!(folder("{h-email}", "..", None), "_");
        assert_eq!(folder("a/{h-email}", " ", None), "a/_");
        assert_eq!(folder("{h-email}", "/o=Org/cn=x", None), "_o=org_cn=x");
        let long = folder("a/{h-email}", &format!("{}@y", "ü".repeat(300)), None);
        assert_eq!(long, format!("a/{}", "ü".repeat(100)));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, expected) in [
            ("Journal {dir}", "`{dir}` is not known; the places are {u-email}"),
            ("Journal {year", "`{` without `}`"),
            ("Journal year}", "`}` without `{`"),
            ("", "empty level"),
            ("a//b", "empty level"),
            ("../{year}", "`..`"),
            ("a\\b", "separate levels with `/`"),
            ("a/b/c/d/e/f/g/h/i", "9 levels"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
