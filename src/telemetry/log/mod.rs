//! Which lines are logged: by level, by who is being debugged, and how often the same one is repeated.
//!
//! [`LineFilter`] stands before whatever writes the lines; [`LogControl`] changes what it lets through
//! while the process runs. Invariants: an audit line is never held back by how often it comes; while
//! nobody is being debugged, a debug line costs what it costs without this module.

mod debugging;
mod fields;
mod keeper;
#[cfg(test)]
mod reference;
mod repeats;
#[cfg(test)]
mod tests;

pub use debugging::{Debugged, Subject, TooMany};
pub use fields::on_one_line;
pub use repeats::Repeats;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, callsite, info};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer};

use super::definitions::metrics;
use debugging::Debugging;
use keeper::Keeper;
use repeats::Repeated;

metrics! {
    /// Lines of the log that were not written, since as many like them had been.
    SUPPRESSED_LINES = counter "tidegate_log_lines_suppressed_total";
}

/// The target of what an auditor wants to read: credentials that were given out, used and refused, and
/// what servers and operators ordered.
pub const AUDIT: &str = "audit";

struct Shared {
    levels: ArcSwap<EnvFilter>,
    debugging: Debugging,
    repeated: Repeated,
    keeper: Keeper,
}

/// Changes what is logged while the process runs, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

/// The layer that decides about each line.
pub struct LineFilter(Arc<Shared>);

/// `level` is as in [`LogControl::set_level`], `repeats` as in [`LogControl::set_repeats`].
pub fn filter(level: &str, repeats: Option<Repeats>) -> Result<(LogControl, LineFilter), String> {
    let shared = Arc::new(Shared {
        levels: ArcSwap::from_pointee(parse(level)?),
        debugging: Debugging::default(),
        repeated: Repeated::new(repeats),
        keeper: Keeper::default(),
    });
    Ok((LogControl(Arc::clone(&shared)), LineFilter(shared)))
}

impl LogControl {
    /// Takes `level`, such as `info` or `tidegate=debug,warn`, from the next line on. `Err` says what is
    /// wrong with it; then nothing changes.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.0.levels.store(Arc::new(parse(level)?));
        // What each callsite has been told holds no longer.
        callsite::rebuild_interest_cache();
        Ok(())
    }

    /// How often a line is written before its repeats are counted instead; `None` = always.
    pub fn set_repeats(&self, repeats: Option<Repeats>) {
        self.0.repeated.set(repeats);
    }

    /// Has the debug lines about `subject` written for the time that follows, whatever the level; no
    /// time at all ends it.
    pub fn debug(&self, subject: Subject, time: Duration) -> Result<(), TooMany> {
        let (kind, id, seconds) = (subject.kind(), subject.id().to_owned(), time.as_secs());
        if self.0.debugging.set(subject, time, Instant::now())? {
            callsite::rebuild_interest_cache();
        }
        self.0.keeper.wake();
        info!(target: AUDIT, event = "debug_ordered", kind, id, seconds, "debug lines are written for so long");
        Ok(())
    }

    /// Whom debug lines are written about.
    pub fn debugged(&self) -> Vec<Debugged> {
        self.0.debugging.list(Instant::now())
    }

    /// Starts the thread that tells of repeats and ends what was to last for some time only.
    pub fn keep(&self) -> std::io::Result<()> {
        let control = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let due = control.look(Instant::now());
                control.0.keeper.sleep(due);
            }
        })?;
        Ok(())
    }

    /// Does what is due; returns when there is more to do.
    fn look(&self, now: Instant) -> Option<Instant> {
        let told = self.0.repeated.tell(now);
        let debugged = self.0.debugging.expire(now);
        if debugged.ended {
            callsite::rebuild_interest_cache();
        }
        [told, debugged.next].into_iter().flatten().min()
    }

    /// Tells of all repeats that were not written so far; for the end of the process.
    pub fn finish(&self) {
        self.0.repeated.tell_all();
    }
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|wrong| format!("log.level: {level:?}: {wrong}"))
}

impl<S: Subscriber> Layer<S> for LineFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let by_level = Layer::<S>::register_callsite(&**self.0.levels.load(), metadata);
        if by_level.is_never() && self.0.debugging.may_want(metadata) {
            return Interest::sometimes();
        }
        by_level
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.levels.load().enabled(metadata, context) || self.0.debugging.may_want(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if self.0.debugging.is_on() && !self.0.levels.load().enabled(metadata, context) {
            return self.0.debugging.wants(event);
        }
        if *metadata.level() > Level::INFO || metadata.target() == AUDIT {
            return true;
        }
        let verdict = self.0.repeated.judge(event, Instant::now());
        if verdict.is_first_suppressed {
            self.0.keeper.wake();
        }
        verdict.is_written
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let by_level = Layer::<S>::max_level_hint(&**self.0.levels.load())?;
        Some(if self.0.debugging.is_on() { by_level.max(LevelFilter::DEBUG) } else { by_level })
    }
}
