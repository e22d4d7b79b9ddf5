//! The header fields that MailStore adds to messages it exports: `X-MailStore-Folder-UTF7` names archive and folder.
//!
//! Seen in the wild are `X-MailStore-Folder-UTF7`, `-Date`, `-Flags`, `-Header-Hash` and `-Message-ID`; which separator the
//! folder has and whether `X-MailStore-Folder` exists too is not verified, so `/` and `\` are both taken. Anybody can
//! write such a field into a mail: they count only where the administrator says that the files are an export
//! (`--mailstore`), and only where there is one. Pure.

use super::maildir::decode_utf7;
use crate::filing::{Instance, Owners};
use std::collections::BTreeSet;

/// Fields that name archive and folder.
pub const FOLDER_FIELDS: [&str; 2] = ["x-mailstore-folder-utf7", "x-mailstore-folder"];

/// Archive and folder of a message with these fields (names in lower case). `None` when there is no field, fields
/// that disagree, or an archive that is no owner's.
#[must_use]
pub fn place(fields: &[(String, String)], owners: &Owners) -> Option<Instance> {
    let names: BTreeSet<&String> = fields.iter().map(|(name, _)| name).collect();
    if names.len() < fields.len() {
        return None;
    }
    // All must say the same: one that names nobody is a vote against the others.
    let places: Vec<Instance> = fields.iter().map(|(name, value)| read(name, value, owners)).collect::<Option<_>>()?;
    let first = places.first()?;
    places.iter().all(|other| other == first).then(|| first.clone())
}

fn read(name: &str, value: &str, owners: &Owners) -> Option<Instance> {
    let path = if name.ends_with("utf7") { decode_utf7(value.trim()) } else { value.trim().to_owned() };
    let mut parts = path.split(['/', '\\']).map(str::trim).filter(|part| !part.is_empty());
    let owner = owners.named(parts.next()?)?.name.clone();
    let folder = parts.collect::<Vec<_>>().join("/");
    (!folder.is_empty() && !folder.chars().any(char::is_control)).then(|| Instance::new(owner, folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filing::Owner;

    fn place_of(values: &[(&str, &str)]) -> Option<String> {
        let mut owners = Owners::default();
        for name in ["ann", "bob"] {
            owners.add(Owner::new(name, [format!("{name}@a.example").as_str()])).expect("valid");
        }
        let fields: Vec<_> = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        place(&fields, &owners).map(|i| format!("{}:{}", i.owner, i.folder))
    }

    #[test]
    fn archive_and_folder() {
        let [coded, plain] = FOLDER_FIELDS;
        assert_eq!(place_of(&[(coded, "ann/Exchange ann/Entw&APw-rfe")]).as_deref(), Some("ann:Exchange ann/Entwürfe"));
        assert_eq!(place_of(&[(plain, "ANN\\Journal Incoming")]).as_deref(), Some("ann:Journal Incoming"));
        assert_eq!(place_of(&[(coded, "ann/x"), (plain, "ann/x")]).as_deref(), Some("ann:x"));
        for nowhere in
            [&[][..], &[(coded, "zoe/Inbox")], &[(coded, "zoe/x"), (plain, "ann/x")], &[(coded, "ann")], &[(coded, "")]]
        {
            assert_eq!(place_of(nowhere), None, "{nowhere:?}");
        }
        assert_eq!(place_of(&[(coded, "ann/x"), (coded, "bob/x")]), None, "two of them: one is forged");
        assert_eq!(place_of(&[(coded, "ann/x"), (coded, "ann/x")]), None);
        assert_eq!(place_of(&[(coded, "ann/x"), (plain, "bob/x")]), None);
    }
}
