//! Samples counted by category and by thread, and how they are printed.

use super::{
    categories::{REST, category, in_kernel},
    perf,
};
use anyhow::{Result, ensure};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// Threads that have less than this share of the samples are not printed one by one.
const FEW: f64 = 0.005;

/// How often a program was found doing what, and in which thread.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    samples: usize,
    categories: BTreeMap<&'static str, usize>,
    threads: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts what was recorded in a file.
    pub(crate) fn of(data: &Path) -> Result<Self> {
        let mut tally = Self::default();
        perf::stacks(data, |thread, stack| tally.add(thread, category(stack)))?;
        ensure!(tally.samples > 0, "perf took no sample");
        Ok(tally)
    }

    fn add(&mut self, thread: &str, category: &'static str) {
        self.samples += 1;
        *self.categories.entry(category).or_default() += 1;
        match self.threads.get_mut(thread) {
            Some(count) => *count += 1,
            None => drop(self.threads.insert(thread.to_owned(), 1)),
        }
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / self.samples.max(1) as f64
    }

    /// Prints it. `cpu`: seconds of processor time for 1,000 reports in a round that was not sampled, and in the one that
    /// was; `total`: what the sampled round took in all, where that is known.
    pub(crate) fn print(&self, cpu: (f64, Option<f64>), total: Option<Duration>) {
        print!("CPU {:.3} s per 1,000 reports", cpu.0);
        if let Some(sampled) = cpu.1 {
            print!(", {sampled:.3} while sampled");
        }
        print!("; {} samples", self.samples);
        if let Some(total) = total {
            let seen = self.samples as f64 / f64::from(perf::FREQUENCY) / total.as_secs_f64().max(1e-3);
            print!(", {:.0} % of that time", seen * 1e2);
        }
        println!("\n{:<44}{:>9}{:>10}", "", "share", "CPU s/1k");
        let row = |name: &str, share: f64| println!("{name:<44}{:>7.1} %{:>10.3}", share * 1e2, share * cpu.0);
        let mut rows: Vec<_> = self.categories.iter().filter(|(category, _)| **category != REST).collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        rows.iter().for_each(|(category, count)| row(category, self.share(**count)));
        row(REST, self.share(self.categories.get(REST).copied().unwrap_or_default()));
        row("sum", self.share(self.categories.values().sum()));
        let kernel = self.categories.iter().filter(|(category, _)| in_kernel(category)).map(|(_, count)| count);
        row("of it the kernel, as far as named", self.share(kernel.sum()));

        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let (many, few): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(_, count)| self.share(**count) >= FEW);
        println!("by thread");
        many.iter().for_each(|(thread, count)| row(thread, self.share(**count)));
        if !few.is_empty() {
            row("other threads", self.share(few.iter().map(|(_, count)| **count).sum()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_counted_once_in_each_way() {
        let mut tally = Tally::default();
        for (thread, category) in [("one", "SHA-256"), ("one", REST), ("two", "SHA-256"), ("two", "kernel: syncs")] {
            tally.add(thread, category);
        }
        assert_eq!(tally.categories.values().sum::<usize>(), tally.samples);
        assert_eq!(tally.threads.values().sum::<usize>(), tally.samples);
        assert!((tally.share(tally.categories["SHA-256"]) - 0.5).abs() < f64::EPSILON);
    }
}
