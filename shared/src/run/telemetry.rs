//! Logs go to standard error; standard output belongs to results.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `level` is a filter such as `info` or `postkeep_gateway=debug,info`; the variable `RUST_LOG`
/// overrides it. A second call does nothing.
pub fn init_logs(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(level));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
