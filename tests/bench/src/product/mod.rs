//! Our own programs, built in release and started in folders of their own.

mod archiver;
mod gateway;

pub(crate) use archiver::Archiver;
pub(crate) use gateway::{Gateway, Settings};

use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program `name` from the build this program belongs to; built first where cargo runs us, since cargo builds
/// only the package that is asked for.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let path = folder.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?.join(name);
    ensure!(path.exists(), "{} is missing; cargo build --release makes it", path.display());
    Ok(path)
}

fn build() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folder = own.parent().context("a program stands in a folder")?.to_owned();
    // Tests stand one deeper.
    if folder.ends_with("deps") {
        folder.pop();
    }
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        command.args(["build", "--quiet", "-p", "postkeep-gateway", "-p", "postkeep-archiver", "--bins"]);
        command.arg("--target-dir").arg(folder.parent().context("target folder")?);
        if folder.ends_with("release") {
            command.arg("--release");
        }
        ensure!(command.status()?.success(), "cargo build failed");
    }
    Ok(folder)
}
