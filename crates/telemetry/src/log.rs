//! The log subscriber.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends logs to standard error. `RUST_LOG` overrides `default_filter`.
///
/// Call it once per process; a second call changes nothing.
pub fn init(format: Format, default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // An error means that a subscriber is already there, as in tests: keep it.
    match format {
        Format::Text => builder.try_init().ok(),
        Format::Json => builder.json().try_init().ok(),
    };
}
