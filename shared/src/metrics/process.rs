//! Memory, descriptors and age of this process, as the kernel tells (proc(5)).

use super::{Exposition, text::whole};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes what the kernel knows of this process; what it does not tell is left out.
pub fn process(out: &mut Exposition, version: &str, started_ms: u64) {
    out.gauge("build_info", "1; the label is the version of the program.").sample(&[("version", version)], 1.0);
    out.gauge("start_time_seconds", "When the program started, in Unix time.").value(whole(started_ms) / 1000.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.gauge("time_seconds", "The program's clock, in Unix time.").value(now.as_secs_f64());
    if let Some(octets) = resident() {
        out.gauge("resident_memory_bytes", "Memory of the process that is in RAM.").value(whole(octets));
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the one this is counted with.
        let open = (entries.count() as u64).saturating_sub(1);
        out.gauge("open_descriptors", "Files and connections that are open.").value(whole(open));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.gauge("max_descriptors", "Files and connections that may be open.").value(whole(most));
    }
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let mut out = Exposition::new("postkeep_test_");
        process(&mut out, "1", 5);
        let text = out.finish();
        for name in ["build_info", "start_time", "resident_memory_bytes", "open_descriptors", "max_descriptors"] {
            assert!(text.contains(&format!("\npostkeep_test_{name}")), "{name}: {text}");
        }
    }
}
