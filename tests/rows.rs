//! Every row of the bad inputs for the SMTP server (5.1), the POP3 server (5.2), the POP3 client (5.3) and journal reports
//! (5.4) has a dialogue or a test that carries its label, for example `5.2/23`. Labels stand in the title of a dialogue file (or of a dialogue
//! within one) and in the comment above a test function; a label anywhere else counts for nothing.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const SURFACES: [(&str, &str); 4] =
    [("5.1", "SMTP server"), ("5.2", "POP3 server"), ("5.3", "POP3 client"), ("5.4", "journal reports")];
const ROWS: usize = 30;
/// Where labelled things are, and for which surfaces their labels count.
const PLACES: [(&str, &[&str]); 3] = [
    ("gateway/tests", &["5.1", "5.2"]),
    ("gateway/src/smtp/machine/tests.rs", &["5.1"]),
    ("archiver", &["5.3", "5.4"]),
];

/// The labels of a text: in a dialogue those of titles, in a test those of comments right above a function.
fn labels(file: &Path, text: &str) -> BTreeSet<(String, usize)> {
    let dialogue = file.extension().is_some_and(|e| e == "txt");
    let has_titles = text.lines().any(|line| line.starts_with("== "));
    let (mut found, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        if dialogue {
            // A file without titles is one dialogue; its first lines name it.
            let is_title = if has_titles { line.starts_with("== ") } else { number < 2 && line.starts_with('#') };
            if is_title {
                found.extend(labels_of(line));
            }
            continue;
        }
        let line = line.trim_start();
        if line.starts_with("//") {
            waiting.extend(labels_of(line));
        } else if line.starts_with("fn ") || line.starts_with("async fn ") || line.contains("ask(\"") {
            // Within a function: the comment above the step that shows it.
            found.append(&mut waiting);
        } else if !line.starts_with("#[") && !line.is_empty() && !line.starts_with("let ") {
            waiting.clear();
        }
    }
    found
}

fn labels_of(line: &str) -> Vec<(String, usize)> {
    let label = |at: usize, surface: &str| {
        let digits = line.get(at + surface.len() + 1..at + surface.len() + 3)?;
        Some((surface.to_owned(), digits.parse().ok().filter(|row| (1..=ROWS).contains(row))?))
    };
    let all = SURFACES.iter().flat_map(|(surface, _)| {
        let starts = line.match_indices(&format!("{surface}/")).map(|(at, _)| at).collect::<Vec<_>>();
        starts.into_iter().filter_map(|at| label(at, surface)).collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn every_row_has_its_test() -> Result<()> {
    let mut shown: BTreeMap<(String, usize), BTreeSet<String>> = BTreeMap::new();
    for (place, surfaces) in PLACES {
        let place = support::root().join(place);
        let files = if place.is_dir() { support::files_below(&place)? } else { vec![place] };
        let wanted = |file: &Path| file.extension().is_some_and(|e| e == "txt" || e == "rs");
        for file in files.iter().filter(|file| wanted(file)) {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let name = file.strip_prefix(support::root())?.display().to_string();
            for label in labels(file, &text) {
                ensure!(
                    surfaces.contains(&label.0.as_str()),
                    "{name}: {}/{:02} does not belong here",
                    label.0,
                    label.1
                );
                shown.entry(label).or_default().insert(name.clone());
            }
        }
    }
    let mut missing = Vec::new();
    for (surface, what) in SURFACES {
        println!("{surface} {what}");
        for row in 1..=ROWS {
            match shown.get(&(surface.to_owned(), row)) {
                Some(files) => {
                    println!("  {surface}/{row:02}  {}", files.iter().cloned().collect::<Vec<_>>().join(", "))
                }
                None => missing.push(format!("{surface}/{row:02}")),
            }
        }
    }
    println!("rows {} / {}", shown.len(), SURFACES.len() * ROWS);
    ensure!(missing.is_empty(), "rows without a dialogue or test: {}", missing.join(", "));
    ensure!(shown.len() == SURFACES.len() * ROWS);
    Ok(())
}

#[test]
fn a_label_elsewhere_counts_for_nothing() {
    let (test, dialogue) = (Path::new("a.rs"), Path::new("a.txt"));
    let rows = |file, text| labels(file, text).into_iter().map(|(s, r)| format!("{s}/{r}")).collect::<Vec<_>>();
    assert_eq!(rows(test, "/// 5.1/04: x\n#[test]\nfn x() {}\n"), ["5.1/4"]);
    assert!(rows(test, "// 5.1/04\nconst X: u8 = 1;\nfn x() {}\n").is_empty());
    assert!(rows(test, "fn x() { \"5.1/04\" }\n").is_empty());
    assert_eq!(rows(dialogue, "# 5.2/31 5.2/30: x\nS: 5.2/01\n# 5.2/02\n"), ["5.2/30"]);
    assert_eq!(rows(dialogue, "# 5.2/01\n== 5.2/02: x\n"), ["5.2/2"]);
}
