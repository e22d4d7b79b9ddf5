//! What is printed: the figures of every cell as medians over the rounds, and every ratio with its target.

use std::{collections::BTreeSet, time::Duration};

/// What was measured in one cell in one round. What a cell does not have is not a number.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) messages: f64,
    pub(crate) megabytes: f64,
    /// CPU seconds of the server for 1,000 messages.
    pub(crate) cpu: f64,
    /// Final reply, ms.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Most memory, MiB.
    pub(crate) peak: f64,
    /// KiB on disk for each message.
    pub(crate) disk: f64,
}

impl Default for Figures {
    fn default() -> Self {
        let none = f64::NAN;
        Self { messages: none, megabytes: none, cpu: none, p50: none, p99: none, peak: none, disk: none }
    }
}

impl Figures {
    /// Each figure's median.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure));
        Self {
            messages: of(|f| f.messages),
            megabytes: of(|f| f.megabytes),
            cpu: of(|f| f.cpu),
            p50: of(|f| f.p50),
            p99: of(|f| f.p99),
            peak: of(|f| f.peak),
            disk: of(|f| f.disk),
        }
    }
}

/// The middle one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// CPU seconds for 1,000 messages.
pub(crate) fn per_thousand(cpu: Duration, messages: usize) -> f64 {
    cpu.as_secs_f64() * 1e3 / messages.max(1) as f64
}

/// Octets as MiB.
pub(crate) fn mebibytes(octets: u64) -> f64 {
    octets as f64 / (1 << 20) as f64
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Everything that was found, and whether it suffices.
#[derive(Debug, Default)]
pub(crate) struct Table {
    missed: Vec<String>,
    /// Lines of the missed.
    lines: BTreeSet<u32>,
    not_run: Vec<String>,
    met: usize,
}

impl Table {
    /// Heads the cells of a section.
    pub(crate) fn head(title: &str) {
        println!("\n== {title}");
        println!(
            "{:<44}{:>9}{:>9}{:>10}{:>9}{:>9}{:>9}{:>10}",
            "", "msg/s", "MB/s", "CPU s/1k", "p50 ms", "p99 ms", "peak MiB", "disk KiB"
        );
    }

    /// One cell.
    pub(crate) fn row(name: &str, figures: &Figures) {
        let cell = |value: f64, width: usize, digits: usize| match value.is_nan() {
            true => format!("{:>width$}", "-"),
            false => format!("{value:>width$.digits$}"),
        };
        println!(
            "{name:<44}{}{}{}{}{}{}{}",
            cell(figures.messages, 9, 0),
            cell(figures.megabytes, 9, 1),
            cell(figures.cpu, 10, 3),
            cell(figures.p50, 9, 2),
            cell(figures.p99, 9, 2),
            cell(figures.peak, 9, 1),
            cell(figures.disk, 10, 1)
        );
    }

    /// Judges a figure. One that is not a number was not measured.
    pub(crate) fn judge(&mut self, line: u32, what: &str, value: f64, target: Target) {
        let (sign, limit, met) = match target {
            Target::AtLeast(limit) => (">=", limit, value >= limit),
            Target::AtMost(limit) => ("<=", limit, value <= limit),
        };
        let text = format!("line {line}: {what:<64}{value:>9.3}   {sign} {limit}");
        if value.is_nan() {
            self.not_run.push(format!("line {line}: {what}"));
            println!("{text:<92}  NOT RUN");
        } else if met {
            self.met += 1;
            println!("{text:<92}  met");
        } else {
            self.missed.push(text.clone());
            self.lines.insert(line);
            println!("{text:<92}  MISSED");
        }
    }

    /// Whether a target of one of these lines was missed.
    pub(crate) fn missed(&self, lines: &[u32]) -> bool {
        lines.iter().any(|line| self.lines.contains(line))
    }

    /// Says why something cannot be measured here.
    pub(crate) fn not_run(&mut self, what: &str, why: &str) {
        println!("NOT RUN: {what}: {why}");
        self.not_run.push(format!("{what}: {why}"));
    }

    /// Sums up; whether every figure was measured and suffices.
    pub(crate) fn end(&self) -> bool {
        println!("\n{} met, {} missed, {} not run", self.met, self.missed.len(), self.not_run.len());
        self.missed.iter().for_each(|line| println!("missed   {}", line.trim_end()));
        self.not_run.iter().for_each(|line| println!("not run  {line}"));
        self.missed.is_empty() && self.not_run.is_empty()
    }
}
