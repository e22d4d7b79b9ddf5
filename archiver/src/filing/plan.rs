//! From an envelope to the instances: which owner gets a message in which folder, and why.

use super::{Direction, Owners, Part, Reason, Template, Values, domain, is_x500, normalise};
use crate::journal::{Handling, Recipient, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// The archive of messages nobody owns.
pub const CATCH_ALL: &str = "@catchall";
/// Folder of messages an owner received, where a source names no other.
pub const FOLDER_INCOMING: &str = "Journal Incoming";
/// Folder of messages an owner sent, where a source names no other.
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
    /// The name of the folder.
    pub folder: Template,
    /// What begins the detail of an address: with `+`, `ann+tag@` is `ann@`. `None`: every address is one of its own.
    pub sub_addressing: Option<char>,
}

impl Rules {
    /// Whether this normalised address should have an owner: it is of an own domain, or an X.500 name, which comes
    /// only from the own organisation's server.
    #[must_use]
    pub fn is_own(&self, normalised: &str) -> bool {
        let own = |domain: &str| self.own_domains.iter().any(|own| normalise(own.trim_start_matches('@')) == domain);
        domain(normalised).map_or_else(|| is_x500(normalised), own)
    }
}

/// Who a message is from and to, as far as filing asks.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// What is held in quarantine is for nobody.
    pub handling: Handling,
    /// The sender.
    pub sender: Option<&'a str>,
    /// The one it was sent for.
    pub on_behalf_of: Option<&'a str>,
    /// Every address delivered to.
    pub recipients: &'a [Recipient],
    /// The message's own date, seconds since 1970-01-01 UTC.
    pub date: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// Every address with its part, in order; the null sender is none.
    pub fn addresses(&self) -> impl Iterator<Item = (Part, &'a str)> + use<'a> {
        let sender = self.sender.map(|address| (Part::Sender, address));
        let other = self.on_behalf_of.map(|address| (Part::OnBehalfOf, address));
        let recipients = self.recipients.iter().map(|r| (Part::Recipient, r.address.as_str()));
        sender.into_iter().chain(other).chain(recipients).filter(|(_, address)| !address.is_empty())
    }
}

impl<'a> From<&'a Verdict> for Envelope<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        Self {
            handling: verdict.handling,
            sender: verdict.sender.as_deref(),
            on_behalf_of: verdict.on_behalf_of.as_deref(),
            recipients: &verdict.recipients,
            date: verdict.date,
        }
    }
}

/// One appearance of a message: one owner, one folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The owner's name.
    pub owner: String,
    /// The folder in the owner's archive.
    pub folder: String,
    /// Why; empty for [`CATCH_ALL`] and where a person named the owner.
    pub because: Vec<Reason>,
}

impl Instance {
    /// An appearance without an address as its reason.
    #[must_use]
    pub fn new(owner: impl Into<String>, folder: impl Into<String>) -> Self {
        Self { owner: owner.into(), folder: folder.into(), because: Vec::new() }
    }
}

/// What is to be done with one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Sorted by owner and folder, none twice. Empty for what is held in quarantine or left.
    pub instances: Vec<Instance>,
    /// Normalised addresses that should have an owner and have none; sorted.
    pub unowned: Vec<String>,
    /// Nobody owns the message: it is filed in [`CATCH_ALL`].
    pub catchall: bool,
    /// Nobody owns the message: it stays in the source.
    pub leave: bool,
}

