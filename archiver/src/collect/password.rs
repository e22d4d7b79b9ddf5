//! The password file of a source, readable by its owner only: the password, and below it others to try, such as the one
//! before. A gateway that has not heard of a change yet then opens all the same.
//!
//! What systemd hands over as a credential (systemd.exec(5)) is readable by the service alone, whatever its mode looks like:
//! access lists show as rights of the group.

use postkeep_shared::{
    crypt::Password,
    disk::{Disk, DiskError},
    run::Failure,
};
use std::path::Path;
use zeroize::Zeroizing;

const MAX_FILE: u64 = 4096;
/// More would only slow every login down: gateways make those wait who guess.
const MAX_LINES: usize = 4;

/// Reads a password file.
///
/// # Errors
/// Exit 2 with a sentence that names the file and never what is in it.
pub fn read(path: &Path, disk: &dyn Disk) -> Result<Vec<Password>, Failure> {
    let fail = |text: &str| Failure::usage(format!("password file {}: {text}", path.display()));
    let cannot = |e: DiskError| fail(&format!("cannot be read: {}; write the mailbox's password into it", e.source));
    let entry = disk.entry(path).map_err(cannot)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let handed_over = credentials.is_some_and(|folder| !folder.is_empty() && path.parent() == Some(Path::new(&folder)));
    if entry.mode & 0o077 != 0 && entry.is_file && !handed_over {
        return Err(fail("others than its owner may read it; run `chmod 600` on it"));
    }
    let octets = Zeroizing::new(disk.read(path, MAX_FILE).map_err(cannot)?);
    let mut lines: Vec<&[u8]> =
        octets.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if lines.first().is_none_or(|line| line.is_empty() || line.contains(&0)) {
        return Err(fail("its first line is empty; write the mailbox's password into it"));
    }
    lines.retain(|line| !line.is_empty());
    if lines.len() > MAX_LINES {
        return Err(fail("it has more than four lines; keep the password and those it may still have elsewhere"));
    }
    Ok(lines.into_iter().map(Password::received).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_private_file_with_a_password_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("p");
        let with = |content: &str, mode: u32| {
            std::fs::write(&path, content).expect("writes");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("sets");
            read(&path, &LocalDisk)
        };
        let read_lines = with(" two words \r\nthe one before\n\n", 0o600).expect("reads");
        assert_eq!(
            read_lines.iter().map(Password::expose).collect::<Vec<_>>(),
            [b" two words ".as_slice(), b"the one before"]
        );
        for (content, mode, expected) in [
            ("secret-word", 0o640, "chmod 600"),
            ("secret-word", 0o604, "chmod 600"),
            ("", 0o600, "first line is empty"),
            ("\nsecret-word", 0o600, "first line is empty"),
            ("1\n2\n3\n4\nsecret-word", 0o600, "more than four"),
        ] {
            let failure = with(content, mode).err().expect("refused").to_string();
            assert!(failure.contains(expected) && !failure.contains("secret-word"), "{failure}");
        }
        assert!(read(&folder.path().join("none"), &LocalDisk).is_err());
    }
}
