//! The owners file: who has an archive, and under which addresses.

use super::{Rule, encapsulated, is_x500, normalise, without_detail};
use postkeep_shared::config::{ConfigError, Mistake};
use serde::Serialize;
use std::{collections::HashMap, path::Path};

/// Octets of an owners file at most: a directory of 300,000 people.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// The keys of an owner.
const KEYS: [&str; 5] = ["name", "full_name", "addresses", "aliases", "x500"];

/// A person or function whose archive exists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Owner {
    /// The name of the archive: no blanks, no path separators, does not begin with `@`.
    pub name: String,
    /// The name people use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// In the spelling of the file; the first names folders (`{u-email}`).
    pub addresses: Vec<String>,
    /// Further addresses: former names, functions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// X.500 names (`legacyExchangeDN`), for senders and recipients that Exchange writes that way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub x500: Vec<String>,
}

impl Owner {
    /// An owner with these addresses.
    pub fn new<'a>(name: &str, addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let addresses = addresses.into_iter().map(str::to_owned).collect();
        Self { name: name.to_owned(), addresses, ..Self::default() }
    }

    /// Everything the owner is found by.
    pub fn all_addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().chain(&self.aliases).chain(&self.x500).map(String::as_str)
    }

    fn lists(&mut self) -> [&mut Vec<String>; 3] {
        [&mut self.addresses, &mut self.aliases, &mut self.x500]
    }
}

/// An owner of an address, and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Who.
    pub owner: &'a Owner,
    /// By which rule.
    pub rule: Rule,
    /// The owner's address that was found, in the spelling that is compared, where it is not the one that was asked for.
    pub via: Option<String>,
}

/// Every owner, findable by address. A shared address finds several.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    list: Vec<Owner>,
    by_name: HashMap<String, usize>,
    by_address: HashMap<String, Vec<(usize, Rule)>>,
}

impl Owners {
    /// Reads `owners.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_text(path).map(|(owners, _)| owners)
    }

    /// Reads `owners.toml` and gives its text too.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake of the file.
    pub fn load_text(path: &Path) -> Result<(Self, String), ConfigError> {
        let file_mistake =
            |text: String| ConfigError { file: path.to_owned(), mistakes: vec![Mistake { key: String::new(), text }] };
        let text = read(path).map_err(file_mistake)?;
        let owners = Self::parse(&text).map_err(|mistakes| ConfigError { file: path.to_owned(), mistakes })?;
        Ok((owners, text))
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

    /// Everyone who has this address. Asked in turn, the first that finds somebody counts: the address as it is; the
    /// X.500 name encapsulated in it; the address without the detail behind `separator`.
    #[must_use]
    pub fn find(&self, address: &str, separator: Option<char>) -> Vec<Found<'_>> {
        let asked = normalise(address);
        let found = self.exactly(&asked, None, None);
        if !found.is_empty() {
            return found;
        }
        if let Some(name) = encapsulated(&asked) {
            return self.exactly(&name, Some(Rule::X500), Some(&name));
        }
        match separator.and_then(|separator| without_detail(&asked, separator)) {
            Some(plain) => self.exactly(&plain, Some(Rule::SubAddress), Some(&plain)),
            None => found,
        }
    }

    fn exactly(&self, spelling: &str, rule: Option<Rule>, via: Option<&str>) -> Vec<Found<'_>> {
        let found = self.by_address.get(spelling).into_iter().flatten();
        let found = found.filter_map(|(index, own)| Some((self.list.get(*index)?, *own)));
        found.map(|(owner, own)| Found { owner, rule: rule.unwrap_or(own), via: via.map(str::to_owned) }).collect()
    }

    /// Adds an owner, or addresses to one that is there.
    ///
    /// # Errors
    /// A sentence that names what is wrong with name or addresses; nothing was changed then.
    pub fn add(&mut self, mut owner: Owner) -> Result<(), String> {
        check_name(&owner.name)?;
        owner.all_addresses().try_for_each(check_address)?;
        let index = *self.by_name.entry(owner.name.to_lowercase()).or_insert(self.list.len());
        if index == self.list.len() {
            self.list.push(Owner { name: owner.name.clone(), ..Owner::default() });
        }
        let Some(known) = self.list.get_mut(index) else { return Ok(()) };
        let rules = [Rule::Address, Rule::Alias, Rule::X500];
        for ((from, to), rule) in owner.lists().into_iter().zip(known.lists()).zip(rules) {
            for address in from.drain(..) {
                let rule = if is_x500(&normalise(&address)) { Rule::X500 } else { rule };
                let owning = self.by_address.entry(normalise(&address)).or_default();
                if !owning.iter().any(|(other, _)| *other == index) {
                    owning.push((index, rule));
                    to.push(address);
                }
            }
        }
        if owner.full_name.is_some() {
            known.full_name = owner.full_name;
        }
        Ok(())
    }

    /// Takes an owner out; what is in the archive stays there.
    ///
    /// # Errors
    /// A sentence when there is none of this name.
    pub fn remove(&mut self, name: &str) -> Result<Owner, String> {
        let there = self.named(name).cloned();
        let owner = there.ok_or_else(|| format!("there is no owner `{name}`; see `owner list`"))?;
        self.list.retain(|other| other.name != owner.name);
        self.index();
        Ok(owner)
    }

    /// Takes addresses from an owner.
    ///
    /// # Errors
    /// A sentence when the owner is not there or has not got one of them; nothing was changed then.
    pub fn remove_addresses(&mut self, name: &str, addresses: &[String]) -> Result<(), String> {
        let none = || format!("there is no owner `{name}`; see `owner list`");
        let index = *self.by_name.get(&name.to_lowercase()).ok_or_else(none)?;
        let owner = self.list.get_mut(index).ok_or_else(none)?;
        let gone: Vec<String> = addresses.iter().map(|address| normalise(address)).collect();
        for (address, spelling) in addresses.iter().zip(&gone) {
            if !owner.all_addresses().any(|has| normalise(has) == *spelling) {
                return Err(format!("`{name}` has no address `{address}`; see `owner list`"));
            }
        }
        owner.lists().into_iter().for_each(|list| list.retain(|address| !gone.contains(&normalise(address))));
        self.index();
        Ok(())
    }

    fn index(&mut self) {
        let list = std::mem::take(&mut self.list);
        *self = Self::default();
        for owner in list {
            // Checked when it came in.
            let _ = self.add(owner);
        }
    }

    /// The text of an owners file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let tables: String = self.list.iter().map(Owner::to_toml).collect();
        format!("# Owners: whose archive exists, and under which addresses.\n{tables}")
    }
}

