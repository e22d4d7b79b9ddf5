//! The owners file: who has an archive, and under which addresses.

use super::normalise;
use postkeep_shared::{
    config::{ConfigError, Mistake},
    disk::{self, Disk, DiskError},
};
use serde::Serialize;
use std::{collections::HashMap, path::Path};

/// Octets of an owners file at most: a directory of 300,000 people.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A person or function whose archive exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The name of the archive: no blanks, no path separators, does not begin with `@`.
    pub name: String,
    /// The name people use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// In the spelling of the file.
    pub addresses: Vec<String>,
}

/// Every owner, findable by address. A shared address finds several.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    list: Vec<Owner>,
    by_name: HashMap<String, usize>,
    by_address: HashMap<String, Vec<usize>>,
}

impl Owners {
    /// Reads `owners.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file_mistake =
            |text: String| ConfigError { file: path.to_owned(), mistakes: vec![Mistake { key: String::new(), text }] };
        let text = read(path).map_err(file_mistake)?;
        Self::parse(&text).map_err(|mistakes| ConfigError { file: path.to_owned(), mistakes })
    }

    /// Reads the text of an owners file.
    ///
    /// # Errors
    /// Every mistake.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map(|s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            let place = line.map(|l| format!(" in line {l}")).unwrap_or_default();
            let what = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
            vec![Mistake { key: String::new(), text: format!("not valid TOML{place}: {what}") }]
        })?;
        let mut reader = Reader { owners: Self::default(), mistakes: Vec::new() };
        reader.root(&table);
        if reader.mistakes.is_empty() { Ok(reader.owners) } else { Err(reader.mistakes) }
    }

    /// Everyone, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Owner] {
        &self.list
    }

    /// The owner of this name; names have no case.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Owner> {
        self.by_name.get(&name.to_lowercase()).and_then(|index| self.list.get(*index))
    }

    /// Everyone who has this address.
    #[must_use]
    pub fn find(&self, address: &str) -> Vec<&Owner> {
        let found = self.by_address.get(&normalise(address));
        found.into_iter().flatten().filter_map(|index| self.list.get(*index)).collect()
    }

    /// Adds an owner, or addresses to one that is there.
    ///
    /// # Errors
    /// A sentence that names what is wrong with name or addresses; nothing was changed then.
    pub fn add(&mut self, owner: Owner) -> Result<(), String> {
        check_name(&owner.name)?;
        owner.addresses.iter().try_for_each(|a| check_address(a))?;
        let index = *self.by_name.entry(owner.name.to_lowercase()).or_insert(self.list.len());
        if index == self.list.len() {
            self.list.push(Owner { name: owner.name, full_name: None, addresses: Vec::new() });
        }
        for address in owner.addresses {
            let known = self.by_address.entry(normalise(&address)).or_default();
            if !known.contains(&index) {
                known.push(index);
                self.list.get_mut(index).into_iter().for_each(|o| o.addresses.push(address.clone()));
            }
        }
        if let (Some(named), Some(full_name)) = (self.list.get_mut(index), owner.full_name) {
            named.full_name = Some(full_name);
        }
        Ok(())
    }

    /// Writes `owners.toml`, durably and whole. Comments of a file written by hand do not survive.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn save(&self, path: &Path, disk: &dyn Disk) -> Result<(), DiskError> {
        disk::replace_file(disk, path, self.to_toml().as_bytes())
    }

    /// The text of the owners file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# Owners: whose archive exists, and under which addresses.\n");
        for owner in &self.list {
            let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
            text += &format!("\n[[owner]]\nname = {}\n", quoted(&owner.name));
            if let Some(full_name) = &owner.full_name {
                text += &format!("full_name = {}\n", quoted(full_name));
            }
            let addresses: Vec<String> = owner.addresses.iter().map(|a| quoted(a)).collect();
            text += &format!("addresses = [{}]\n", addresses.join(", "));
        }
        text
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let meta = std::fs::metadata(path)
        .map_err(|e| format!("cannot be read: {e}; set `owners_file`, or make it with `owner add`"))?;
    if !meta.is_file() {
        return Err("not a regular file; set `owners_file` to one".into());
    }
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be opened: {e}; check its permissions"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("larger than 64 MiB; an owners file is never that large".into());
    }
    String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 at octet {}; save the file as UTF-8", e.utf8_error().valid_up_to()))
}

