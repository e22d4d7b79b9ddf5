//! The Prometheus text format (version 0.0.4): families with help and type, samples with labels. Pure.
//!
//! Names are checked where they are written, in debug builds: letters, digits and `_`, counters end in `_total`.

use std::fmt::Write as _;

/// A text that grows family by family.
#[derive(Debug)]
pub struct Exposition {
    out: String,
    prefix: &'static str,
}

/// One family, open for samples.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    name: String,
}

impl Exposition {
    /// Begins; every name gets this prefix (`postkeep_gateway_`).
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        Self { out: String::new(), prefix }
    }

    /// A family that only grows while the program runs; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, "counter")
    }

    /// A family of values that go up and down.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    /// Sum and number of what was measured, as a summary without quantiles.
    pub fn summary(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "summary")
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> Family<'_> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        debug_assert!(name.bytes().all(plain) && !help.contains(['\n', '\\']), "{name}");
        let name = format!("{}{name}", self.prefix);
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: &mut self.out, name }
    }
}

impl Family<'_> {
    /// One value.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.line("", labels, value)
    }

    /// A value without labels.
    pub fn value(&mut self, value: f64) -> &mut Self {
        self.line("", &[], value)
    }

    /// A truth: 1 or 0.
    pub fn flag(&mut self, labels: &[(&str, &str)], value: bool) -> &mut Self {
        self.line("", labels, if value { 1.0 } else { 0.0 })
    }

    /// Sum and number of a summary.
    pub fn measured(&mut self, labels: &[(&str, &str)], sum: f64, count: u64) -> &mut Self {
        self.line("_sum", labels, sum).line("_count", labels, whole(count))
    }

    fn line(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let _ = write!(self.out, "{}{ending}", self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
        self
    }
}

/// A count as the format has it: exact to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "the format knows floating point only")]
#[must_use]
pub fn whole(count: u64) -> f64 {
    count as f64
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format() {
        let mut out = Exposition::new("postkeep_test_");
        out.counter("rounds_total", "Rounds.").sample(&[("source", "a\"b\\c\nd"), ("x", "y")], 3.0);
        out.gauge("ratio", "Stored by collected.").value(0.25);
        out.gauge("up", "Up.").flag(&[], true);
        out.summary("lag_seconds", "Lag.").measured(&[("source", "m365")], 1.5, 2);
        assert_eq!(
            out.finish(),
            "# HELP postkeep_test_rounds_total Rounds.\n# TYPE postkeep_test_rounds_total counter\n\
             postkeep_test_rounds_total{source=\"a\\\"b\\\\c\\nd\",x=\"y\"} 3\n\
             # HELP postkeep_test_ratio Stored by collected.\n# TYPE postkeep_test_ratio gauge\npostkeep_test_ratio 0.25\n\
             # HELP postkeep_test_up Up.\n# TYPE postkeep_test_up gauge\npostkeep_test_up 1\n\
             # HELP postkeep_test_lag_seconds Lag.\n# TYPE postkeep_test_lag_seconds summary\n\
             postkeep_test_lag_seconds_sum{source=\"m365\"} 1.5\npostkeep_test_lag_seconds_count{source=\"m365\"} 2\n"
        );
    }
}
