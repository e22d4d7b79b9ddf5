//! The mark of a probe, carried as its Message-ID: `probe.NAME.TIME.CHANCE.MAC@domain`.

use super::Probe;
use data_encoding::HEXLOWER;
use postkeep_shared::{
    crypt::random,
    disk::{Disk, create_dirs, write_new_file},
    run::Failure,
};
use std::path::Path;
use zeroize::Zeroizing;

/// A probe that comes back later than this is a message like others.
const LATEST: u64 = 7 * 24 * 3_600_000;
/// A clock may be a little wrong.
const EARLY: u64 = 600_000;

/// What marks are made with. Wiped when dropped, no `Debug`.
pub struct Key(Zeroizing<[u8; 32]>);

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The probe's name.
    pub name: String,
    /// When it was sent, milliseconds since 1970-01-01 UTC.
    pub sent_ms: u64,
    /// Tells it from others.
    pub chance: String,
    mac: String,
}

impl Key {
    /// Reads `probe.key` of the data folder, or makes it. It guards no mail: lost, it is made anew, and probes under way
    /// come back as messages like others.
    ///
    /// # Errors
    /// The disk's; a file of another length.
    pub fn load_or_create(data_dir: &Path, disk: &dyn Disk) -> Result<Self, Failure> {
        let file = data_dir.join("probe.key");
        let read = || disk.read(&file, 64).map(Zeroizing::new);
        let octets = match read() {
            Err(error) if error.is_missing() => {
                create_dirs(disk, data_dir)?;
                let made = Zeroizing::new(random::<32>());
                match write_new_file(disk, &file, made.as_slice()) {
                    Ok(()) => return Ok(Self(made)),
                    // Another process was first.
                    Err(error) if error.is_present() => read()?,
                    Err(error) => return Err(error.into()),
                }
            }
            read => read?,
        };
        let key = octets.as_slice().try_into().map_err(|_| {
            Failure::cannot(format!("{} is damaged; delete it, the next start makes another", file.display()))
        })?;
        Ok(Self(Zeroizing::new(key)))
    }

    fn mac(&self, probe: &Probe, sent_ms: u64, chance: &str) -> blake3::Hash {
        let (name, from, to) = (&probe.name, probe.from.to_ascii_lowercase(), probe.to.to_ascii_lowercase());
        let text = format!("postkeep probe 1\n{name}\n{sent_ms}\n{chance}\n{from}\n{to}\n");
        blake3::keyed_hash(&self.0, text.as_bytes())
    }
}

impl Marker {
    /// A new one.
    #[must_use]
    pub fn new(key: &Key, probe: &Probe, now_ms: u64) -> Self {
        let chance = HEXLOWER.encode(&random::<8>());
        let mac = key.mac(probe, now_ms, &chance).to_hex().to_string();
        Self { name: probe.name.clone(), sent_ms: now_ms, chance, mac }
    }

    /// As the local part of a Message-ID.
    #[must_use]
    pub fn id(&self) -> String {
        format!("probe.{}.{}.{}.{}", self.name, self.sent_ms, self.chance, self.mac)
    }

    /// Reads a Message-ID, with or without its brackets.
    #[must_use]
    pub fn parse(message_id: &str) -> Option<Self> {
        let id = message_id.trim().trim_start_matches('<').trim_end_matches('>');
        let (local, _) = id.rsplit_once('@')?;
        let mut parts = local.strip_prefix("probe.")?.split('.');
        let (name, sent_ms, chance, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let good = parts.next().is_none() && chance.len() == 16 && mac.len() == 64;
        let (name, chance, mac) = (name.to_owned(), chance.to_owned(), mac.to_owned());
        good.then_some(Self { name, sent_ms: sent_ms.parse().ok()?, chance, mac })
    }

    /// Whether we made it for this probe, not long ago.
    #[must_use]
    pub fn holds(&self, key: &Key, probe: &Probe, now_ms: u64) -> bool {
        let recent = self.sent_ms <= now_ms + EARLY && now_ms.saturating_sub(self.sent_ms) <= LATEST;
        // Compared in constant time by blake3.
        let claimed = blake3::Hash::from_hex(self.mac.as_bytes());
        recent && claimed.is_ok_and(|claimed| claimed == key.mac(probe, self.sent_ms, &self.chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::{
        disk::LocalDisk,
        mailer::{Relay, Security},
        tls::Verify,
    };
    use std::time::Duration;

    #[test]
    fn only_our_own_marks_hold() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = Key::load_or_create(folder.path(), &LocalDisk).expect("makes");
        let again = Key::load_or_create(folder.path(), &LocalDisk).expect("reads");
        let server =
            Relay { host: "h".into(), port: 25, security: Security::Clear, verify: Verify::System, login: None };
        let probe = Probe {
            name: "m365".into(),
            server,
            from: "Probe@a.example".into(),
            to: "echo@a.example".into(),
            interval: Duration::from_secs(60),
        };
        let now = 1_790_553_600_000;
        let marker = Marker::new(&key, &probe, now);
        let read = Marker::parse(&format!("<{}@a.example>", marker.id())).expect("reads");
        assert_eq!(read, marker);
        assert!(read.holds(&again, &probe, now + 5000) && !read.holds(&again, &probe, now + LATEST + 1));
        assert!(!Marker { sent_ms: now + 1, ..read.clone() }.holds(&key, &probe, now + 5000));
        assert!(!Marker { chance: "0".repeat(16), ..read.clone() }.holds(&key, &probe, now));
        assert!(!read.holds(&key, &Probe { to: "ann@a.example".into(), ..probe.clone() }, now));
        let other = Key(Zeroizing::new([7; 32]));
        assert!(!read.holds(&other, &probe, now));
        for bad in ["", "<x@y>", "<probe.a.1.b@y>", "probe.a.x.0000000000000000.y@z", "probe@a"] {
            assert!(Marker::parse(bad).is_none(), "{bad}");
        }
    }
}