/// Says who gets a message. What is in quarantine is for nobody: it is kept as a dead letter.
#[must_use]
pub fn plan<'a>(envelope: impl Into<Envelope<'a>>, owners: &Owners, rules: &Rules) -> Plan {
    let envelope = envelope.into();
    if envelope.handling == Handling::Quarantine {
        return Plan::default();
    }
    let mut found: BTreeMap<(String, String), BTreeSet<Reason>> = BTreeMap::new();
    let mut unowned = BTreeSet::new();
    for (part, address) in envelope.addresses() {
        let direction = if part == Part::Recipient { Direction::Incoming } else { Direction::Outgoing };
        let owning = owners.find(address, rules.sub_addressing);
        for one in &owning {
            let primary = one.owner.addresses.first().unwrap_or(&one.owner.name);
            let values = Values { owner: primary, envelope: address, direction, date: envelope.date };
            let reason = Reason { part, address: address.to_owned(), rule: one.rule, via: one.via.clone() };
            found.entry((one.owner.name.clone(), rules.folder.folder(&values))).or_default().insert(reason);
        }
        let spelling = normalise(address);
        if owning.is_empty() && rules.is_own(&spelling) {
            unowned.insert(spelling);
        }
    }
    let nobody = found.is_empty();
    let leave = nobody && rules.unknown == Unknown::Leave;
    let catchall = nobody && !leave;
    let instances = found.into_iter();
    let instances =
        instances.map(|((owner, folder), because)| Instance { owner, folder, because: because.into_iter().collect() });
    let nobodys = catchall.then(|| Instance::new(CATCH_ALL, FOLDER_UNKNOWN));
    Plan { instances: instances.chain(nobodys).collect(), unowned: unowned.into_iter().collect(), catchall, leave }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        filing::{Owner, Rule},
        journal::{Kind, RecipientKind},
    };

    fn owners() -> Owners {
        let mut owners = Owners::default();
        for (name, addresses) in [("ann", "ann@a.example"), ("bob", "bob@a.example"), ("team", "bob@a.example")] {
            owners.add(Owner::new(name, [addresses])).expect("valid");
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
            date: None,
        }
    }

    fn shown(plan: &Plan) -> Vec<String> {
        plan.instances.iter().map(|i| format!("{}/{}", i.owner, i.folder)).collect()
    }

    #[test]
    fn owners_get_what_they_sent_and_received() {
        let rules = Rules { own_domains: vec!["A.example".into()], ..Rules::default() };
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
        let rules = Rules { own_domains: vec!["a.example".into()], ..Rules::default() };
        let made = plan(&stranger, &owners(), &rules);
        assert_eq!((shown(&made), made.catchall), (vec!["@catchall/Unknown E-mail Addresses".into()], true));
        assert_eq!(made.unowned, ["zoe@a.example"]);
        let left = plan(&stranger, &owners(), &Rules { unknown: Unknown::Leave, ..rules.clone() });
        assert!(left.leave && !left.catchall && left.instances.is_empty());
        let held = plan(&Verdict { handling: Handling::Quarantine, ..stranger }, &owners(), &rules);
        assert_eq!(held, Plan::default());
    }

    #[test]
    fn every_appearance_says_why() {
        let rules = Rules { sub_addressing: Some('+'), ..Rules::default() };
        let made = plan(&verdict("ann@a.example", None, &["Bob+x@a.example", "bob@A.example"]), &owners(), &rules);
        let bob = made.instances.iter().find(|i| i.owner == "bob").expect("there");
        let rules: Vec<_> = bob.because.iter().map(|r| (r.address.as_str(), r.rule, r.via.as_deref())).collect();
        let wanted =
            [("Bob+x@a.example", Rule::SubAddress, Some("bob@a.example")), ("bob@A.example", Rule::Address, None)];
        assert_eq!(rules, wanted);
        assert_eq!(made.instances.iter().filter(|i| i.owner == "bob").count(), 1, "one appearance, two reasons");
    }

    #[test]
    fn names_of_the_own_server_are_unowned_too() {
        let name = "/o=Org/ou=x/cn=Recipients/cn=zoe";
        let rules = Rules { own_domains: vec!["a.example".into()], ..Rules::default() };
        let made = plan(&verdict("ann@a.example", None, &[name, "someone"]), &owners(), &rules);
        assert_eq!(made.unowned, [name.to_lowercase()]);
    }

    #[test]
    fn folders_follow_the_template() {
        let folder = Template::parse("{h-email}/{direction}/{year}").expect("valid");
        let rules = Rules { folder, ..Rules::default() };
        let dated = Verdict { date: Some(1_787_040_000), ..verdict("", None, &["ann@a.example", "ANN@a.example"]) };
        assert_eq!(shown(&plan(&dated, &owners(), &rules)), ["ann/ann@a.example/Incoming/2026"]);
    }
}
