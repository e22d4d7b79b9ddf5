//! Memory holds passwords, keys and mail in clear while they are worked on; none of it may reach a disk as a core file.
//!
//! Three locks. The size limit is zero. The process cannot be dumped at all, which also covers systems that hand core
//! files to a program, and a root that raises the limit again; as a side effect only root can trace the process. And
//! the filter of what a core file contains (core(5)) leaves out all memory, not only pages marked as secret
//! (`MADV_DONTDUMP` would need unsafe code, and miss the buffers of libraries): `gcore`, which asks nobody, obeys it.
//! Root can still read the memory itself: whoever is root on a running machine is outside what this can keep out
//! (`docs/threat-model.md`). `tests/dumps.rs` shows all of it.

use super::Failure;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Which memory a core file of this process would contain (core(5)): none. Registers are always in it.
const FILTER: (&str, &[u8]) = ("/proc/self/coredump_filter", b"0");

/// Turns core dumps off for this process and its children. Called first in `main`, before any secret is read.
///
/// # Errors
/// [`Failure`] when the kernel refuses.
pub fn forbid_core_dumps() -> Result<(), Failure> {
    let refused = |e: rustix::io::Errno| Failure::cannot(format!("cannot turn core dumps off: {e}"));
    // Before the process becomes undumpable: then its files in /proc belong to root. Where there is no /proc, or no such
    // filter in the kernel, the other two locks hold alone.
    if let Err(error) = std::fs::write(FILTER.0, FILTER.1) {
        tracing::debug!("{}: {error}", FILTER.0);
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}
