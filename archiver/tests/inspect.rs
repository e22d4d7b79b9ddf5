//! `inspect` and `owner` as a person at the terminal meets them: mistakes end in one sentence and a documented code.

use std::{
    path::Path,
    process::{Command, Output},
};

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep-archiver"));
    command.current_dir(folder).args(args).output().expect("runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn sentence(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word} in {text}"));
}

#[test]
fn inspect_names_the_file_it_cannot_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    sentence(&run(folder.path(), &["inspect", "none.eml"]), 3, &["none.eml"]);
    sentence(&run(folder.path(), &["inspect", "."]), 3, &["not a regular file"]);
    sentence(&run(folder.path(), &["inspect", "x", "--profile", "nonsense"]), 2, &["nonsense", "journal"]);
}

#[test]
fn inspect_shows_any_file_without_harm_to_the_terminal() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("empty"), b"").expect("writes");
    std::fs::write(folder.path().join("x"), b"Subject: a\x1b[31mb\r\nFrom: a@x.example\r\n\r\n").expect("writes");
    let empty = run(folder.path(), &["inspect", "empty"]);
    assert!(empty.status.success() && out(&empty).contains("plain-message"));
    let shown = out(&run(folder.path(), &["inspect", "x"]));
    assert!(shown.contains("a@x.example") && !shown.contains('\x1b'), "{shown}");
}

#[test]
fn owners_are_added_and_listed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = "data_dir = \"data\"\nown_domains = [\"a.example\"]\nowners_file = \"owners.toml\"\n";
    std::fs::write(folder.path().join("postkeep-archiver.toml"), config).expect("writes");
    let folder = folder.path();
    assert!(run(folder, &["owner", "add", "ann", "ann@a.example"]).status.success());
    assert!(run(folder, &["owner", "add", "ann", "a@a.example", "--full-name", "Ann Brook"]).status.success());
    assert!(run(folder, &["owner", "add", "bob", "bob@a.example"]).status.success());
    assert_eq!(
        out(&run(folder, &["owner", "list"])),
        "ann (Ann Brook): ann@a.example, a@a.example\nbob: bob@a.example\n"
    );
    let json = out(&run(folder, &["owner", "list", "--json"]));
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["addresses"], serde_json::json!(["ann@a.example", "a@a.example"]));
    sentence(&run(folder, &["owner", "add", "carl", "nobody"]), 2, &["nobody", "name@domain"]);
    sentence(&run(folder, &["owner", "add", "@catchall", "x@a.example"]), 2, &["@catchall"]);
    std::fs::write(folder.join("owners.toml"), "[[owner]]\nnam = \"x\"\n").expect("writes");
    sentence(&run(folder, &["owner", "list"]), 2, &["owners.toml", "owner[1].nam", "owner[1].name"]);
    sentence(&run(folder, &["owner", "add", "carl", "carl@a.example"]), 2, &["owners.toml"]);
}
