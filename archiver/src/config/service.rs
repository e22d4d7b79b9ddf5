//! `[serve]` and `[metrics]`.

use postkeep_shared::config::Section;
use std::{net::SocketAddr, time::Duration};

/// How `serve` works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeConfig {
    /// Hosts that are visited at once.
    pub parallel_sources: usize,
    /// The longest time for which a host that fails is left alone.
    pub backoff_max: Duration,
}

/// Where metrics and health are told; nowhere unless asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Addresses; whoever reaches them can read the figures.
    pub listen: Vec<SocketAddr>,
}

impl ServeConfig {
    pub(super) fn read(section: &Section) -> Self {
        let parallel = section.integer("parallel_sources", 1..=64).and_then(|n| usize::try_from(n).ok());
        Self {
            parallel_sources: parallel.unwrap_or(4),
            backoff_max: section.duration("backoff_max").unwrap_or(Duration::from_secs(15 * 60)),
        }
    }
}

impl MetricsConfig {
    pub(super) fn read(section: &Section) -> Self {
        let mut listen = Vec::new();
        for text in section.list("listen").unwrap_or_default() {
            match text.parse() {
                Ok(address) => listen.push(address),
                Err(_) => {
                    let shown: String = text.chars().take(60).collect();
                    let shown = shown.escape_debug();
                    section.mistake(
                        "listen",
                        format!("`{shown}` is not an address with a port; write for example 127.0.0.1:9465"),
                    );
                }
            }
        }
        Self { listen }
    }
}
