//! A store is merged into another: whatever is killed, every message is shown once, and the command said again ends with
//! everything in the one store.

use super::{Deed, Done, Promised, numbered};
use crate::support::{
    Archiver, copy,
    strike::{Seen, Watch},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Messages in each of the two stores.
const EACH: usize = 3;

pub struct Merge {
    archiver: Archiver,
    /// The data folder as it was.
    template: PathBuf,
    before: Vec<(String, Value)>,
    log: PathBuf,
    promised: usize,
    found: usize,
    _folder: tempfile::TempDir,
}

impl Merge {
    fn import(archiver: &Archiver, folder: &Path, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            let file = folder.join(format!("{number}.eml"));
            fs::write(&file, numbered(number + 1).1)?;
            let path = file.to_str().context("text")?;
            archiver.run(&["import", path, "--owner", "bob"], b"")?.expect(0)?;
        }
        Ok(())
    }

    /// Reports in a store.
    fn reports(&self, name: &str) -> Result<u64> {
        let stores = self.archiver.run(&["store", "list", "--json"], b"")?.expect(0)?.json_stream()?;
        let store = stores.iter().find(|store| store["name"] == name).context("the store is listed")?;
        store["reports"].as_u64().context("a number")
    }
}

impl Deed for Merge {
    const NAME: &'static str = "a store merged into another";

    fn prepare() -> Result<Self> {
        let folder = crate::support::folder()?;
        let archiver = Archiver::create(folder.path())?;
        Self::import(&archiver, folder.path(), 0..EACH)?;
        archiver.run(&["store", "create", "second"], b"")?.expect(0)?;
        archiver.run(&["store", "set-state", "second", "current"], b"")?.expect(0)?;
        Self::import(&archiver, folder.path(), EACH..2 * EACH)?;
        let (template, log) = (folder.path().join("template"), folder.path().join("calls"));
        copy(&archiver.data(), &template)?;
        let before = archiver.list_all()?;
        Ok(Self { archiver, template, before, log, promised: 0, found: 0, _folder: folder })
    }

    fn once(&mut self, watch: Watch) -> Result<Done> {
        fs::remove_dir_all(self.archiver.data())?;
        copy(&self.template, &self.archiver.data())?;
        let command = self.archiver.command(&["store", "merge", "main", "second"])?;
        let output = watch.run(&command, &self.archiver.folder, &self.log, b"")?;
        ensure!([0, 1, 2, 3, 137].contains(&output.code), "exit {}: {}", output.code, output.err);
        ensure!(!output.err.contains("panicked"), "{}", output.err);
        let seen = Seen::read(&self.log)?;
        ensure!(self.archiver.list_all()? == self.before, "the lists are other ones behind the blow");
        let (main, second) = (self.reports("main")?, self.reports("second")?);
        let each = EACH as u64;
        ensure!(main == 0 || main == each, "{main} reports in main");
        ensure!(second == each || second == 2 * each, "{second} reports in second");
        ensure!(main == each || second == 2 * each, "taken out of one and not in the other");
        let stage = match (main, second) {
            (0, _) => "in the other store alone",
            (_, second) if second == each => "in its own store alone",
            _ => "in both stores",
        };
        self.archiver.run(&["store", "merge", "main", "second"], b"")?.expect(0)?;
        ensure!((self.reports("main")?, self.reports("second")?) == (0, 2 * each), "not all of it was moved");
        ensure!(self.archiver.list_all()? == self.before, "the lists are other ones in the end");
        self.promised += 2 * EACH;
        self.found += self.before.len();
        Ok(Done { seen, stage, heard: format!("exit {}", output.code) })
    }

    fn finish(self) -> Result<Promised> {
        let (code, verified) = self.archiver.verify()?;
        ensure!(code == 0, "{verified}");
        Ok(Promised { acknowledged: self.promised, found: self.found })
    }
}
