//! The recovery passphrase is worth something: with the unlock key lost, it makes another.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn archiver(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postkeep-archiver"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // A command that asks for nothing may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ends")
}

#[test]
fn a_lost_unlock_key_is_made_anew_with_the_passphrase() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let folder = folder.path();
    let made = archiver(folder, &["init"], "");
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).expect("text");
    let passphrase = text.lines().find_map(|line| line.strip_prefix("recovery passphrase: ")).expect("shown").trim();
    let key = folder.join("data/unlock.key");
    let code = |arguments: &[&str], input: &str| archiver(folder, arguments, input).status.code();
    assert_eq!(code(&["store", "verify"], ""), Some(0));
    assert_eq!(code(&["store", "unlock"], passphrase), Some(5), "a key that is there is not replaced");
    std::fs::remove_file(&key).expect("removes");
    let lost = archiver(folder, &["store", "verify"], "");
    assert_ne!(lost.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&lost.stderr).contains("store unlock"), "the remedy is named");
    assert_eq!(code(&["store", "unlock"], "not the passphrase\n"), Some(4));
    assert!(!key.exists());
    assert_eq!(code(&["store", "unlock"], &format!("{passphrase}\n")), Some(0));
    assert_eq!(code(&["store", "verify"], ""), Some(0));
}
