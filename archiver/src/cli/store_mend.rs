//! `store rebuild-records`, `store repair`, `store compact`.

use super::{
    held::who,
    load_and_lock,
    progress::Bar,
    store::{printable, say, stdout_failed},
};
use crate::{
    archive::Folder,
    store::{
        Compacting, LostContent, RebuiltRecords, Repaired, Store, StoreState, Unlock, rebuild_records as make_records,
        repair as mend,
    },
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Whether all is well, the JSON, the lines for people.
type Told = (bool, Value, Vec<String>);

/// What is done with one store.
type Work<'a> = dyn FnMut(&Path, &Unlock<'_>, &Arc<dyn Disk>) -> Result<Told, Failure> + 'a;

/// Does something with every store that may be changed; exit 1 when one is not well afterwards.
fn each(config: Option<&Path>, json: bool, work: &mut Work<'_>) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock(config, &*disk)?;
    let folder = Folder::of(&config, Arc::clone(&disk));
    let key = folder.unlock_key()?;
    let mut well = true;
    for found in folder.list()? {
        let state = found.state()?;
        if matches!(state, StoreState::WriteProtected | StoreState::Disabled) {
            eprintln!("store {} is {} and was left alone", found.name, state.word());
            continue;
        }
        let (good, mut value, lines) = work(&found.dir, &Unlock::Key(&key), &disk)?;
        well &= good;
        let said = if json {
            if let Some(value) = value.as_object_mut() {
                value.insert("store".to_owned(), json!(found.name));
            }
            say(&value)
        } else {
            lines.iter().try_for_each(|line| say(&format_args!("{}: {}", found.name, printable(line))))
        };
        said.map_err(stdout_failed)?;
    }
    Ok(if well { Exit::Done } else { Exit::Attention })
}

pub(super) fn rebuild_records(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    each(config, json, &mut |dir, unlock, disk| {
        let mut bar = Bar::new("rebuild-records", "files", json);
        let told = make_records(dir, unlock, disk, &mut |done, total| bar.at(done, total))?;
        Ok((told.ok, json!(told), records(&told)))
    })
}

fn records(told: &RebuiltRecords) -> Vec<String> {
    let RebuiltRecords { records, from_copies, copies_made, .. } = told;
    let mut lines = vec![match told.rebuilt {
        true => format!("{records} records, {from_copies} of them from their copies"),
        false => format!("{records} records, all whole"),
    }];
    lines.extend((*copies_made > 0).then(|| format!("{copies_made} missing copies of records were made")));
    lines.extend(told.moved_to.iter().map(|path| format!("the files of before are in {path}")));
    lines.extend(told.lost.iter().map(|number| format!("record {number} is lost")));
    lines
}

pub(super) fn repair(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    each(config, json, &mut |dir, unlock, disk| {
        let mut bar = Bar::new("repair", "files", json);
        let told = mend(dir, unlock, disk, &mut |done, total| bar.at(done, total))?;
        Ok((told.ok, json!(told), repaired(&told)))
    })
}

fn repaired(told: &Repaired) -> Vec<String> {
    let mut lines = records(&told.records);
    lines.extend(told.packs.iter().map(|pack| format!("damaged pack {pack}")));
    lines.extend(told.moved_to.iter().map(|path| format!("damaged files are in {path}")));
    lines.extend(told.lost.iter().map(lost));
    lines.push(format!("{} messages and {} reports are whole, {} lost", told.messages, told.reports, told.lost.len()));
    lines
}

fn lost(one: &LostContent) -> String {
    let pairs =
        |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().join(", ");
    format!(
        "lost: message {}, in {}; reports {}; {}",
        one.message.as_deref().unwrap_or("-"),
        pairs(&one.appears),
        pairs(&one.reports),
        one.reason
    )
}

pub(super) fn compact(config: Option<&Path>, least: u8, old_epochs: bool, json: bool) -> Result<Exit, Failure> {
    let wanted = Compacting { least: f64::from(least) / 100.0, old_epochs };
    each(config, json, &mut |dir, unlock, disk| {
        let mut store = Store::open(dir, unlock, Arc::clone(disk))?;
        let mut bar = Bar::new("compact", "packs", json);
        let told = store.compact(wanted, who().as_deref(), &mut |done, total| bar.at(done, total))?;
        let mut lines = vec![format!(
            "{} packs given up, {} chunks moved, {} dropped; {} octets of packs before, {} after",
            told.packs, told.chunks_moved, told.chunks_dropped, told.bytes_before, told.bytes_after
        )];
        lines.extend(told.left.iter().map(|pack| format!("{pack} is damaged and was left; run `store repair`")));
        Ok((told.left.is_empty(), json!(told), lines))
    })
}
