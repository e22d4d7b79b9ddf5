//! A year in miniature: generated reports of messages to some and to thousands, forked, repeated, to shared addresses,
//! aliases, details and addresses nobody owns, with owners who come half-way through.
//!
//! What each archive must hold is computed by an oracle of its own: from what was generated, in its own words, with
//! nothing of `filing`. `POSTKEEP_REPORTS=20000` makes the whole year; `POSTKEEP_SEED` repeats one.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    archive::Archive as Stores,
    filing::{Owner, Owners, Rules, plan},
    journal::{Context, examine},
    refile::{Reach, refile},
    store::NewReport,
};
use postkeep_shared::mail::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};
use support::Place;

const REPORTS: usize = 1000;
const OWNERS: usize = 200;
/// Of those, who come half-way.
const LATE: usize = 30;
const MEMBERS: usize = 5000;
/// Reports of one commit.
const BATCH: usize = 64;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A message as it was generated.
struct Mail {
    number: usize,
    sender: String,
    recipients: Vec<String>,
}

/// The oracle: who has which address, and since when.
#[derive(Default)]
struct Oracle {
    /// Plain address in small letters → owners.
    has: BTreeMap<String, BTreeSet<usize>>,
    /// (owner, direction, message) that must be there.
    expected: BTreeSet<(usize, &'static str, usize)>,
    /// Addresses and messages nobody owns yet.
    waiting: BTreeSet<(String, &'static str, usize)>,
    /// Reports without any owner: message, addresses.
    nobody: BTreeMap<usize, Vec<BTreeSet<String>>>,
    pairs: BTreeSet<(usize, String)>,
}

impl Oracle {
    fn plain(address: &str) -> String {
        let address = address.to_ascii_lowercase();
        let (user, domain) = address.split_once('@').expect("an address");
        format!("{}@{domain}", user.split('+').next().expect("never empty"))
    }

    fn report(&mut self, mail: &Mail, recipients: &[String]) {
        let all = recipients.iter().map(|r| (r, "Incoming")).chain([(&mail.sender, "Outgoing")]);
        let mut anybody = false;
        for (address, direction) in all {
            let owners = self.has.get(&Self::plain(address)).cloned().unwrap_or_default();
            if direction == "Incoming" {
                self.pairs.insert((mail.number, address.to_ascii_lowercase()));
            }
            if owners.is_empty() {
                self.waiting.insert((address.to_ascii_lowercase(), direction, mail.number));
            }
            anybody |= !owners.is_empty();
            self.expected.extend(owners.into_iter().map(|owner| (owner, direction, mail.number)));
        }
        if !anybody {
            let addresses = recipients.iter().chain([&mail.sender]).map(|a| Self::plain(a)).collect();
            self.nobody.entry(mail.number).or_default().push(addresses);
        }
    }

    /// Somebody gets an address; what nobody owned is his. `own` says whether it is found without being asked for.
    fn gives(&mut self, owner: usize, address: &str) {
        self.has.entry(Self::plain(address)).or_default().insert(owner);
    }

    fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for (address, direction, message) in waiting {
            match self.has.get(&Self::plain(&address)) {
                Some(owners) => self.expected.extend(owners.iter().map(|owner| (*owner, direction, message))),
                None => drop(self.waiting.insert((address, direction, message))),
            }
        }
        let has = &self.has;
        self.nobody.retain(|_, reports| {
            reports.retain(|addresses| !addresses.iter().any(|address| has.contains_key(address)));
            !reports.is_empty()
        });
    }
}

fn name(owner: usize) -> String {
    format!("owner{owner:03}")
}

fn member(number: usize) -> String {
    format!("m{number:04}@aurora.example")
}

/// Owner `n` has every 200th member address, an alias, and every tenth shares an address with the next.
fn owner(n: usize, oracle: &mut Oracle) -> Owner {
    let mut addresses = vec![format!("Owner{n:03}@Aurora.example")];
    // The last members are nobody's.
    addresses.extend((n..MEMBERS - 100).step_by(OWNERS).map(member));
    let aliases = vec![format!("former{n:03}@borealis.example"), format!("team{:02}@aurora.example", n / 10)];
    addresses.iter().chain(&aliases).for_each(|address| oracle.gives(n, address));
    Owner { aliases, ..Owner::new(&name(n), addresses.iter().map(String::as_str)) }
}

fn address(random: &mut Random) -> String {
    let owner = random.below(OWNERS);
    match random.below(12) {
        0 => format!("owner{owner:03}+list{}@aurora.example", random.below(3)),
        1 => format!("FORMER{owner:03}@borealis.example"),
        2 => format!("team{:02}@aurora.example", random.below(20)),
        3 => format!("nobody{}@aurora.example", random.below(10)),
        4 | 5 => format!("customer{}@elsewhere.example", random.below(500)),
        6..=8 => member(random.below(MEMBERS)),
        _ => format!("Owner{owner:03}@aurora.EXAMPLE"),
    }
}

fn mail(number: usize, random: &mut Random) -> Mail {
    let count = match random.below(200) {
        0 => 500 + random.below(4501),
        1..=6 => 51 + random.below(450),
        7..=30 => 6 + random.below(45),
        _ => 1 + random.below(5),
    };
    let recipients = if count > 500 {
        let from = random.below(MEMBERS);
        (from..from + count).map(|n| member(n % MEMBERS)).collect()
    } else {
        (0..count).map(|_| address(random)).collect()
    };
    Mail { number, sender: address(random), recipients }
}

/// A report and the SHA-256 of its original.
fn report(mail: &Mail, fork: usize, recipients: &[String]) -> (Vec<u8>, Digest) {
    let lines: String = recipients
        .iter()
        .enumerate()
        .map(|(at, address)| match at % 7 {
            0 => format!("Recipient: {address}\r\n"),
            1 => format!("Bcc: {address}\r\n"),
            2 => format!("To: {address}, Expanded: group@aurora.example\r\n"),
            _ => format!("To: {address}\r\n"),
        })
        .collect();
    let (number, sender) = (mail.number, &mail.sender);
    let day = 1 + number % 28;
    // Every 50th has the Message-ID of the one before, and other content.
    let id = if number % 50 == 49 { number - 1 } else { number };
    let original = format!(
        "Received: from fork{fork} by mx\r\nFrom: {sender}\r\nTo: list@aurora.example\r\nSubject: mail {number}\r\n\
         Message-ID: <{id}@aurora.example>\r\nDate: {day:02} Mar 2026 10:00:00 +0000\r\n\r\nText {number}\r\n"
    );
    let report = format!(
        "X-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         Sender: {sender}\r\nSubject: mail {number}\r\nMessage-Id: <{id}@aurora.example>\r\n{lines}\r\n--b\r\n\
         Content-Type: message/rfc822\r\n\r\n{original}\r\n--b--\r\n"
    );
    (report.into_bytes(), Digest::of(original.as_bytes()))
}

struct Archive {
    store: Stores,
    owners: Owners,
    rules: Rules,
    added: usize,
}

impl Archive {
    fn add(&mut self, octets: &Vec<u8>) {
        let verdict = examine(octets, &Context::default()).expect("memory reads");
        let plan = plan(&verdict, &self.owners, &self.rules);
        let new = NewReport {
            source: "year",
            host: "h",
            mailbox: Some("mbx".to_owned()),
            uidl: format!("r{}", self.added),
            receipt: None,
            evidence: None,
            raw: octets,
            raw_sha256: Digest::of(octets),
            verdict: &verdict,
            plan: &plan,
            collected_ms: 1,
        };
        self.store.add(new).expect("adds");
        self.added += 1;
        if self.added.is_multiple_of(BATCH) {
            self.commit();
        }
    }

