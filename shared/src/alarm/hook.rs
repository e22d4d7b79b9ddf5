//! A command that is told of alarms: a fixed program with fixed arguments, no shell; the notice is JSON on its standard
//! input. It ends within its time or is killed with everything it started. Exit code 0: it took the notice.

use crate::run::printable;
use std::{
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What is kept of its standard error.
const MAX_ERROR: u64 = 4096;
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// What it may find of our environment: nothing of ours may leak, and a program must find others.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path of the program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
}

impl Hook {
    /// Runs it with `input`. Blocking.
    ///
    /// # Errors
    /// A sentence: it cannot be started, takes too long, or ends with another code than 0.
    pub fn run(&self, input: &[u8]) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().process_group(0);
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{} cannot be started: {e}", self.program))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let input = input.to_vec();
        // One that does not read must not hold us up; the pipe breaks when it ends.
        let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut stderr = stderr?;
            let _ = stderr.by_ref().take(MAX_ERROR).read_to_end(&mut text);
            // The rest is read too, or the program would wait for us.
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            Some(text)
        });
        let ended = self.wait(&mut child);
        // What it started has the pipes still; it ends with it.
        kill_group(&child);
        let _ = (child.wait(), writer.join());
        let said = reader.join().ok().flatten().unwrap_or_default();
        let said = printable(said.trim_ascii());
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match ended {
            Ok(None) => {
                Err(format!("{} took longer than {} s and was killed{said}", self.program, self.limit.as_secs()))
            }
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended with {status}{said}", self.program)),
            Err(error) => Err(format!("{}: {error}", self.program)),
        }
    }

    fn wait(&self, child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
        let end = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Mostly nobody is left in it.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: u64) -> Hook {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Hook { program: "/bin/sh".into(), arguments, limit: Duration::from_millis(limit) }
    }

    #[test]
    fn it_gets_the_input_and_its_code_counts() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let out = folder.path().join("out");
        shell(&format!("cat > {}", out.display()), 10_000).run(b"{}").expect("runs");
        assert_eq!(std::fs::read(&out).expect("reads"), b"{}");
        let error = shell("echo no >&2; exit 3", 10_000).run(b"{}").expect_err("code 3");
        assert!(error.contains("exit status: 3") && error.ends_with(": no"), "{error}");
        assert!(shell("exit 0", 10_000).run(&vec![b'x'; 1 << 20]).is_ok(), "one that does not read");
        assert!(Hook { program: "/nowhere".into(), ..shell("", 1000) }.run(b"").is_err());
    }

    #[test]
    fn it_is_killed_with_all_it_started() {
        let began = Instant::now();
        let error = shell("sleep 60 & sleep 60", 200).run(b"{}").expect_err("too long");
        assert!(error.contains("was killed"), "{error}");
        assert!(shell("sleep 60 & exit 0", 10_000).run(b"{}").is_ok(), "what it left behind does not count");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