/// Names are shown, typed and used as folder names on export.
fn check_name(name: &str) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | ':' | '\0');
    match name {
        "" => Err("name is empty; give the owner a name".into()),
        "." | ".." => Err(format!("`{name}` cannot be a name; choose another")),
        _ if name.starts_with('@') => {
            Err(format!("`{name}`: names with @ in front belong to the archiver; choose another"))
        }
        _ if name.len() > 200 => Err("name is longer than 200 octets; choose a shorter one".into()),
        _ if name.contains(bad) => Err(format!("`{name}` has a blank, a separator or a control character; remove it")),
        _ => Ok(()),
    }
}

/// An address of SMTP or of X.500; both come in envelopes.
fn check_address(address: &str) -> Result<(), String> {
    let spelling = normalise(address);
    let x500 = spelling.starts_with("/o=");
    let control = spelling.chars().any(char::is_control);
    let smtp = spelling.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && (local.starts_with('"') || !spelling.contains([' ', ',', ';', '<', '>']))
    });
    if (smtp || x500) && !control {
        Ok(())
    } else {
        Err(format!("`{address}` is not an address; write it as name@domain"))
    }
}

struct Reader {
    owners: Owners,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn mistake(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.mistakes.push(Mistake { key: key.into(), text: text.into() });
    }

    fn root(&mut self, table: &toml::Table) {
        for (key, value) in table {
            match (key.as_str(), value) {
                ("owner", toml::Value::Array(items)) => {
                    items.iter().enumerate().for_each(|(i, item)| self.owner(&format!("owner[{}]", i + 1), item));
                }
                ("owner", _) => self.mistake("owner", "must be tables, each headed [[owner]]"),
                (_, _) => self.mistake(key.as_str(), "unknown key; owners are written as [[owner]] tables"),
            }
        }
    }

    fn owner(&mut self, place: &str, item: &toml::Value) {
        let Some(table) = item.as_table() else {
            return self.mistake(place, "must be a table headed [[owner]]");
        };
        for key in table.keys().filter(|k| !["name", "full_name", "addresses"].contains(&k.as_str())) {
            self.mistake(format!("{place}.{key}"), "unknown key; an owner has name, full_name and addresses");
        }
        let name = self.text(place, table, "name");
        if name.is_none() && !table.contains_key("name") {
            self.mistake(format!("{place}.name"), "missing; add it");
        }
        let full_name = self.text(place, table, "full_name");
        let addresses = self.addresses(place, table);
        let Some(name) = name else { return };
        if let Err(text) = check_name(&name) {
            return self.mistake(format!("{place}.name"), text);
        }
        if self.owners.named(&name).is_some() {
            return self.mistake(format!("{place}.name"), format!("`{name}` is there twice; join the two tables"));
        }
        if let Err(text) = self.owners.add(Owner { name, full_name, addresses }) {
            self.mistake(place, text);
        }
    }

    fn text(&mut self, place: &str, table: &toml::Table, key: &str) -> Option<String> {
        match table.get(key)? {
            toml::Value::String(text) => Some(text.clone()),
            _ => {
                self.mistake(format!("{place}.{key}"), "must be a text in quotes");
                None
            }
        }
    }

