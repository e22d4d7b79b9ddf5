//! Memory holds passwords, keys and mail in clear while they are worked on; none of it may reach a disk as a core file.
//!
//! Two locks: the size limit is zero, and the process cannot be dumped at all, which also covers systems that hand core
//! files to a program. As a side effect only root can trace the process. Root can still read its memory: whoever is root
//! on a running machine is outside what this can keep out (`docs/threat-model.md`).

use super::Failure;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Turns core dumps off for this process and its children. Called first in `main`, before any secret is read.
///
/// # Errors
/// [`Failure`] when the kernel refuses.
pub fn forbid_core_dumps() -> Result<(), Failure> {
    let refused = |e: rustix::io::Errno| Failure::cannot(format!("cannot turn core dumps off: {e}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}
