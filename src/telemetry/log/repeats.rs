//! The same line over and over: the first few are written, the rest is counted, and told once when the
//! interval is over.
//!
//! Lines are the same if they come from the same place in the code and say the same of why and where;
//! ids, counts and times may differ.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, debug, error, info, warn};

use super::SUPPRESSED_LINES;
use super::fields::{self, Short, is_written_as};

/// What tells lines from one place apart. Values are words of fixed sets and names out of the config, or
/// short texts about what went wrong.
const KEYS: [&str; 13] = [
    "upstream", "route", "redis", "call", "limit", "step", "outcome", "cause", "why", "reason",
    "code", "key", "host",
];

/// Each is a fact of its own, however many there are.
const NEVER_REPEATS: [&str; 2] = ["connection_closed", SUPPRESSED];

const SUPPRESSED: &str = "lines_suppressed";

/// Kinds of lines that are told apart at once; beyond that, only places in the code are.
const MAX_KINDS: usize = 1024;

const MAX_KEY_BYTES: usize = 256;

/// So many of a kind are written within an interval, which begins with the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    pub lines: u64,
    pub interval: Duration,
}

/// Whether a line is written.
pub(super) struct Verdict {
    pub is_written: bool,
    /// There is something to tell when the interval is over.
    pub is_first_suppressed: bool,
}

impl Verdict {
    const WRITTEN: Self = Self { is_written: true, is_first_suppressed: false };
}

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    place: Identifier,
    /// The fields in [`KEYS`].
    key: String,
}

/// Lines of one kind within one interval.
struct Run {
    ends: Instant,
    count: u64,
    suppressed: u64,
    level: Level,
    event: String,
}

struct State {
    repeats: Option<Repeats>,
    /// At most [`MAX_KINDS`] and as many as there are places.
    runs: HashMap<Kind, Run>,
}

/// What was written lately.
pub(super) struct Repeated(Mutex<State>);

impl Repeated {
    pub fn new(repeats: Option<Repeats>) -> Self {
        Self(Mutex::new(State { repeats, runs: HashMap::new() }))
    }

    pub fn set(&self, repeats: Option<Repeats>) {
        self.state().repeats = repeats;
    }

    pub fn judge(&self, event: &Event<'_>, now: Instant) -> Verdict {
        if self.state().repeats.is_none() {
            return Verdict::WRITTEN;
        }
        let (name, key) = describe(event);
        if NEVER_REPEATS.contains(&name.as_str()) {
            return Verdict::WRITTEN;
        }
        let mut state = self.state();
        let Some(repeats) = state.repeats else { return Verdict::WRITTEN };
        let mut kind = Kind { place: event.metadata().callsite(), key };
        if state.runs.len() >= MAX_KINDS && !state.runs.contains_key(&kind) {
            // What has something to tell stays until it is told.
            state.runs.retain(|_, run| now < run.ends || run.suppressed > 0);
            if state.runs.len() >= MAX_KINDS {
                kind.key.clear();
            }
        }
        let run = state.runs.entry(kind).or_insert_with(|| Run {
            ends: now + repeats.interval,
            count: 0,
            suppressed: 0,
            level: *event.metadata().level(),
            event: name,
        });
        if now >= run.ends && run.suppressed == 0 {
            (run.ends, run.count) = (now + repeats.interval, 0);
        }
        run.count += 1;
        if run.count <= repeats.lines {
            return Verdict::WRITTEN;
        }
        run.suppressed += 1;
        let is_first_suppressed = run.suppressed == 1;
        drop(state);
        SUPPRESSED_LINES.get().increment(1);
        Verdict { is_written: false, is_first_suppressed }
    }

    /// Tells of the intervals that are over; returns when the next one is that has something to tell.
    pub fn tell(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let over: Vec<_> = state.runs.extract_if(|_, run| run.ends <= now).collect();
        let telling = state.runs.values().filter(|run| run.suppressed > 0);
        let next = telling.map(|run| run.ends).min();
        // What is told is a line itself, and comes by here.
        drop(state);
        over.iter().filter(|(_, run)| run.suppressed > 0).for_each(|(kind, run)| run.tell(kind));
        next
    }

    pub fn tell_all(&self) {
        let runs = std::mem::take(&mut self.state().runs);
        runs.iter().filter(|(_, run)| run.suppressed > 0).for_each(|(kind, run)| run.tell(kind));
    }

    #[cfg(test)]
    pub fn kinds(&self) -> usize {
        self.state().runs.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn tell(&self, kind: &Kind) {
        let (of, suppressed, key) = (self.event.as_str(), self.suppressed, kind.key.as_str());
        const TEXT: &str = "more lines like this were not written";
        match self.level {
            Level::ERROR => error!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            Level::WARN => warn!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            Level::INFO => info!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            _ => debug!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
        }
    }
}

/// An event's name, or where it comes from, and the fields that it is told apart by.
fn describe(event: &Event<'_>) -> (String, String) {
    let mut name = Short::new(MAX_KEY_BYTES);
    let mut key = Short::new(MAX_KEY_BYTES);
    fields::read(event, |field, value| {
        let _never_fails = if field == "event" {
            write!(name, "{value}")
        } else if KEYS.contains(&field) && !is_written_as(value, "") {
            let gap = if key.text.is_empty() { "" } else { " " };
            write!(key, "{gap}{field}={value}")
        } else {
            Ok(())
        };
    });
    let name = if name.text.is_empty() { event.metadata().target().to_owned() } else { name.text };
    (name, key.text)
}
