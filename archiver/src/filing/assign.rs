//! Whose archives a message belongs in, all things considered: the plan of its envelope, the owner that a source of one
//! owner has, and what nobody can file.

use super::{CATCH_ALL, FOLDER_INCOMING, FOLDER_UNKNOWN, Instance, Owners, Plan, Rules, plan};
use crate::journal::{Handling, Kind, Recipient, RecipientKind, Verdict};

/// The plan for a message. `owner` is the one owner of its source, where it has one.
///
/// A report whose envelope or content cannot be used and that nobody owns is a dead letter ([`Plan::is_dead`]): nobody can
/// say whose it is. It is shown in the catch-all archive, where the source files to that, and never left at its source.
#[must_use]
pub fn assign(verdict: &Verdict, owner: Option<&str>, owners: &Owners, rules: &Rules) -> Plan {
    let mut plan = match owner {
        Some(name) => for_one(verdict, name, owners, rules),
        None => plan(verdict, owners, rules),
    };
    if (plan.catchall || plan.leave) && is_unusable(verdict) {
        (plan.catchall, plan.leave) = (false, false);
    }
    plan
}

/// As [`assign`] for a message that a person wants filed: what nobody owns goes to the catch-all archive.
#[must_use]
pub fn assign_all(verdict: &Verdict, owner: Option<&str>, owners: &Owners, rules: &Rules) -> Plan {
    let mut plan = assign(verdict, owner, owners, rules);
    if plan.is_dead() && verdict.handling != Handling::Quarantine {
        (plan.catchall, plan.leave) = (true, false);
        plan.instances = vec![Instance::new(CATCH_ALL, FOLDER_UNKNOWN)];
    }
    plan
}

impl Plan {
    /// Nobody can say whose the message is, and it is not left at its source either.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        !self.catchall && !self.leave && self.instances.iter().all(|instance| instance.owner == CATCH_ALL)
    }
}

fn is_unusable(verdict: &Verdict) -> bool {
    verdict.handling == Handling::ArchiveAsIs
        && verdict.kind != Kind::PlainMessage
        && (verdict.sender.is_none() || verdict.recipients.is_empty())
}

/// Everything is this owner's: sent, where the sender is he, else received.
fn for_one(verdict: &Verdict, name: &str, owners: &Owners, rules: &Rules) -> Plan {
    if verdict.handling == Handling::Quarantine {
        return Plan::default();
    }
    let mut his = verdict.clone();
    let owner = owners.named(name);
    let is_his = |address: &String| {
        let found = owners.find(address, rules.sub_addressing);
        found.iter().any(|found| found.owner.name.to_lowercase() == name.to_lowercase())
    };
    if verdict.sender.iter().chain(&verdict.on_behalf_of).any(is_his) {
        his.recipients.clear();
    } else {
        (his.sender, his.on_behalf_of) = (None, None);
        let address = owner.and_then(|owner| owner.addresses.first().cloned());
        let recipient = |address| Recipient {
            address,
            kind: RecipientKind::Unspecified,
            expanded_from: None,
            forwarded_from: None,
        };
        his.recipients = address.map(recipient).into_iter().collect();
    }
    let name = owner.map_or(name, |owner| owner.name.as_str());
    let mut instances = plan(&his, owners, rules).instances;
    instances.retain(|instance| instance.owner == name);
    if instances.is_empty() {
        instances.push(Instance::new(name, FOLDER_INCOMING));
    }
    Plan { instances, ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filing::Owner;

    fn owners() -> Owners {
        let mut owners = Owners::default();
        for (name, addresses) in [("ann", &["ann@a.example", "all@a.example"][..]), ("bob", &["all@a.example"])] {
            owners.add(Owner::new(name, addresses.iter().copied())).expect("valid");
        }
        owners
    }

    fn verdict(handling: Handling, sender: Option<&str>, recipients: &[&str]) -> Verdict {
        let recipient = |address: &&str| Recipient {
            address: (*address).to_owned(),
            kind: RecipientKind::To,
            expanded_from: None,
            forwarded_from: None,
        };
        Verdict {
            kind: Kind::MalformedJournal,
            handling,
            reason: String::new(),
            warnings: Vec::new(),
            sender: sender.map(str::to_owned),
            on_behalf_of: None,
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
    fn a_source_of_one_owner_files_to_nobody_else() {
        let one = |sender, recipients: &[&str]| {
            shown(&assign(&verdict(Handling::Archive, sender, recipients), Some("ANN"), &owners(), &Rules::default()))
        };
        assert_eq!(one(Some("x@y.example"), &["bob@a.example"]), ["ann/Journal Incoming"]);
        assert_eq!(one(None, &[]), ["ann/Journal Incoming"]);
        assert_eq!(one(Some("Ann@a.example"), &["x@y.example"]), ["ann/Journal Outgoing"]);
        assert_eq!(one(Some("all@a.example"), &["ann@a.example"]), ["ann/Journal Outgoing"], "bob has it too");
    }

    #[test]
    fn what_nobody_can_file_is_a_dead_letter() {
        let made = |handling, sender, recipients: &[&str]| {
            assign(&verdict(handling, sender, recipients), None, &owners(), &Rules::default())
        };
        let dead = made(Handling::ArchiveAsIs, None, &[]);
        assert!(dead.is_dead() && shown(&dead) == ["@catchall/Unknown E-mail Addresses"]);
        assert!(made(Handling::ArchiveAsIs, Some("x@y.example"), &[]).is_dead());
        let leaving = Rules { unknown: crate::filing::Unknown::Leave, ..Rules::default() };
        let kept = assign(&verdict(Handling::ArchiveAsIs, None, &[]), None, &owners(), &leaving);
        assert!(kept.is_dead() && kept.instances.is_empty() && !kept.leave, "never left: it would come again for ever");
        assert_eq!(shown(&made(Handling::ArchiveAsIs, None, &["ann@a.example"])), ["ann/Journal Incoming"]);
        assert!(made(Handling::ArchiveAsIs, Some("x@y.example"), &["z@y.example"]).catchall, "the envelope is whole");
        let all = assign_all(&verdict(Handling::ArchiveAsIs, None, &[]), None, &owners(), &Rules::default());
        assert!(all.catchall && all.instances.len() == 1);
        let held = assign_all(&verdict(Handling::Quarantine, None, &[]), None, &owners(), &Rules::default());
        assert!(held.instances.is_empty());
    }
}
