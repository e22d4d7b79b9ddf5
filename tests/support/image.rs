//! A file system of its own in a file, whose power can be cut.
//!
//! The cut is the ioctl `FS_IOC_SHUTDOWN` without a flush of the journal: what did not reach the disk by then is gone, as
//! after a crash of the host. It does not model a drive that reorders writes or lies about syncs.

use super::run;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Cuts the power of the directory named by each line it reads; started beforehand, so that a cut takes no time.
const CUTTER: &str = r#"
import fcntl, os, struct, sys
for line in sys.stdin:
    mount = os.open(line.rstrip("\n"), os.O_RDONLY)
    fcntl.ioctl(mount, 0x8004587D, struct.pack("I", 2))
    os.close(mount)
    print("cut", flush=True)
"#;

/// An ext4 image on a loop device. Unmounted with its value.
pub struct Image {
    file: PathBuf,
    mount: PathBuf,
    mounted: bool,
    cutter: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Image {
    /// Makes one of `mib` MiB below `folder` and mounts it. `None`, after saying so, where this machine does not allow
    /// it; that is an error under `CI=true`.
    pub fn create(folder: &Path, mib: u64) -> Result<Option<Self>> {
        let file = folder.join("disk.img");
        let mount = folder.join("disk");
        std::fs::create_dir(&mount)?;
        std::fs::File::create(&file)?.set_len(mib << 20)?;
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file), b"").and_then(|o| o.expect(0));
        let mut cutter = Command::new("python3")
            .args(["-c", CUTTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("python3")?;
        let orders = cutter.stdin.take().context("piped")?;
        let answers = BufReader::new(cutter.stdout.take().context("piped")?);
        let mut image = Self { file, mount, mounted: false, cutter, orders, answers };
        match made.and_then(|_| image.mount()) {
            Ok(()) => Ok(Some(image)),
            Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
                Err(error.context("a file system image is needed: root, loop devices and mkfs.ext4"))
            }
            Err(error) => {
                eprintln!("NOT RUN: this test needs root, loop devices and mkfs.ext4: {error:#}");
                Ok(None)
            }
        }
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.mount
    }

    /// The image itself.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Cuts the power: nothing reaches the disk from now on. The programs on it still run.
    pub fn cut(&mut self) -> Result<()> {
        writeln!(self.orders, "{}", self.mount.display())?;
        self.orders.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == "cut\n", "the power cut failed: {line:?}");
        Ok(())
    }

    /// Mounts it; the file system recovers by its journal.
    pub fn mount(&mut self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.file).arg(&self.mount), b"")?.expect(0)?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; nothing on it may run any more.
    pub fn unmount(&mut self) -> Result<()> {
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount), b"")?.code == 0 {
                self.mounted = false;
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        bail!("{} cannot be unmounted", self.mount.display())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // What still runs on it is ended by its own value; the device goes with its last user.
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount), b"");
        }
        let _ = self.cutter.kill();
        let _ = self.cutter.wait();
    }
}

/// How often a test with `POSTKEEP_TRIALS` tries: that many times, else `usual`.
pub fn trials(usual: u64) -> u64 {
    std::env::var("POSTKEEP_TRIALS").ok().and_then(|t| t.parse().ok()).unwrap_or(usual)
}
