//! Long commands show how far they are: a bar on a terminal, nothing that steers a terminal elsewhere, nothing at all
//! where a program reads. The terminal is a pseudo terminal that python3 holds.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
};
use support::{Archiver, folder, message, run};

/// Runs its arguments on a pseudo terminal of 100 columns and copies what they write there.
const PTY: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
while True:
    try:
        octets = os.read(fd, 65536)
    except OSError:
        break
    if not octets:
        break
    os.write(1, octets)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn files(folder: &Path, count: usize) -> Result<()> {
    std::fs::create_dir(folder)?;
    for n in 0..count {
        let octets = message(&format!("p-{n}"), "ann@aurora.example", "bob@aurora.example", &format!("P {n}"), "text");
        std::fs::write(folder.join(format!("{n}.eml")), octets)?;
    }
    Ok(())
}

/// What a command writes on a terminal.
fn on_terminal(archiver: &Archiver, arguments: &[&str]) -> Result<String> {
    let command = archiver.command(arguments)?;
    let mut python = Command::new("python3");
    python.current_dir(&archiver.folder).args(["-c", PTY]).arg(command.get_program()).args(command.get_args());
    let output = python.stdin(Stdio::null()).output().context("python3")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {} {text}", output.status);
    Ok(text)
}

#[test]
fn a_bar_on_a_terminal_and_nothing_elsewhere() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let eml = folder.path().join("eml");
    files(&eml, 200)?;
    let eml = eml.display().to_string();
    let mut shown = 0;
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (backup, eml_out, mbox_out) = (place("backup"), place("eml-out"), place("mbox-out"));
    let commands: [&[&str]; 10] = [
        &["import", &eml, "--owner", "bob"],
        &["store", "verify"],
        &["store", "verify", "--quick"],
        &["store", "rebuild-catalog"],
        &["store", "rebuild-records"],
        &["store", "repair"],
        &["store", "compact", "--least", "0"],
        &["backup", "--to", &backup],
        &["export", "--owner", "bob", "--out", &eml_out],
        &["export", "--owner", "bob", "--format", "mbox", "--out", &mbox_out],
    ];
    for arguments in commands {
        let text = on_terminal(&archiver, arguments)?;
        let bars: Vec<&str> =
            text.split(['\r', '\n']).filter(|line| line.contains("/s, ") && line.contains(" left")).collect();
        let last = bars.last().with_context(|| format!("{arguments:?}: no bar in {text:?}"))?;
        ensure!(last.contains("/s") && last.contains('%'), "{arguments:?}: {last:?}");
        shown += bars.len();
        println!("{arguments:?}: {} states of the bar, the last {:?}", bars.len(), last.trim());
        if arguments[0] == "export" {
            // An export never writes into a folder that is not empty.
            std::fs::remove_dir_all(arguments[arguments.len() - 1])?;
        }
        // Elsewhere: nothing that steers a terminal, and nothing on standard error where a program reads the result.
        let piped = run(&mut archiver.command(arguments)?, b"")?.expect(0)?;
        ensure!(piped.code == 0 && !piped.err.contains('\u{1b}') && !piped.err.contains('\r'), "{:?}", piped.err);
        ensure!(!piped.text().contains("/s,"), "{}", piped.text());
    }
    let text = on_terminal(&archiver, &["store", "verify", "--json"])?;
    ensure!(text.trim().starts_with('{') && !text.contains("/s"), "a bar with --json: {text:?}");
    let json = run(&mut archiver.command(&["import", "--json", &eml, "--owner", "bob"])?, b"")?.expect(0)?;
    json.json()?;
    ensure!(!json.err.contains("import:"), "{:?}", json.err);
    ensure!(shown > 1, "{shown}");
    Ok(())
}
