//! Instructions of the pure parts, counted by callgrind and compared with what is written down.
//!
//! Instructions do not depend on what else a machine does, but on its processor (other code is chosen where it has
//! other instructions) and on the compiler; so what is written down names no target, it shows changes.

use anyhow::{Context as _, Result, ensure};
use postkeep_bench::subject::ONCE;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// More than this over what is written down is a regression.
const TOLERANCE: f64 = 1.10;

/// Counts everything; whether nothing became more expensive.
pub(crate) fn run(write: bool) -> Result<bool> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = own.join("instructions.txt");
    let before = read(&file)?;
    let (mut found, mut good) = (BTreeMap::new(), true);
    println!("{:<44}{:>14}{:>12}{:>12}", "", "instructions", "an octet", "before");
    for program in benches(&own.join("../.."))? {
        let names = Command::new(&program).env(ONCE, "?").output()?;
        for line in String::from_utf8(names.stdout)?.lines() {
            let (name, octets) = line.rsplit_once(' ').context("a name and its octets")?;
            let count = count(&program, name)?;
            let old = before.get(name).copied();
            let ratio = old.map(|old| count as f64 / old as f64);
            let worse = ratio.is_some_and(|ratio| ratio > TOLERANCE);
            good &= !worse;
            let each = count as f64 / octets.parse::<f64>()?;
            let shown = ratio.map_or_else(|| "new".to_owned(), |ratio| format!("x {ratio:.3}"));
            println!("{name:<44}{count:>14}{each:>12.1}{shown:>12}{}", if worse { "  MORE" } else { "" });
            found.insert(name.to_owned(), count);
        }
    }
    if write {
        let lines: String = found.iter().map(|(name, count)| format!("{name}\t{count}\n")).collect();
        fs::write(&file, lines)?;
    }
    Ok(good)
}

fn read(file: &Path) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(|line| {
        let (name, count) = line.split_once('\t').context("a name, a tab and a number")?;
        Ok((name.to_owned(), count.parse()?))
    });
    lines.collect()
}

/// Builds the benches; where they stand.
fn benches(workspace: &Path) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["bench", "--no-run", "--bench", "pure", "--message-format=json"]);
    command.args(["-p", "postkeep-gateway", "-p", "postkeep-archiver"]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cargo bench --no-run failed");
    let mut found = Vec::new();
    for message in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>() {
        let message = message?;
        let is_bench =
            message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bench"));
        if let Some(program) = message["executable"].as_str().filter(|_| is_bench) {
            found.push(PathBuf::from(program));
        }
    }
    ensure!(!found.is_empty(), "cargo built no benches");
    Ok(found)
}

fn count(program: &Path, name: &str) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*subject*counted*"]);
    let output = command.arg(program).env(ONCE, name).output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind:\n{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :")).context("no count")?.1;
    let count = line.trim().parse().with_context(|| format!("a count in {line:?}"))?;
    ensure!(count > 0, "callgrind collected nothing for {name}");
    Ok(count)
}
