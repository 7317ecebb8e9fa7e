//! Log lines on stderr, one an event: text for people, flat JSON for collectors.
//!
//! What is logged is decided where facts are recorded ([`crate::telemetry`]); this module only says in
//! what form. Timestamps are UTC, RFC 3339.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Installs the process's subscriber. `Err` names what is wrong with `[log] level`.
pub fn install(settings: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|error| format!("log.level: {:?}: {error}", settings.level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match settings.format {
        LogFormat::Text => lines.with_ansi(colours()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
    installed.map_err(|error| format!("logging: {error}"))
}

/// Only on a terminal, and not where <https://no-color.org> is asked for.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
