//! Samples damaged at random: no panic, no report that takes long, no memory that grows. `POSTKEEP_MUTATIONS` sets how
//! many (1,000,000 in the full run), `POSTKEEP_SEED` where the generator begins. One test, so that time and memory are its own.

use postkeep_archiver::{
    filing::{Owner, Owners, Rules, assign},
    import::mbox,
    journal::{self, Context, Handling, Profile},
    store::split::leaves,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const CASES: usize = 20_000;
/// Processor time of one case at most.
const LONGEST: Duration = Duration::from_secs(1);
/// Memory that all cases together may need beyond the samples.
const MEMORY: u64 = 128 * 1024;

/// A small generator, so that a failure can be repeated from its number.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

fn mutate(message: &[u8], random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b":",
        b"\"",
        b"(",
        b"<",
        b"=",
        b"\0",
        b";",
        b"=?utf-8?q?",
        b"Content-Type: ",
        b"\xff",
    ];
    let mut message = message.to_vec();
    for _ in 0..1 + random.below(6) {
        let at = random.below(message.len() + 1);
        match random.below(6) {
            0 => message.truncate(at),
            1 => drop(message.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            2 => {
                let end = (at + random.below(200)).min(message.len());
                drop(message.drain(at..end));
            }
            3 => {
                let end = (at + random.below(2000)).min(message.len());
                let copy = message[at..end].to_vec();
                let to = random.below(message.len() + 1);
                drop(message.splice(to..to, copy));
            }
            4 => message.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (at % 8)),
            _ => message.iter_mut().skip(at).take(1 + at % 9).for_each(|b| *b = b'-'),
        }
    }
    message
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Processor time this thread has used: what other programs do on the machine does not count.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
}

/// Most memory this process ever held, in KiB.
fn peak_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("is there");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// Name and octets of every sample that is not large: the large ones would only repeat their recipients.
fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/journal");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the samples are there")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "eml"))
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let name = file.file_stem().expect("has a name").to_string_lossy().into_owned();
        (name, std::fs::read(&file).expect("reads"))
    };
    files.into_iter().map(read).filter(|(_, message)| message.len() < 64 * 1024).collect()
}

fn owners() -> Owners {
    let mut owners = Owners::default();
    for name in ["ann", "bob", "dora"] {
        owners.add(Owner::new(name, [format!("{name}@aurora.example").as_str()])).expect("valid");
    }
    owners
}

/// All that is done with a message before the store writes it.
#[expect(clippy::ptr_arg, reason = "octets are something with a size")]
fn read(message: &Vec<u8>, profile: Profile, owners: &Owners) {
    let verdict = journal::examine(message, &Context { profile, ..Context::default() }).expect("memory never fails");
    let content = verdict.content.as_ref().map(|c| c.octets(message).expect("a part of it"));
    assert!(content.as_ref().is_none_or(|content| content.len() <= message.len() as u64));
    assert_eq!(content.is_none(), verdict.handling == Handling::Quarantine);
    let plan =
        assign(&verdict, None, owners, &Rules { own_domains: vec!["aurora.example".into()], ..Rules::default() });
    assert!(verdict.handling != Handling::Quarantine || plan.instances.is_empty());
    let mut last = 0;
    for leaf in leaves(message).expect("memory never fails") {
        assert!(leaf.body.start >= last && leaf.body.end <= message.len() as u64, "in order, not overlapping");
        last = leaf.body.end;
    }
}

/// As an mbox every octet is in a message, in a separator or in an empty line.
#[expect(clippy::ptr_arg, reason = "octets are something with a size")]
fn read_mbox(message: &Vec<u8>) {
    let dialect = mbox::detect(message).expect("memory never fails");
    let mut reader = mbox::Reader::new(message, dialect);
    let mut last = 0;
    while let Some(found) = reader.next_message().expect("memory never fails") {
        assert!(found.content.start >= last && found.content.end <= message.len() as u64);
        last = found.content.end;
        let mut size = 0;
        mbox::unquoted(message, &found, dialect, &mut |block| {
            size += block.len() as u64;
            Ok(())
        })
        .expect("memory never fails");
        assert!(size <= found.content.end - found.content.start);
    }
}

#[test]
fn damaged_reports_are_read_without_harm() {
    let (samples, owners) = (samples(), owners());
    let (cases, seed) = (number("POSTKEEP_MUTATIONS", CASES), number("POSTKEEP_SEED", 1) as u64);
    let (mut random, mut slowest) = (Random(seed), (Duration::ZERO, String::new()));
    let before = peak_memory();
    let mut time = processor_time();
    for case in 0..cases {
        let (name, sample) = &samples[case % samples.len()];
        let message = mutate(sample, &mut random);
        let profile = if case % 4 == 3 { Profile::Multidrop } else { Profile::Journal };
        let made = std::panic::catch_unwind(|| {
            read(&message, profile, &owners);
            if case % 8 == 0 {
                let (first, last) = (b"From a 10:00 2026\n".as_slice(), b"\n\nFrom b\nA: 1\n\n".as_slice());
                read_mbox(&[first, message.as_slice(), last].concat());
            }
        });
        assert!(made.is_ok(), "case {case} of {name}, seed {seed}");
        let now = processor_time();
        if now - time > slowest.0 {
            slowest = (now - time, format!("case {case} of {name}"));
        }
        time = now;
    }
    let memory = peak_memory().saturating_sub(before);
    println!(
        "{cases} damaged reports, seed {seed}: no panic, the slowest {:?} of processor time ({}), {memory} KiB more memory",
        slowest.0, slowest.1
    );
    assert!(slowest.0 < LONGEST, "{slowest:?}");
    assert!(memory < MEMORY, "{memory} KiB");
}
