//! From an envelope to the instances: which owner gets a message in which folder.

use super::{Owners, domain, normalise};
use crate::journal::{Handling, Verdict};
use std::collections::BTreeSet;

/// The archive of messages nobody owns.
pub const CATCH_ALL: &str = "@catchall";
/// Folder of messages an owner received.
pub const FOLDER_INCOMING: &str = "Journal Incoming";
/// Folder of messages an owner sent.
pub const FOLDER_OUTGOING: &str = "Journal Outgoing";
/// Folder of [`CATCH_ALL`].
pub const FOLDER_UNKNOWN: &str = "Unknown E-mail Addresses";

/// What to do with a message nobody owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// File it in [`CATCH_ALL`].
    #[default]
    CatchAll,
    /// Leave it in the source, and say so.
    Leave,
}

/// How a source is filed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Domains whose every address should have an owner.
    pub own_domains: Vec<String>,
    /// What to do with a message nobody owns.
    pub unknown: Unknown,
}

/// One appearance of a message: one owner, one folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The owner's name.
    pub owner: String,
    /// The folder in the owner's archive.
    pub folder: String,
}

/// What is to be done with one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Sorted by owner and folder, none twice. Empty for what is held in quarantine or left.
    pub instances: Vec<Instance>,
    /// Normalised addresses of own domains that no owner has; sorted.
    pub unowned: Vec<String>,
    /// Nobody owns the message: it is filed in [`CATCH_ALL`].
    pub catchall: bool,
    /// Nobody owns the message: it stays in the source.
    pub leave: bool,
}

/// Says who gets a message. What is in quarantine is for nobody: it is kept as a dead letter.
#[must_use]
pub fn plan(verdict: &Verdict, owners: &Owners, rules: &Rules) -> Plan {
    if verdict.handling == Handling::Quarantine {
        return Plan::default();
    }
    let (mut instances, mut unowned) = (BTreeSet::new(), BTreeSet::new());
    let own: BTreeSet<String> = rules.own_domains.iter().map(|d| normalise(d.trim_start_matches('@'))).collect();
    let mut look = |address: &str, folder: &str| {
        let found = owners.find(address);
        for owner in &found {
            instances.insert(Instance { owner: owner.name.clone(), folder: folder.to_owned() });
        }
        let spelling = normalise(address);
        if found.is_empty() && domain(&spelling).is_some_and(|d| own.contains(d)) {
            unowned.insert(spelling);
        }
    };
    for address in verdict.sender.iter().chain(&verdict.on_behalf_of) {
        look(address, FOLDER_OUTGOING);
    }
    for recipient in &verdict.recipients {
        look(&recipient.address, FOLDER_INCOMING);
    }
    let nobody = instances.is_empty();
    let leave = nobody && rules.unknown == Unknown::Leave;
    let catchall = nobody && !leave;
    if catchall {
        instances.insert(Instance { owner: CATCH_ALL.to_owned(), folder: FOLDER_UNKNOWN.to_owned() });
    }
    Plan { instances: instances.into_iter().collect(), unowned: unowned.into_iter().collect(), catchall, leave }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        filing::Owner,
        journal::{Kind, Recipient, RecipientKind},
    };

    fn owners() -> Owners {
        let mut owners = Owners::default();
        for (name, addresses) in [("ann", "ann@a.example"), ("bob", "bob@a.example"), ("team", "bob@a.example")] {
            let addresses = vec![addresses.to_owned()];
            owners.add(Owner { name: name.to_owned(), full_name: None, addresses }).expect("valid");
        }
        owners
    }

    fn verdict(sender: &str, behalf: Option<&str>, recipients: &[&str]) -> Verdict {
        let recipient = |address: &&str| Recipient {
            address: (*address).to_owned(),
            kind: RecipientKind::To,
            expanded_from: Some("ann@a.example".to_owned()),
            forwarded_from: None,
        };
        Verdict {
            kind: Kind::JournalReport,
            handling: Handling::Archive,
            reason: String::new(),
            warnings: Vec::new(),
            sender: Some(sender.to_owned()),
            on_behalf_of: behalf.map(str::to_owned),
            recipients: recipients.iter().map(recipient).collect(),
            subject: None,
            message_id: None,
            content: None,
            alternates: Vec::new(),
            embedded_size: None,
        }
    }

    fn shown(plan: &Plan) -> Vec<String> {
        plan.instances.iter().map(|i| format!("{}/{}", i.owner, i.folder)).collect()
    }

    #[test]
    fn owners_get_what_they_sent_and_received() {
        let rules = Rules { own_domains: vec!["A.example".into()], unknown: Unknown::CatchAll };
        let made = plan(
            &verdict("Ann@a.example", None, &["bob@A.example", "ann@a.example", "zoe@a.example"]),
            &owners(),
            &rules,
        );
        let wanted = ["ann/Journal Incoming", "ann/Journal Outgoing", "bob/Journal Incoming", "team/Journal Incoming"];
        assert_eq!(shown(&made), wanted);
        assert_eq!(made.unowned, ["zoe@a.example"]);
        assert!(!made.catchall && !made.leave);
        let delegate = plan(&verdict("x@y.example", Some("ann@a.example"), &["z@y.example"]), &owners(), &rules);
        assert_eq!(shown(&delegate), ["ann/Journal Outgoing"]);
        assert!(delegate.unowned.is_empty(), "a group the address came from is no owner");
    }

    #[test]
    fn nobody_knows_them() {
        let stranger = verdict("", None, &["zoe@a.example", "z@y.example"]);
        let rules = Rules { own_domains: vec!["a.example".into()], unknown: Unknown::CatchAll };
        let made = plan(&stranger, &owners(), &rules);
        assert_eq!((shown(&made), made.catchall), (vec!["@catchall/Unknown E-mail Addresses".into()], true));
        assert_eq!(made.unowned, ["zoe@a.example"]);
        let left = plan(&stranger, &owners(), &Rules { unknown: Unknown::Leave, ..rules.clone() });
        assert!(left.leave && !left.catchall && left.instances.is_empty());
        let held = plan(&Verdict { handling: Handling::Quarantine, ..stranger }, &owners(), &rules);
        assert_eq!(held, Plan::default());
    }
}
