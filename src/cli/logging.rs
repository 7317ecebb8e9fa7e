//! Where log lines go: stderr, as text or as JSON, one line an event.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::{Log, LogFormat};

/// Starts logging; once a process.
pub fn start(settings: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|wrong| format!("log.level: {:?}: {wrong}", settings.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure(format!("logging: {error}")))
}
