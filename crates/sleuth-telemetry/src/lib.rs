//! Logs, traces and the root of metrics.
//!
//! - Logs: one subscriber for the process, written to standard error. Other crates only emit events
//!   through `tracing`; nothing but the binary calls [`init`]. Messages are lower case and never
//!   hold prompts, responses, image bytes or keys.
//! - [`traces`]: what each item did, recorded and sent where it is worth it.
//! - [`metrics`]: the registry, and what is measured of the process and its runtime.

pub mod metrics;
#[cfg(any(test, feature = "test-util"))]
pub mod receiver;
pub mod traces;

use std::io;

pub use opentelemetry::KeyValue;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line per event, coloured where standard error is a terminal.
    #[default]
    Pretty,
    /// For collectors: one JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// Directives such as `info,sleuth_engine=debug`.
    pub filter: String,
}

/// Keeps logging alive; dropping it at the end of `main` flushes what is buffered.
///
/// Standard error is unbuffered, so today there is nothing to flush; exporters join here.
#[derive(Debug)]
#[must_use = "hold the guard until the process ends"]
pub struct Guard {
    filter: LogFilter,
}

/// The process's log filter.
#[derive(Clone, Debug)]
pub struct LogFilter(Handle<EnvFilter, Registry>);

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is no list of directives.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// The process's subscriber is gone.
    #[error("logging has ended")]
    Ended(#[from] reload::Error),
    /// The process already has a subscriber.
    #[error("logging is already set up in this process")]
    AlreadySet(#[from] TryInitError),
}

/// Installs the process's subscriber. To be called once, first thing, by the binary.
pub fn init(settings: &LogSettings) -> Result<Guard, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse_filter(&settings.filter)?);
    let layer = match settings.format {
        LogFormat::Pretty => fmt::layer()
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_writer(io::stderr)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Guard { filter: LogFilter(handle) })
}

/// Whether [`init`] takes a filter.
pub fn check_filter(directives: &str) -> Result<(), TelemetryError> {
    parse_filter(directives)?;
    Ok(())
}

// === impl Guard ===

impl Guard {
    /// The filter, to be replaced while the process runs.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// Logs by other directives from now on; gives those before, in the parser's own order.
    pub fn replace(&self, directives: &str) -> Result<String, TelemetryError> {
        let filter = parse_filter(directives)?;
        let previous = self.0.with_current(ToString::to_string)?;
        self.0.reload(filter)?;
        Ok(previous)
    }
}

// === impl LogSettings ===

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, filter: "info".to_owned() }
    }
}

/// Unlike `EnvFilter::new`, refuses what it cannot read rather than logging nothing.
fn parse_filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_a_wrong_level_is_refused() {
        assert!(parse_filter("info,sleuth_engine=debug").is_ok());
        assert!(parse_filter("sleuth_engine=loud=very").is_err());
    }

    #[test]
    fn a_process_logs_once() {
        let settings = LogSettings { format: LogFormat::Json, filter: "off".to_owned() };
        let guard = init(&settings);
        assert!(guard.is_ok());
        assert!(matches!(init(&settings), Err(TelemetryError::AlreadySet(_))));
        let filter = guard.unwrap().filter();
        assert!(filter.replace("sleuth=loud=very").is_err());
        assert!(!tracing::enabled!(tracing::Level::INFO));
        assert_eq!(filter.replace("info").unwrap(), "off");
        assert!(tracing::enabled!(tracing::Level::INFO));
        assert_eq!(filter.replace("off").unwrap(), "info");
    }
}
