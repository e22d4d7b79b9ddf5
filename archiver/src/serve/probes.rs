//! Figures of probes (`docs/metrics.md`): when one was sent and came back last, how long that took, how many never came.
//!
//! Those are counted here from the start of the service, as all sums are: the files in `probes/` keep only the last ones.

use crate::{
    config::ArchiverConfig,
    probe::{ProbeState, Sent},
};
use postkeep_shared::{
    disk::Disk,
    metrics::{Exposition, whole},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// No probe counts as lost sooner, however short its interval is.
const PATIENCE_MS: u64 = 60_000;

/// How many never came back, by probe.
#[derive(Default)]
pub(super) struct Lost(Mutex<BTreeMap<String, Counted>>);

#[derive(Default)]
struct Counted {
    lost: u64,
    /// Those sent until then are counted.
    until_ms: u64,
}

impl Lost {
    /// Writes the figures of every probe of the configuration; nothing where there is none.
    pub(super) fn figures(
        &self,
        out: &mut Exposition,
        config: &ArchiverConfig,
        disk: &dyn Disk,
        started_ms: u64,
        now_ms: u64,
    ) {
        let read = |probe| ProbeState::read(disk, &config.data_dir, probe);
        let states: Vec<_> = config.probes.iter().map(|probe| (probe.name.as_str(), read(probe))).collect();
        if states.is_empty() {
            return;
        }
        let mut each = |name: &str, help: &str, value: &dyn Fn(&ProbeState) -> Option<u64>| {
            let mut family = out.gauge(name, help);
            for (probe, state) in &states {
                if let Some(ms) = value(state) {
                    family.sample(&[("probe", probe)], whole(ms) / 1000.0);
                }
            }
        };
        let arrived = |state: &ProbeState| state.last_arrival().map(|arrival| arrival.arrived_ms);
        each("probe_interval_seconds", "Time between two probes.", &|state| Some(state.interval_ms));
        each("probe_sent_time_seconds", "When a probe was last sent, or could not be, in Unix time.", &|state| {
            state.sent.last().map(|sent| sent.sent_ms)
        });
        each("probe_arrived_time_seconds", "When a probe last came back, in Unix time.", &arrived);
        each("probe_latency_seconds", "How long the last one took that came back.", &ProbeState::latency_ms);
        let mut family = out.counter("probe_lost_total", "Probes that were not back within two intervals.");
        for (probe, state) in &states {
            family.sample(&[("probe", probe)], whole(self.count(probe, state, started_ms, now_ms)));
        }
    }

    /// Each one that was sent since the start is judged once, when it should have been back.
    fn count(&self, probe: &str, state: &ProbeState, started_ms: u64, now_ms: u64) -> u64 {
        let due_ms = now_ms.saturating_sub(state.interval_ms.saturating_mul(2).max(PATIENCE_MS));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = all.entry(probe.to_owned()).or_default();
        let from_ms = counted.until_ms.max(started_ms);
        let judged = |sent: &&Sent| sent.sent_ms > from_ms && sent.sent_ms <= due_ms;
        let lost = state.sent.iter().filter(judged).filter(|sent| state.has(&sent.chance).is_none()).count();
        counted.lost += lost as u64;
        counted.until_ms = from_ms.max(due_ms);
        counted.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Arrival;

    #[test]
    fn each_one_is_counted_once_and_not_too_soon() {
        let minute = 60_000;
        let sent = |n: u64| Sent { chance: n.to_string(), sent_ms: n * minute, error: None };
        let back = |n: u64| Arrival { chance: n.to_string(), sent_ms: n * minute, arrived_ms: n * minute + 900 };
        let mut state = ProbeState { interval_ms: minute, sent: (1..=4).map(sent).collect(), arrived: vec![back(3)] };
        let (lost, started) = (Lost::default(), minute);
        // The first was sent before the start.
        assert_eq!(lost.count("a", &state, started, 4 * minute - 1), 0);
        assert_eq!(lost.count("a", &state, started, 4 * minute), 1);
        assert_eq!(lost.count("a", &state, started, 5 * minute), 1, "once; the third came back");
        state.arrived.push(back(4));
        assert_eq!(lost.count("a", &state, started, 9 * minute), 1);
        state.sent.push(sent(7));
        assert_eq!(lost.count("a", &state, started, 9 * minute), 1, "judged until then already");
        state.sent.push(sent(8));
        assert_eq!(lost.count("a", &state, started, 10 * minute), 2);
        assert_eq!(lost.count("b", &ProbeState::default(), started, 10 * minute), 0);
    }
}
