//! Configuration: one TOML file and the environment, read once, every mistake reported at once.
//!
//! A program reads a [`Config`], takes its settings out of [`Section`]s by name, and ends with
//! [`Config::finish`]: by then every wrong type, unknown key (with the nearest known one) and impossible value has
//! become a [`Mistake`] with file, key and remedy.

mod section;
mod value;

pub use section::Section;
pub use value::{parse_duration, parse_size};

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
};

/// A configuration file larger than this is not one.
const MAX_FILE: u64 = 1024 * 1024;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key, empty for the file as a whole.
    pub key: String,
    /// What is wrong and how to mend it, one sentence.
    pub text: String,
}

/// Everything that is wrong with one file.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Never empty.
    pub mistakes: Vec<Mistake>,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for Mistake { key, text } in &self.mistakes {
            if !std::mem::take(&mut first) {
                f.write_str("\n")?;
            }
            match key.as_str() {
                "" => write!(f, "{}: {text}", self.file.display())?,
                key => write!(f, "{}: {key}: {text}", self.file.display())?,
            }
        }
        Ok(())
    }
}

/// A file that was read, with the mistakes found so far.
pub struct Config {
    file: PathBuf,
    root: Section,
    mistakes: Rc<RefCell<Vec<Mistake>>>,
}

impl Config {
    /// Reads `file` and lays the environment over it: with the prefix `POSTKEEP_GATEWAY` the variable
    /// `POSTKEEP_GATEWAY__SMTP__LISTEN` sets `smtp.listen`; lists are separated by commas.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or is not TOML.
    pub fn read(file: &Path, prefix: &str) -> Result<Self, ConfigError> {
        let fail =
            |text: String| ConfigError { file: file.to_owned(), mistakes: vec![Mistake { key: String::new(), text }] };
        let bytes = read_bounded(file).map_err(fail)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            fail(format!("not UTF-8 at octet {}; save the file as UTF-8", e.utf8_error().valid_up_to()))
        })?;
        Self::from_text(file, &text, prefix)
    }

    /// As [`Self::read`], for a text that is to become `file`.
    ///
    /// # Errors
    /// [`ConfigError`] when it is not TOML.
    pub fn from_text(file: &Path, text: &str, prefix: &str) -> Result<Self, ConfigError> {
        let fail =
            |text: String| ConfigError { file: file.to_owned(), mistakes: vec![Mistake { key: String::new(), text }] };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let environment = config::Environment::with_prefix(prefix).prefix_separator("__").separator("__");
        let merged = config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize::<serde_json::Value>)
            .map_err(|e| fail(format!("not valid TOML: {}", one_line(&e.to_string()))))?;
        let mistakes = Rc::new(RefCell::new(Vec::new()));
        let root = Section::new(String::new(), merged, Rc::clone(&mistakes));
        Ok(Self { file: file.to_owned(), root, mistakes })
    }

    /// The top level.
    #[must_use]
    pub fn root(&self) -> &Section {
        &self.root
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Makes a path from the file absolute: relative paths are relative to the file.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Reports keys nobody asked for and gives the verdict.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn finish(self) -> Result<(), ConfigError> {
        self.root.report_unknown();
        let mistakes = self.mistakes.take();
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigError { file: self.file, mistakes }) }
    }
}

/// Finds the configuration file: the one named, else `name` in the working directory, else in `/etc/postkeep`.
#[must_use]
pub fn find_file(named: Option<&Path>, name: &str) -> PathBuf {
    let here = PathBuf::from(name);
    match named {
        Some(path) => path.to_owned(),
        None if here.exists() => here,
        None => Path::new("/etc/postkeep").join(name),
    }
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let meta = std::fs::metadata(file).map_err(|e| format!("cannot be read: {e}; name another with --config"))?;
    if !meta.is_file() {
        return Err("not a regular file; name another with --config".into());
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|e| format!("cannot be opened: {e}; check its permissions"))?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("larger than 1 MiB; a configuration file is never that large".into());
    }
    Ok(bytes)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).expect("writes");
        let config = Config::read(&file, "POSTKEEP_TEST_NONE").expect("valid TOML");
        (folder, config)
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let (_folder, config) = config("hostnam = 'x'\nport = 'y'\n[smtp]\nlisten = 5\nmax = '1 GB'\n");
        let root = config.root();
        assert_eq!(root.text("hostname"), None);
        assert_eq!(root.integer("port", 1..=65_535), None);
        let smtp = root.section("smtp");
        assert_eq!(smtp.list("listen"), None);
        assert_eq!(smtp.size("max"), None);
        let error = config.finish().expect_err("four mistakes");
        let text = error.to_string();
        assert_eq!(error.mistakes.len(), 4, "{text}");
        assert!(text.contains("hostnam: unknown key; did you mean `hostname`?"), "{text}");
        assert!(text.contains("smtp.max: "), "{text}");
    }

    #[test]
    fn values_are_read() {
        let (_folder, config) =
            config("h = 'x'\nn = 5\nb = true\nd = '90s'\ns = '320 MiB'\nl = ['a', 'b']\n[[t]]\nk = 1\n");
        let root = config.root();
        assert_eq!(root.text("h").as_deref(), Some("x"));
        assert_eq!(root.integer("n", 0..=9), Some(5));
        assert_eq!(root.flag("b"), Some(true));
        assert_eq!(root.duration("d"), Some(std::time::Duration::from_secs(90)));
        assert_eq!(root.size("s"), Some(320 * 1024 * 1024));
        assert_eq!(root.list("l"), Some(vec!["a".into(), "b".into()]));
        let tables = root.tables("t");
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].integer("k", 0..=9), Some(1));
        config.finish().expect("all used");
    }
}
