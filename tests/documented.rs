//! What the documentation says is there, is there.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use support::{files_below, program::program, root, run};

fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = files_below(&root().join("docs"))?;
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages.retain(|page| page.extension().is_some_and(|e| e == "md"));
    Ok(pages)
}

#[test]
fn links_point_to_files() -> Result<()> {
    let (mut links, mut broken) = (0, Vec::new());
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let folder = page.parent().context("folder")?;
            if !folder.join(target).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    println!("links to files: {links}");
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    ensure!(links > 50, "only {links} links were found");
    Ok(())
}

/// The lines of the shell examples in a page.
fn shell_lines(page: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(page)?;
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    Ok(blocks.flat_map(str::lines).map(str::to_owned).collect())
}

#[test]
fn the_commands_of_the_readme_exist() -> Result<()> {
    let lines = shell_lines(&root().join("README.md"))?;
    ensure!(lines == ["cargo run --release --example quickstart", "tests/run"], "{lines:?}");
    ensure!(root().join("examples/quickstart.rs").is_file());
    for script in ["tests/run", ".ci/run"] {
        let file = root().join(script);
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.starts_with("#!/usr/bin/env bash\n"), "{script}");
        use std::os::unix::fs::PermissionsExt as _;
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o111 == 0o111, "{script} is not executable");
        run(Command::new("bash").arg("-n").arg(&file), b"")?.expect(0)?;
    }
    Ok(())
}

#[test]
fn the_commands_of_the_pages_exist() -> Result<()> {
    let mut known = 0;
    for page in pages()? {
        for line in shell_lines(&page)? {
            let mut words = line.split_whitespace();
            let Some(name @ ("postkeep-gateway" | "postkeep-archiver")) = words.next() else { continue };
            let subcommand: Vec<&str> = words
                .clone()
                .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !w.starts_with('-'))
                .collect();
            // `owner add ann`: the last words may be arguments, so try with fewer.
            let accepted = (1..=subcommand.len()).rev().any(|count| {
                let words = subcommand.get(..count).unwrap_or_default();
                program(name)
                    .and_then(|p| run(Command::new(p).args(words).arg("--help"), b""))
                    .is_ok_and(|output| output.code == 0)
            });
            ensure!(accepted, "{}: {line}", page.display());
            for option in words.filter(|w| w.starts_with("--")) {
                let first = subcommand.first().copied().unwrap_or_default();
                let help = help_of(name, &subcommand)?;
                ensure!(help.contains(option), "{}: {first} has no {option}", page.display());
            }
            known += 1;
        }
    }
    println!("documented command lines: {known}");
    ensure!(known > 8);
    Ok(())
}

fn help_of(name: &str, words: &[&str]) -> Result<String> {
    for count in (0..=words.len()).rev() {
        let output = run(Command::new(program(name)?).args(words.get(..count).unwrap_or_default()).arg("--help"), b"")?;
        if output.code == 0 {
            return Ok(output.text());
        }
    }
    Ok(String::new())
}

#[test]
fn the_example_configurations_load() -> Result<()> {
    let deploy = root().join("deploy");
    let gateway = postkeep_gateway::config::GatewayConfig::load(&deploy.join("gateway.toml"))?;
    let archiver = postkeep_archiver::config::ArchiverConfig::load(&deploy.join("archiver.toml"))?;
    for name in ["msgw1.toml", "msgw2.toml"] {
        let config = postkeep_gateway::config::GatewayConfig::load(&deploy.join("redundancy").join(name))?;
        ensure!(config.sync.is_used() && config.domains == ["msgw.example"], "{name}");
    }
    let both = postkeep_archiver::config::ArchiverConfig::load(&deploy.join("redundancy/archiver.toml"))?;
    ensure!(both.sources.iter().all(|source| source.mx.is_some()), "an archiver for both gateways");
    ensure!(!gateway.smtp.listen.is_empty() && !archiver.sources.is_empty(), "an example without content");
    Ok(())
}

#[test]
fn every_dependency_has_its_reason() -> Result<()> {
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(root().join("Cargo.toml"))?)?;
    let table = |keys: [&str; 2]| manifest.get(keys[0])?.as_table()?.get(keys[1])?.as_table();
    let dependencies = table(["workspace", "dependencies"]).context("workspace.dependencies")?;
    let page = std::fs::read_to_string(root().join("docs/decisions/0006-dependencies.md"))?;
    let named = |name: &str| {
        page.lines().any(|l| l.split('|').nth(1).is_some_and(|cell| cell.split(',').any(|n| n.trim() == name)))
            || page.contains(&format!("**{name}**"))
    };
    let missing: Vec<&String> =
        dependencies.keys().filter(|name| !name.starts_with("postkeep-") && !named(name)).collect();
    println!("dependencies with a reason: {} / {}", dependencies.len() - 3 - missing.len(), dependencies.len() - 3);
    ensure!(missing.is_empty(), "docs/decisions/0006-dependencies.md has no line for {missing:?}");
    Ok(())
}