    fn commit(&mut self) {
        assert!(self.store.commit().expect("commits").failures.is_empty());
    }
}

fn number_of(subject: Option<&str>) -> usize {
    subject.and_then(|s| s.strip_prefix("mail ")).and_then(|n| n.parse().ok()).expect("one of ours")
}

#[test]
fn every_pair_is_there_exactly_once() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let reports = setting("POSTKEEP_REPORTS").unwrap_or(REPORTS as u64) as usize;
    let seed = setting("POSTKEEP_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15);
    println!("seed {seed}");
    let (mut random, started) = (Random(seed | 1), Instant::now());
    let mut oracle = Oracle::default();
    let mut owners = Owners::default();
    for n in LATE..OWNERS {
        owners.add(owner(n, &mut oracle)).expect("valid");
    }
    let own_domains = vec!["aurora.example".to_owned(), "borealis.example".to_owned()];
    let rules = Rules { own_domains, sub_addressing: Some('+'), ..Rules::default() };
    let place = Place::new();
    let mut archive = Archive { store: Stores::alone(place.open()), owners, rules, added: 0 };
    let (mut mails, mut halfway, mut repeated, mut forked, mut largest) = (Vec::new(), false, 0, 0, 0);
    let mut originals: BTreeMap<usize, Vec<Digest>> = BTreeMap::new();

    while archive.added < reports {
        if !halfway && archive.added >= reports / 2 {
            halfway = true;
            archive.commit();
            for n in 0..LATE {
                archive.owners.add(owner(n, &mut oracle)).expect("valid");
            }
            // Somebody gets an address that another one has: what was filed to the other stays his alone.
            archive.owners.add(Owner::new(&name(1), ["owner150@aurora.example"])).expect("valid");
            oracle.settle();
            oracle.gives(1, "owner150@aurora.example");
            interrupted_and_again(&mut archive, &place, &mut random);
        }
        let mail = mail(mails.len(), &mut random);
        largest = largest.max(mail.recipients.len());
        let forks = if random.one_in(5) { 1 + random.below(3) } else { 1 };
        let size = mail.recipients.len().div_ceil(forks);
        forked += usize::from(mail.recipients.len() > size);
        for (fork, recipients) in mail.recipients.chunks(size).enumerate() {
            let (octets, original) = report(&mail, fork, recipients);
            oracle.report(&mail, recipients);
            archive.add(&octets);
            if random.one_in(10) {
                oracle.report(&mail, recipients);
                archive.add(&octets);
                repeated += 1;
            }
            originals.entry(mail.number).or_default().push(original);
        }
        mails.push(mail);
    }
    archive.commit();
    let added = started.elapsed();

    let instances = check(&archive, &oracle);
    let unowned = check_unowned(&archive.store, &oracle);
    let stats = archive.store.stats().expect("reads");
    let exact = check_octets(&archive.store, &originals);
    println!(
        "{} reports of {} messages ({forked} forked, {repeated} repeated, up to {largest} recipients): {} pairs of message \
         and recipient, {instances} appearances in {OWNERS} archives ({LATE} of them came half-way), each exactly once; \
         {unowned} pairs without owner listed; {} messages in the catch-all archive; {exact} messages compared; \
         {:.1} s, {:.1} s with checks",
        archive.added,
        mails.len(),
        oracle.pairs.len(),
        oracle.nobody.len(),
        added.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    assert_eq!(stats.instances as usize, instances + oracle.nobody.len());
    drop(archive);
    // Built anew from packs and records, the catalog says the same.
    std::fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    let store = place.open();
    assert_eq!(store.stats().expect("reads"), stats);
}

/// Refiling that is stopped at random places, with the store opened again each time, ends where one pass ends; a second
/// pass changes nothing, and nothing of a message is stored again.
fn interrupted_and_again(archive: &mut Archive, place: &Place, random: &mut Random) {
    let before = archive.store.stats().expect("reads");
    let rules = archive.rules.clone();
    let mut passes = 0;
    let (mut instances, mut finished) = (0, false);
    while !finished {
        passes += 1;
        let left = std::cell::Cell::new(if passes > 5 { usize::MAX } else { 1 + random.below(40) });
        let stop = || {
            left.set(left.get() - 1);
            left.get() == 0
        };
        let done =
            refile(&mut archive.store, &archive.owners, &|_| rules.clone(), Reach::Waiting, &stop).expect("files");
        instances += done.instances;
        finished = passes > 5;
        if !finished {
            // As after a crash: what was not committed is gone, the rest is there. The old one lets go of the catalog.
            let elsewhere = Place::new();
            archive.store = Stores::alone(elsewhere.open());
            archive.store = Stores::alone(place.open());
        }
    }
    let again = refile(&mut archive.store, &archive.owners, &|_| rules.clone(), Reach::All, &|| false).expect("files");
    assert_eq!((again.changed, again.instances), (0, 0), "{again:?}");
    let after = archive.store.stats().expect("reads");
    assert!(instances > 0);
    assert_eq!(
        (after.parts, after.part_references, after.chunks),
        (before.parts, before.part_references, before.chunks)
    );
    assert_eq!(after.messages, before.messages);
    // Packs grow by the copies of the new records, and by no content: a chunk stored twice would count once.
    let (packs, records) = (after.pack_bytes - before.pack_bytes, after.record_bytes - before.record_bytes);
    assert!(packs <= records * 3 / 2 + 1024, "{packs} octets of packs for {records} of records");
    println!("half-way: {instances} appearances filed to {LATE} new owners in {passes} passes, no part stored again");
}

/// Every archive holds what the oracle says, each once, and nothing else.
fn check(archive: &Archive, oracle: &Oracle) -> usize {
    let mut instances = 0;
    for n in 0..OWNERS {
        let mut found = Vec::new();
        let listed = archive.store.list(&name(n), None, &mut |listed| {
            let direction = listed.folder.strip_prefix("Journal ").expect("one of ours").to_owned();
            found.push((direction, number_of(listed.subject.as_deref())));
            Ok(())
        });
        listed.expect("lists");
        found.sort_unstable();
        let wanted = oracle.expected.range((n, "", 0)..(n + 1, "", 0));
        let wanted: Vec<(String, usize)> =
            wanted.map(|(_, direction, mail)| ((*direction).to_owned(), *mail)).collect();
        assert_eq!(found, wanted, "the archive of {}", name(n));
        instances += found.len();
    }
    let mut nobodys = Vec::new();
    let listed = archive.store.list("@catchall", None, &mut |listed| {
        nobodys.push(number_of(listed.subject.as_deref()));
        Ok(())
    });
    listed.expect("lists");
    nobodys.sort_unstable();
    assert_eq!(nobodys, oracle.nobody.keys().copied().collect::<Vec<_>>(), "the catch-all archive");
    instances
}

fn check_unowned(store: &Stores, oracle: &Oracle) -> usize {
    let own = |address: &str| address.ends_with("@aurora.example") || address.ends_with("@borealis.example");
    let wanted: BTreeSet<(String, usize)> =
        oracle.waiting.iter().filter(|w| own(&w.0)).map(|(address, _, mail)| (address.clone(), *mail)).collect();
    let mut found = Vec::new();
    for unowned in store.unowned().expect("reads") {
        assert_eq!(unowned.count, unowned.messages.len() as u64);
        let messages = unowned.messages.iter().map(|m| (unowned.address.clone(), number_of(m.subject.as_deref())));
        found.extend(messages);
    }
    found.sort_unstable();
    assert_eq!(found, wanted.iter().cloned().collect::<Vec<_>>());
    found.len()
}

/// A sample of messages comes out as one of the forms it came in.
fn octets(store: &Stores, id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.read_message(id, &mut out).expect("reads");
    out
}

fn check_octets(store: &Stores, originals: &BTreeMap<usize, Vec<Digest>>) -> usize {
    let mut compared = 0;
    for n in (0..OWNERS).step_by(20) {
        let mut ids = Vec::new();
        let listed = store.list(&name(n), None, &mut |listed| {
            ids.push((listed.id.clone(), number_of(listed.subject.as_deref())));
            Ok(())
        });
        listed.expect("lists");
        for (id, number) in ids.into_iter().step_by(5) {
            let digest = Digest::of(&octets(store, &id));
            assert!(originals[&number].contains(&digest), "mail {number} is not what came");
            compared += 1;
        }
    }
    compared
}
