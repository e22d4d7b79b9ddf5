//! A small ext4 image on a loop device: one that fills up, or turns read-only. Without root and loop devices it says so,
//! and is an error under `CI=true`.

use super::run;
use anyhow::{Context as _, Result, bail};
use postkeep_shared::disk::{Disk as _, LocalDisk};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// An ext4 image on a loop device. Unmounted with its value.
pub struct SmallDisk {
    pub file: PathBuf,
    pub mount: PathBuf,
}

impl SmallDisk {
    pub fn create(folder: &Path, mib: u64, options: &[&str]) -> Result<Option<Self>> {
        let image = Self { file: folder.join("small.img"), mount: folder.join("small") };
        std::fs::create_dir(&image.mount)?;
        std::fs::File::create(&image.file)?.set_len(mib << 20)?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0", "-J", "size=4"]).args(options).arg(&image.file);
        let made = run(&mut make, b"").and_then(|output| output.expect(0)).and_then(|_| image.mount());
        match made {
            Ok(()) => Ok(Some(image)),
            Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(error),
            Err(error) => {
                eprintln!("NOT RUN: this test needs root, loop devices and mkfs.ext4: {error:#}");
                Ok(None)
            }
        }
    }

    pub fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,errors=remount-ro"]).arg(&self.file).arg(&self.mount);
        run(&mut mount, b"")?.expect(0).map(drop)
    }

    /// From now on nothing can be written, or can again.
    pub fn remount(&self, mode: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{mode}")]).arg(&self.mount);
        run(&mut mount, b"")?.expect(0).map(drop)
    }

    pub fn unmount(&self) -> Result<()> {
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount), b"")?.code == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{} cannot be unmounted", self.mount.display())
    }

    /// What the kernel does when it meets an error: the file system is read-only from now on.
    pub fn fail(&self) -> Result<()> {
        let found = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.mount), b"")?.expect(0)?.text();
        let device = found.trim().rsplit('/').next().context("a device")?.to_owned();
        Ok(std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test")?)
    }

    /// Free octets.
    pub fn free(&self) -> Result<u64> {
        Ok(LocalDisk.space(&self.mount)?.free)
    }

    /// Octets in all.
    pub fn size(&self) -> Result<u64> {
        Ok(LocalDisk.space(&self.mount)?.total)
    }

    /// Takes octets until no more than `leave` are free.
    pub fn fill_up_to(&self, leave: u64) -> Result<PathBuf> {
        let path = self.mount.join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        while self.free()? > leave {
            file.write_all(&vec![0; 1 << 20])?;
            file.sync_all()?;
        }
        Ok(path)
    }

    /// Takes every octet that is left.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.mount.join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        // Delayed allocation must not leave anything open; a full disk may say so here.
        let _ = file.sync_all();
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount), b"");
    }
}
