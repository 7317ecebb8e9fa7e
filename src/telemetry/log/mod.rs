//! Which lines are logged: the level, which can be changed while the process runs.
//!
//! [`LineFilter`] stands before whatever writes the lines; [`LogControl`] changes what it lets through.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, callsite};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer};

struct Shared {
    levels: ArcSwap<EnvFilter>,
}

/// Changes what is logged while the process runs, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

/// The layer that decides about each line.
pub struct LineFilter(Arc<Shared>);

/// `level` is as in [`LogControl::set_level`].
pub fn filter(level: &str) -> Result<(LogControl, LineFilter), String> {
    let shared = Arc::new(Shared { levels: ArcSwap::from_pointee(parse(level)?) });
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
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|wrong| format!("log.level: {level:?}: {wrong}"))
}

impl<S: Subscriber> Layer<S> for LineFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&**self.0.levels.load(), metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.levels.load().enabled(metadata, context)
    }

    fn event_enabled(&self, _event: &Event<'_>, _context: Context<'_, S>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&**self.0.levels.load())
    }
}

#[cfg(test)]
mod tests;
