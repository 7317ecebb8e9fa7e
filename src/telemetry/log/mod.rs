//! Which lines are logged: by level, by the subjects of debugging, and by how often a line repeats.
//!
//! [`LineFilter`] is the layer in front of the writer; [`LogControl`] changes the filter while the process runs.
//! Invariants: an audit line is never throttled; while nothing is being debugged, a debug line costs no more than
//! without this module.

mod context;
mod debugging;
mod fields;
mod maintenance_timer;
mod output;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod throttle;

pub use context::{ConnectionFields, MessageFields};
pub(super) use context::{connection_event, message_event};
pub use debugging::{Debugged, Subject, TooMany};
pub use fields::on_one_line;
pub use throttle::LogThrottle;

use std::io::{self, Stderr, Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, callsite, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

use super::definitions::metrics;
use debugging::Debugging;
use maintenance_timer::MaintenanceTimer;
use output::Output;
use throttle::Throttler;

metrics! {
    /// Log lines that were not written because they repeated other lines.
    SUPPRESSED_LINES = counter "tidegate_log_lines_suppressed_total";
    /// Log lines that were lost because stderr took nothing: its disk is full, or nobody reads the pipe. Up to 1 MiB waits
    /// before lines are lost.
    LOST_LINES = counter "tidegate_log_lines_lost_total";
}

/// The target of audit events: credentials that were issued, used and refused, and what servers and operators have
/// changed.
pub const AUDIT: &str = "audit";

struct Shared {
    levels: ArcSwap<EnvFilter>,
    debugging: Debugging,
    throttler: Throttler,
    timer: MaintenanceTimer,
    output: Output<Stderr>,
}

/// Changes what is logged while the process runs, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

/// The layer that decides whether a line is written.
pub struct LineFilter(Arc<Shared>);

/// Makes the filter and its control; `level` is as in [`LogControl::set_level`], `throttle` as in
/// [`LogControl::set_throttle`].
pub fn filter(
    level: &str,
    throttle: Option<LogThrottle>,
) -> Result<(LogControl, LineFilter), String> {
    let shared = Arc::new(Shared {
        levels: ArcSwap::from_pointee(parse(level)?),
        debugging: Debugging::default(),
        throttler: Throttler::new(throttle),
        timer: MaintenanceTimer::default(),
        output: Output::new(stderr()),
    });
    Ok((LogControl(Arc::clone(&shared)), LineFilter(shared)))
}

/// Writes lines to stderr, and never waits for it.
pub struct LogWriter(Arc<Shared>);

/// The pause of the maintenance after a panic in it.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The pause between two attempts to write what waits for stderr.
const RETRY: Duration = Duration::from_millis(50);

/// How long the end of the process waits for stderr.
const LAST_WRITE: Duration = Duration::from_secs(1);

impl LogControl {
    /// Sets the level, such as `info` or `tidegate=debug,warn`. `Err` describes the mistake in it; then nothing
    /// changes.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.0.levels.store(Arc::new(parse(level)?));
        // The decisions that callsites have cached are no longer valid.
        callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Sets how many repeats of a line are written; `None` = all.
    pub fn set_throttle(&self, throttle: Option<LogThrottle>) {
        self.0.throttler.set(throttle);
    }

    /// Writes the debug lines about `subject` for `time`, whatever the level; a `time` of zero ends it.
    pub fn debug(&self, subject: Subject, time: Duration) -> Result<(), TooMany> {
        let (kind, id, seconds) = (subject.kind(), subject.id().to_owned(), time.as_secs());
        if self.0.debugging.set(subject, time, Instant::now())? {
            callsite::rebuild_interest_cache();
        }
        self.0.timer.wake();
        info!(target: AUDIT, event = "debug_ordered", kind, id, seconds, "debug lines are enabled for a subject");
        Ok(())
    }

    /// The subjects whose debug lines are written.
    pub fn debugged(&self) -> Vec<Debugged> {
        self.0.debugging.list(Instant::now())
    }

    /// Where the layer that formats lines writes them.
    pub fn writer(&self) -> LogWriter {
        LogWriter(Arc::clone(&self.0))
    }

    /// Starts the thread that writes the summaries of throttled lines and what stderr did not take at
    /// once, and ends debugging when its time is over.
    pub fn start_maintenance(&self) -> std::io::Result<()> {
        let control = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                // The hook has logged a panic; the next task may succeed.
                let due = catch_unwind(AssertUnwindSafe(|| control.maintain(Instant::now())));
                control.0.timer.sleep(due.unwrap_or_else(|_| Some(Instant::now() + AFTER_PANIC)));
            }
        })?;
        Ok(())
    }

    /// Does what is due; returns when the next task is due.
    fn maintain(&self, now: Instant) -> Option<Instant> {
        let next_summary = self.0.throttler.summarize(now);
        let debugging = self.0.debugging.expire(now);
        if debugging.ended {
            callsite::rebuild_interest_cache();
        }
        let waits = self.0.output.retry();
        if let Some(lines) = self.0.output.take_lost() {
            warn!(event = "log_lines_lost", lines, "lines were lost because stderr took nothing");
        }
        let next_try = waits.then(|| now + RETRY);
        [next_summary, debugging.next, next_try].into_iter().flatten().min()
    }

    /// Writes the summaries that are not due yet and what waits for stderr; for the end of the process.
    pub fn finish(&self) {
        self.0.throttler.summarize_all();
        self.0.output.drain(LAST_WRITE);
    }
}

impl Write for &LogWriter {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.0.output.write(line);
        if written.is_lost {
            LOST_LINES.get().increment(1);
        }
        if written.begins_to_wait {
            self.0.timer.wake();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|wrong| format!("log.level: {level:?}: {wrong}"))
}

impl<S: Subscriber> Layer<S> for LineFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let by_level = Layer::<S>::register_callsite(&**self.0.levels.load(), metadata);
        if by_level.is_never() && self.0.debugging.may_include(metadata) {
            return Interest::sometimes();
        }
        by_level
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.levels.load().enabled(metadata, context) || self.0.debugging.may_include(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if self.0.debugging.is_on() && !self.0.levels.load().enabled(metadata, context) {
            return self.0.debugging.includes(event);
        }
        if *metadata.level() > Level::INFO || metadata.target() == AUDIT {
            return true;
        }
        let verdict = self.0.throttler.count(event, Instant::now());
        if verdict.is_first_suppressed {
            self.0.timer.wake();
        }
        verdict.is_written
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let by_level = Layer::<S>::max_level_hint(&**self.0.levels.load())?;
        Some(if self.0.debugging.is_on() { by_level.max(LevelFilter::DEBUG) } else { by_level })
    }
}
