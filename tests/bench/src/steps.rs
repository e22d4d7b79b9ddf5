//! What a disk takes for the steps before a 250, one after the other by one thread that does nothing else.
//!
//! The third is the ledger's: an entry must not be durable before the name it speaks of, so a message that comes alone
//! waits for all of them. It is no floor of the reply in the strict sense: the gateway writes a large message while it
//! arrives, and the clock of the reply starts at its last octet. What the gateway's reply takes beyond the three is
//! sealing the end, both digests, the signature, the index and waking threads; where it takes less, that was the writing.

use crate::{peers, table::median};
use anyhow::Result;
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::Instant,
};

/// Octets of an entry as the ledger appends them, about.
const ENTRY: usize = 512;

/// Messages that go through them in every round.
const MESSAGES: usize = 500;

/// What each step took, ms, for every message of every round.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    files: Vec<f64>,
    names: Vec<f64>,
    entries: Vec<f64>,
    all: Vec<f64>,
}

impl Steps {
    /// Takes messages through them, in as many folders as there are mailboxes elsewhere, each with its ledger.
    pub(crate) fn take(&mut self, folder: &Path, messages: &[Arc<Vec<u8>>]) -> Result<()> {
        let mut ledgers = Vec::new();
        for number in 0..peers::MAILBOXES {
            let folder = folder.join(number.to_string());
            fs::create_dir(&folder)?;
            let ledger = OpenOptions::new().create(true).append(true).open(folder.join("ledger"))?;
            ledgers.push((folder, ledger));
        }
        crate::settle()?;
        for (number, message) in messages.iter().take(MESSAGES).enumerate() {
            let (folder, ledger) = &mut ledgers[number % peers::MAILBOXES];
            let (from, to) = (folder.join("tmp"), folder.join(number.to_string()));
            let began = Instant::now();
            let mut file = File::create(&from)?;
            file.write_all(message)?;
            file.sync_all()?;
            drop(file);
            let written = Instant::now();
            fs::rename(&from, &to)?;
            File::open(&*folder)?.sync_all()?;
            let named = Instant::now();
            ledger.write_all(&[b'.'; ENTRY])?;
            ledger.sync_data()?;
            let entered = Instant::now();
            let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
            self.files.push(ms(began, written));
            self.names.push(ms(written, named));
            self.entries.push(ms(named, entered));
            self.all.push(ms(began, entered));
        }
        Ok(())
    }

    /// Prints them beside the median of the final reply of the gateway and of the file floor, ms.
    pub(crate) fn print(&self, gateway: f64, floor: f64) {
        println!("\nwhat the time of one message is made of, ms, medians; the disk alone, by one thread:");
        let row = |what: &str, ms: f64| match ms.is_nan() {
            true => println!("{what:<64}{:>9}", "-"),
            false => println!("{what:<64}{ms:>9.2}"),
        };
        let of = |times: &[f64]| median(times.iter().copied());
        let (file, name, all) = (of(&self.files), of(&self.names), of(&self.all));
        row("a file of the message's size: written, synced", file);
        row("its name: renamed, the folder synced", name);
        row("an entry of 512 octets: appended, synced", of(&self.entries));
        row("the first two, which the file floor does", file + name);
        row("all three, which the gateway does", all);
        row("p50 of the final reply, file floor", floor);
        row("p50 of the final reply, gateway", gateway);
        row("the gateway's less the floor's", gateway - floor);
        row("the gateway's less all three", gateway - all);
    }
}