impl Owner {
    /// The table of this owner, an empty line before it.
    pub(super) fn to_toml(&self) -> String {
        let mut text = format!("\n[[owner]]\nname = {}\n", quoted(&self.name));
        if let Some(full_name) = &self.full_name {
            text += &format!("full_name = {}\n", quoted(full_name));
        }
        text += &format!("addresses = {}\n", quoted_list(&self.addresses));
        for (key, list) in [("aliases", &self.aliases), ("x500", &self.x500)] {
            if !list.is_empty() {
                text += &format!("{key} = {}\n", quoted_list(list));
            }
        }
        text
    }
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of texts as TOML writes it.
pub(super) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
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
pub(super) fn check_name(name: &str) -> Result<(), String> {
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
pub(super) fn check_address(address: &str) -> Result<(), String> {
    let spelling = normalise(address);
    let x500 = is_x500(&spelling);
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
        for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
            self.mistake(format!("{place}.{key}"), format!("unknown key; an owner has {}", KEYS.join(", ")));
        }
        let name = self.text(place, table, "name");
        if name.is_none() && !table.contains_key("name") {
            self.mistake(format!("{place}.name"), "missing; add it");
        }
        let full_name = self.text(place, table, "full_name");
        if !table.contains_key("addresses") {
            self.mistake(format!("{place}.addresses"), "missing; add it, like [\"ann@aurora.example\"]");
        }
        let [addresses, aliases, x500] = ["addresses", "aliases", "x500"].map(|key| self.list(place, table, key));
        let Some(name) = name else { return };
        if let Err(text) = check_name(&name) {
            return self.mistake(format!("{place}.name"), text);
        }
        if self.owners.named(&name).is_some() {
            return self.mistake(format!("{place}.name"), format!("`{name}` is there twice; join the two tables"));
        }
        if let Err(text) = self.owners.add(Owner { name, full_name, addresses, aliases, x500 }) {
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

    fn list(&mut self, place: &str, table: &toml::Table, key: &str) -> Vec<String> {
        let place = format!("{place}.{key}");
        let mut good = Vec::new();
        match table.get(key) {
            None => {}
            Some(toml::Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    match item.as_str().map(|a| (a, check_address(a))) {
                        Some((address, Ok(()))) => good.push(address.to_owned()),
                        Some((_, Err(text))) => self.mistake(format!("{place}[{}]", i + 1), text),
                        None => self.mistake(format!("{place}[{}]", i + 1), "must be a text in quotes"),
                    }
                }
            }
            Some(_) => self.mistake(place, "must be a list of texts, like [\"ann@aurora.example\"]"),
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(owners: &Owners, address: &str) -> Vec<String> {
        owners.find(address, Some('+')).into_iter().map(|found| found.owner.name.clone()).collect()
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
    fn the_rule_that_found_an_owner_is_told() {
        let text = "[[owner]]\nname = \"ann\"\naddresses = [\"ann@a.example\", \"/o=A/cn=first\"]\n\
                    aliases = [\"a.b@a.example\", \"ann+own@a.example\"]\nx500 = [\"/O=A/OU=Ex change/CN=Ann\"]\n\
                    [[owner]]\nname = \"bob\"\naddresses = [\"ann@a.example\"]\n";
        let owners = Owners::parse(text).expect("valid");
        for (address, rule, via, who) in [
            ("Ann@A.EXAMPLE", Rule::Address, None, 2),
            ("a.b@a.example", Rule::Alias, None, 1),
            ("ann+own@a.example", Rule::Alias, None, 1),
            ("ann+Other+x@a.example", Rule::SubAddress, Some("ann@a.example"), 2),
            ("/o=a/ou=ex change/cn=ann", Rule::X500, None, 1),
            ("/o=a/cn=FIRST", Rule::X500, None, 1),
            ("IMCEAEX-_o=A_ou=Ex+20change_cn=Ann@a.example", Rule::X500, Some("/o=a/ou=ex change/cn=ann"), 1),
        ] {
            let found = owners.find(address, Some('+'));
            assert_eq!(found.len(), who, "{address}");
            assert_eq!((found[0].rule, found[0].via.as_deref()), (rule, via), "{address}");
        }
        for address in ["a.b@other.example", "IMCEAEX-_o=B@a.example", "+x@a.example", ""] {
            assert!(names(&owners, address).is_empty(), "{address}");
        }
        assert!(owners.find("ann+x@a.example", None).is_empty(), "no rule, no detail");
        assert_eq!(owners.find("ann-x@a.example", Some('-')).len(), 2);
    }

    #[test]
    fn owners_and_addresses_come_and_go() {
        let mut owners = Owners::default();
        owners.add(Owner::new("ann", ["ann@a.example"])).expect("valid");
        owners.add(Owner::new("x500", ["/o=Org/ou=\"x\"/cn=b", "\"a b\"@a.example"])).expect("valid");
        let more = Owner { full_name: Some("Ann \"B\"".into()), ..Owner::new("ANN", ["a@a.example", "Ann@a.example"]) };
        owners.add(Owner { aliases: vec!["a@a.example".into(), "old@a.example".into()], ..more }).expect("valid");
        let read = Owners::parse(&owners.to_toml()).expect("valid");
        assert_eq!(read.all(), owners.all());
        assert_eq!(read.all()[0].addresses, ["ann@a.example", "a@a.example"]);
        assert_eq!((read.all()[0].full_name.as_deref(), read.all()[0].aliases.len()), (Some("Ann \"B\""), 1));
        for bad in [
            Owner::new("", []),
            Owner::new("a b", []),
            Owner::new("../x", []),
            Owner::new("ok", ["nobody"]),
            Owner::new("ok", ["a b@x"]),
        ] {
            assert!(owners.add(bad.clone()).is_err(), "{bad:?}");
        }
        let gone = vec!["A@a.example".to_owned(), "zoe@a.example".to_owned()];
        assert!(owners.remove_addresses("ann", &gone).is_err() && owners.remove("zoe").is_err());
        assert_eq!(read.all(), owners.all(), "what is refused changes nothing");
        owners.remove_addresses("Ann", &gone[..1]).expect("has it");
        assert!(names(&owners, "a@a.example").is_empty() && names(&owners, "old@a.example") == ["ann"]);
        assert_eq!(owners.remove("x500").expect("is there").addresses.len(), 2);
        assert_eq!(owners.all().len(), 1);
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(Owners::load(folder.path()).is_err() && Owners::load(&folder.path().join("no")).is_err());
    }
}
