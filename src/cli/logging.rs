//! Log output: to stderr, as text or as JSON, one line per event.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use super::Failure;
use crate::config::{Log, LogFormat};
use crate::telemetry;
use crate::telemetry::log::{self, LogControl, LogThrottle};

/// Starts logging. May be called once per process; the returned handle changes the filter later.
pub fn start(settings: &Log) -> Result<LogControl, Failure> {
    let repeats =
        settings.repeats.map(|rate| LogThrottle { lines: rate.count.into(), interval: rate.per });
    let (control, filter) = log::filter(&settings.level, repeats)?;
    let lines =
        fmt::layer().with_writer(control.writer()).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.fmt_fields(log::on_one_line()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| Failure(format!("logging: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let why = text.unwrap_or("unknown");
        telemetry::process::panicked(panic.location(), why);
    }));
    control.start_maintenance().map_err(|error| Failure(format!("logging: {error}")))?;
    Ok(control)
}
