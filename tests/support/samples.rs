//! The sample reports and what is true of each.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;

/// How many there are; a missing file must not make a test pass.
pub const COUNT: usize = 67;

/// One sample.
pub struct Sample {
    pub name: String,
    pub file: PathBuf,
    pub bytes: Vec<u8>,
    pub truth: Value,
}

impl Sample {
    /// A text from the description.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.truth.get(key).and_then(Value::as_str)
    }

    /// Reverse-path it came with.
    pub fn mail_from(&self) -> &str {
        self.truth.pointer("/smtp/mail_from").and_then(Value::as_str).unwrap_or_default()
    }

    /// Forward-paths it came with.
    pub fn rcpt_to(&self) -> Vec<&str> {
        let list = self.truth.pointer("/smtp/rcpt_to").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether it came from where reports come from.
    pub fn trusted(&self) -> bool {
        self.truth.pointer("/smtp/trusted") == Some(&Value::Bool(true))
    }
}

/// All of them, by name.
pub fn all() -> Result<Vec<Sample>> {
    let folder = super::root().join("archiver/tests/samples/journal");
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "eml") {
            let name = file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let truth = serde_json::from_slice(&std::fs::read(file.with_extension("json"))?)?;
            samples.push(Sample { name, bytes: std::fs::read(&file)?, file, truth });
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(samples.len() == COUNT, "{} samples instead of {COUNT} in {}", samples.len(), folder.display());
    Ok(samples)
}
