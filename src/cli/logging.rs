//! Where log lines go: stderr, as text or as JSON, one line an event.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use super::Failure;
use crate::config::{Log, LogFormat};
use crate::telemetry::log::{self, LogControl};

/// Starts logging; once a process. What is logged can be changed from then on.
pub fn start(settings: &Log) -> Result<LogControl, Failure> {
    let (control, filter) = log::filter(&settings.level)?;
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| Failure(format!("logging: {error}")))?;
    Ok(control)
}
