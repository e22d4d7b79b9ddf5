//! The measuring program still runs: a few reports through a floor and through the gateway, and collected again by
//! hand in the table it prints. What it measures here means nothing.

use anyhow::{Result, ensure};
use std::process::Command;

fn figures(only: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep-bench"));
    // The programs of this build stand beside it: another build would replace them under the tests that run now.
    command
        .env_remove("CARGO")
        .args(["accept", "--count", "40", "--rounds", "1", "--only", only])
        .arg("--folder")
        .arg(folder.path().join("b"));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Ratios to what was left out cannot be told, so it is not content.
    ensure!(output.status.code() == Some(1), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("NOT RUN") && text.contains("0 met"), "{text}");
    Ok(text)
}

#[test]
fn a_floor_and_the_gateway_take_reports() -> Result<()> {
    for only in ["floor: sealed, 8", "gateway, 8 conn. TLS"] {
        let text = figures(only)?;
        let row = text.lines().find(|line| line.starts_with(only));
        let rate = row.and_then(|row| row[44..].split_whitespace().next()?.parse::<f64>().ok());
        println!("{}", row.unwrap_or_default());
        ensure!(rate.is_some_and(|rate| rate > 0.0), "{text}");
    }
    Ok(())
}
