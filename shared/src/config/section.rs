//! One table of a configuration, taken apart by key; what nobody takes is a mistake.

use super::{Mistake, parse_duration, parse_size};
use serde_json::{Map, Value};
use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive, rc::Rc, time::Duration};

/// A table. Getters return `None` for an absent key and for a wrong value; the latter is also reported.
pub struct Section {
    path: String,
    table: Map<String, Value>,
    known: RefCell<BTreeSet<String>>,
    children: RefCell<Vec<Rc<Section>>>,
    mistakes: Rc<RefCell<Vec<Mistake>>>,
}

impl Section {
    pub(super) fn new(path: String, value: Value, mistakes: Rc<RefCell<Vec<Mistake>>>) -> Self {
        let section = |table| Self {
            path: path.clone(),
            table,
            known: RefCell::default(),
            children: RefCell::default(),
            mistakes: Rc::clone(&mistakes),
        };
        match value {
            Value::Object(table) => section(table),
            Value::Null => section(Map::new()),
            _ => {
                let section = section(Map::new());
                section.mistake("", "must be a table");
                section
            }
        }
    }

    /// Reports a mistake at `key`, for rules that only the caller knows. `text` says what is wrong and the remedy.
    pub fn mistake(&self, key: &str, text: impl Into<String>) {
        let key = self.full(key);
        self.mistakes.borrow_mut().push(Mistake { key, text: text.into() });
    }

    /// Whether the key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Text.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text.clone()),
            other => self.wrong(key, other, "a text in quotes"),
        }
    }

    /// Text that must be there.
    pub fn required(&self, key: &str) -> Option<String> {
        if !self.has(key) {
            self.take(key);
            self.mistake(key, "missing; add it");
        }
        self.text(key)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.take(key)?;
        let number = value.as_i64().or_else(|| value.as_str().and_then(|t| t.parse().ok()));
        match number {
            Some(n) if range.contains(&n) => Some(n),
            _ => self.wrong(key, value, &format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let value = self.take(key)?;
        let flag = value.as_bool().or_else(|| value.as_str().and_then(|t| t.parse().ok()));
        flag.or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A size in octets, see [`parse_size`].
    pub fn size(&self, key: &str) -> Option<u64> {
        self.parsed(key, parse_size)
    }

    /// A time span, see [`parse_duration`].
    pub fn duration(&self, key: &str) -> Option<Duration> {
        self.parsed(key, parse_duration)
    }

    /// One of a few words.
    pub fn choice(&self, key: &str, words: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        self.mistake(key, format!("`{text}` is not one of: {}", words.join(", ")));
        None
    }

    /// A list of texts; a single text (as from the environment) is split at commas.
    pub fn list(&self, key: &str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let texts = match value {
            Value::Array(items) => items.iter().map(|i| i.as_str().map(str::to_owned)).collect(),
            Value::String(text) => {
                Some(text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect())
            }
            _ => None,
        };
        texts.or_else(|| self.wrong(key, value, "a list of texts, like [\"a\", \"b\"]"))
    }

    /// A table below this one; an absent one is empty.
    pub fn section(&self, key: &str) -> Rc<Section> {
        let value = self.take(key).cloned().unwrap_or(Value::Null);
        self.child(key, value)
    }

    /// The tables of `[[key]]`.
    pub fn tables(&self, key: &str) -> Vec<Rc<Section>> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(i, v)| self.child(&format!("{key}[{}]", i + 1), v.clone())).collect()
            }
            Some(other) => {
                self.wrong::<()>(key, other, &format!("one or more tables, each headed [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// Leaves a key alone that a mistake was reported for already.
    pub fn skip(&self, key: &str) {
        self.take(key);
    }

    /// Every key of this table, for tables whose keys are names.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    pub(super) fn report_unknown(&self) {
        let known = self.known.borrow();
        for key in self.table.keys().filter(|key| !known.contains(*key)) {
            let nearest = known.iter().map(|k| (distance(k, key), k)).min();
            match nearest {
                Some((distance, name)) if distance <= 3 => {
                    self.mistake(key, format!("unknown key; did you mean `{name}`?"));
                }
                _ => self.mistake(key, "unknown key; remove it or see deploy/ for every setting"),
            }
        }
        for child in self.children.borrow().iter() {
            child.report_unknown();
        }
    }

    fn child(&self, key: &str, value: Value) -> Rc<Section> {
        let child = Rc::new(Self::new(self.full(key), value, Rc::clone(&self.mistakes)));
        self.children.borrow_mut().push(Rc::clone(&child));
        child
    }

    fn take(&self, key: &str) -> Option<&Value> {
        self.known.borrow_mut().insert(key.to_owned());
        self.table.get(key).filter(|value| !value.is_null())
    }

    fn parsed<T>(&self, key: &str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let text = match self.take(key)? {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            other => return self.wrong(key, other, "a text in quotes"),
        };
        parse(&text).map_err(|remedy| self.mistake(key, remedy)).ok()
    }

    fn wrong<T>(&self, key: &str, value: &Value, wanted: &str) -> Option<T> {
        let kind = match value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a table",
        };
        // The value itself is not shown: it might be a password in the wrong place.
        self.mistake(key, format!("must be {wanted}, not {kind}"));
        None
    }

    fn full(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

/// Edits (insert, remove, replace) between two keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != *y));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
