//! Writes the corpus as files: `postkeep-bench corpus FOLDER [COUNT [SEED]]`.

use anyhow::{Context as _, Result, bail};
use postkeep_bench::corpus::{self, Sizes};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, count, seed) = match words.as_slice() {
        ["corpus", folder] => (folder, corpus::COUNT, corpus::SEED),
        ["corpus", folder, count] => (folder, count.parse()?, corpus::SEED),
        ["corpus", folder, count, seed] => (folder, count.parse()?, seed.parse()?),
        _ => bail!("usage: postkeep-bench corpus FOLDER [COUNT [SEED]]"),
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    let mut sizes = Vec::new();
    for report in corpus::reports(seed, count) {
        let path = Path::new(folder).join(format!("{:06}.eml", report.number));
        std::fs::write(&path, &report.octets).with_context(|| format!("cannot write {}", path.display()))?;
        sizes.push(report.octets.len());
    }
    println!("{:?}", Sizes::of(sizes));
    Ok(())
}