    fn addresses(&mut self, place: &str, table: &toml::Table) -> Vec<String> {
        let key = format!("{place}.addresses");
        match table.get("addresses") {
            None => self.mistake(key, "missing; add it, like [\"ann@aurora.example\"]"),
            Some(toml::Value::Array(items)) => {
                let mut good = Vec::new();
                for (i, item) in items.iter().enumerate() {
                    match item.as_str().map(|a| (a, check_address(a))) {
                        Some((address, Ok(()))) => good.push(address.to_owned()),
                        Some((_, Err(text))) => self.mistake(format!("{key}[{}]", i + 1), text),
                        None => self.mistake(format!("{key}[{}]", i + 1), "must be a text in quotes"),
                    }
                }
                return good;
            }
            Some(_) => self.mistake(key, "must be a list of texts, like [\"ann@aurora.example\"]"),
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str, addresses: &[&str]) -> Owner {
        let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
        Owner { name: name.to_owned(), full_name: None, addresses }
    }

    fn names(owners: &Owners, address: &str) -> Vec<String> {
        owners.find(address).into_iter().map(|o| o.name.clone()).collect()
    }

    #[test]
    fn addresses_find_everyone_who_has_them() {
        let text = "[[owner]]\nname = \"ann\"\naddresses = [\"ann@a.example\", \"Sales@A.example\"]\n\
                    [[owner]]\nname = \"bob\"\nfull_name = \"Bob Stone\"\naddresses = [\"bob@a.example\", \"sales@a.example\"]\n";
        let owners = Owners::parse(text).expect("valid");
        assert_eq!(names(&owners, "<SALES@a.example>"), ["ann", "bob"]);
        assert_eq!(names(&owners, "ann@a.example"), ["ann"]);
        assert_eq!(names(&owners, "carl@a.example"), Vec::<String>::new());
        assert_eq!(owners.named("ANN").map(|o| o.name.as_str()), Some("ann"));
        assert!(Owners::parse("").expect("nobody yet").all().is_empty());
    }

    #[test]
    fn every_mistake_is_reported() {
        let text = "version = 1\n[[owner]]\nadresses = []\n[[owner]]\nname = \"@x\"\naddresses = [\"nobody\", 5]\n\
                    [[owner]]\nname = \"ann\"\naddresses = []\n[[owner]]\nname = \"Ann\"\naddresses = \"x\"\n";
        let mistakes = Owners::parse(text).expect_err("nine mistakes");
        let keys: Vec<&str> = mistakes.iter().map(|m| m.key.as_str()).collect();
        let wanted = [
            "owner[1].adresses",
            "owner[1].name",
            "owner[1].addresses",
            "owner[2].addresses[1]",
            "owner[2].addresses[2]",
            "owner[2].name",
            "owner[4].addresses",
            "owner[4].name",
            "version",
        ];
        assert_eq!(keys, wanted, "{mistakes:?}");
        for text in ["owner = 5", "[[owner]\n", "[owner]\nname = \"x\"\n", "owner = [5]"] {
            assert_eq!(Owners::parse(text).expect_err("wrong").len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_saved_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("owners.toml");
        let mut owners = Owners::default();
        owners.add(owner("ann", &["ann@a.example"])).expect("valid");
        owners.add(owner("x500", &["/o=Org/ou=\"x\"/cn=b", "\"a b\"@a.example"])).expect("valid");
        owners
            .add(Owner { full_name: Some("Ann \"B\"".into()), ..owner("ANN", &["a@a.example", "Ann@a.example"]) })
            .expect("valid");
        owners.save(&path, &postkeep_shared::disk::LocalDisk).expect("writes");
        let read = Owners::load(&path).expect("valid");
        assert_eq!(read.all(), owners.all());
        assert_eq!(read.all()[0].addresses, ["ann@a.example", "a@a.example"]);
        assert_eq!(read.all()[0].full_name.as_deref(), Some("Ann \"B\""));
        for bad in
            [owner("", &[]), owner("a b", &[]), owner("../x", &[]), owner("ok", &["nobody"]), owner("ok", &["a b@x"])]
        {
            assert!(owners.add(bad.clone()).is_err(), "{bad:?}");
        }
        assert_eq!(read.all(), owners.all(), "a refused owner changes nothing");
        assert!(Owners::load(folder.path()).is_err() && Owners::load(&folder.path().join("no")).is_err());
    }
}
