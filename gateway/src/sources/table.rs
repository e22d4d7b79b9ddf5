//! A resolver for tests: answers from a table, counts questions, has trouble when told to.

use super::resolver::{Answer, Family, Resolver, Trouble};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Lines such as `TXT example.com v=spf1 -all`, `A example.com 192.0.2.10`, `MX example.com mail-a.example.com`,
/// `PTR 192.0.2.10 example.com`, `TROUBLE broken.example`.
pub(super) struct Table {
    lines: Vec<(String, String, String)>,
    pub(super) asked: AtomicU32,
    /// Milliseconds every answer takes.
    pub(super) delay: AtomicU64,
    /// Not 0: nothing answers.
    pub(super) down: AtomicU32,
}

impl Table {
    pub(super) fn new(text: &str) -> Arc<Self> {
        let line = |line: &str| {
            let mut words = line.trim().splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            (word(), word(), word())
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(line).collect();
        Arc::new(Self { lines, asked: 0.into(), delay: 0.into(), down: 0.into() })
    }

    fn answer<T: Send + 'static>(&self, kind: &str, name: &str, read: fn(&str) -> T) -> Answer<'_, T> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst))).await;
            let sick = self.lines.iter().any(|(kind, of, _)| kind == "TROUBLE" && *of == name);
            if sick || self.down.load(Ordering::SeqCst) != 0 {
                return Err(Trouble(format!("{kind} of {name}: server failure")));
            }
            let fits = |(of, at, _): &&(String, String, String)| *of == kind && *at == name;
            Ok(self.lines.iter().filter(fits).map(|(_, _, value)| read(value)).collect())
        })
    }
}

impl Resolver for Table {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        self.answer("TXT", name, str::to_owned)
    }

    fn addresses<'a>(&'a self, name: &'a str, family: Family) -> Answer<'a, IpAddr> {
        let kind = if family == Family::V4 { "A" } else { "AAAA" };
        self.answer(kind, name, |text| text.parse().expect("address"))
    }

    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        self.answer("MX", name, str::to_owned)
    }

    fn reverse(&self, ip: IpAddr) -> Answer<'_, String> {
        self.answer("PTR", &ip.to_string(), str::to_owned)
    }
}
