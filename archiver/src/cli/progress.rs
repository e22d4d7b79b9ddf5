//! How far a long command is: a bar on a terminal, a plain line every ten seconds elsewhere, both on standard error.
//! Nothing with `--json`: there a program reads.
//!
//! Library code knows none of this. It calls a closure with what is done and what there is (`0`: not known), as often as
//! it likes: `&mut |done, total| bar.at(done, total)`.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress of one command.
pub struct Bar {
    shown: Shown,
}

enum Shown {
    Terminal(ProgressBar),
    Lines(Pace),
    Nothing,
}

impl Bar {
    /// Nothing is done yet. `what`: the command; `unit`: what is counted; `json`: its output is for a program.
    #[must_use]
    pub fn new(what: &'static str, unit: &'static str, json: bool) -> Self {
        let shown = if json {
            Shown::Nothing
        } else if stderr().is_terminal() {
            let bar = ProgressBar::no_length().with_prefix(what).with_message(unit);
            bar.set_style(style("{prefix}: {pos} {msg}, {per_sec}"));
            Shown::Terminal(bar)
        } else {
            Shown::Lines(Pace::new(what, unit, Instant::now()))
        };
        Self { shown }
    }

    /// This much is done, of this much; 0 where that is not known.
    pub fn at(&mut self, done: u64, total: u64) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Terminal(bar) => {
                if total > 0 && bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style("{prefix}: [{bar:30}] {percent}% {pos}/{len} {msg}, {per_sec}, {eta} left"));
                }
                bar.set_position(done);
            }
            Shown::Lines(pace) => {
                if let Some(line) = pace.line(done, total, Instant::now()) {
                    eprintln!("{line}");
                }
            }
        }
    }

    /// Takes the bar off the terminal, before anything else is written there.
    pub fn clear(&mut self) {
        if let Shown::Terminal(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The templates are constants; one that cannot be read gives the usual bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##-")
}

/// Plain lines.
struct Pace {
    what: &'static str,
    unit: &'static str,
    began: Instant,
    told: Instant,
}

impl Pace {
    fn new(what: &'static str, unit: &'static str, now: Instant) -> Self {
        Self { what, unit, began: now, told: now }
    }

    /// The line for now, where it is time for one.
    fn line(&mut self, done: u64, total: u64, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.told) < PAUSE {
            return None;
        }
        self.told = now;
        let Self { what, unit, .. } = self;
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        let rate = done as f64 / seconds.max(0.001);
        if total == 0 {
            return Some(format!("{what}: {done} {unit}, {rate:.0}/s"));
        }
        let percent = done as f64 * 100.0 / total as f64;
        let left = if rate > 0.0 { span(total.saturating_sub(done) as f64 / rate) } else { "unknown".to_owned() };
        Some(format!("{what}: {percent:.0}% {done}/{total} {unit}, {rate:.0}/s, {left} left"))
    }
}

/// Hours, minutes and seconds.
fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_ten_seconds() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::new("verify", "messages", began);
        assert_eq!(pace.line(1, 100, at(9)), None);
        let line = pace.line(100, 1000, at(10));
        assert_eq!(line.as_deref(), Some("verify: 10% 100/1000 messages, 10/s, 1:30 left"));
        assert_eq!(pace.line(101, 1000, at(19)), None);
        assert_eq!(pace.line(200, 0, at(20)).as_deref(), Some("verify: 200 messages, 10/s"));
        assert_eq!(pace.line(0, 10, at(40)).as_deref(), Some("verify: 0% 0/10 messages, 0/s, unknown left"));
    }

    #[test]
    fn spans_for_people() {
        assert_eq!((span(0.2).as_str(), span(61.0).as_str(), span(3725.0).as_str()), ("0:01", "1:01", "1:02:05"));
    }
}
