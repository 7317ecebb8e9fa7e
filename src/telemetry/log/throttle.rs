//! Throttles repeated lines: the first few within an interval are written, the others are counted, and one summary
//! line is written when the interval is over.
//!
//! Lines are repeats of each other if they come from the same callsite and agree in the fields [`KEYS`]; ids,
//! counts and times may differ.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, debug, error, info, warn};

use super::SUPPRESSED_LINES;
use super::fields::{self, Short, is_written_as};

/// The fields that distinguish lines of one callsite. Their values are labels, names from the config, or short
/// texts about a failure.
const KEYS: [&str; 15] = [
    "upstream", "route", "redis", "call", "limit", "step", "outcome", "cause", "why", "reason",
    "code", "key", "host", "check", "claim",
];

/// Events that are always written, however often they come.
const NEVER_THROTTLED: [&str; 2] = ["connection_closed", SUPPRESSED];

const SUPPRESSED: &str = "lines_suppressed";

/// Kinds of lines that are distinguished at a time. Beyond that, only callsites are.
const MAX_KINDS: usize = 1024;

const MAX_KEY_BYTES: usize = 256;

/// How many lines of a kind are written within an interval, which begins with the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogThrottle {
    pub lines: u64,
    pub interval: Duration,
}

/// Whether a line is written.
pub(super) struct Verdict {
    pub is_written: bool,
    /// This line is the first of its kind that is not written, so that a summary is due after the interval.
    pub is_first_suppressed: bool,
}

impl Verdict {
    const WRITTEN: Self = Self { is_written: true, is_first_suppressed: false };
}

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    callsite: Identifier,
    /// The fields [`KEYS`] as `name=value`, up to [`MAX_KEY_BYTES`].
    key: String,
}

/// The lines of one kind within one interval.
struct Window {
    ends: Instant,
    count: u64,
    suppressed: u64,
    level: Level,
    event: String,
}

struct State {
    throttle: Option<LogThrottle>,
    /// At most [`MAX_KINDS`], plus one for each callsite.
    windows: HashMap<Kind, Window>,
}

/// Counts the lines that were written lately.
pub(super) struct Throttler(Mutex<State>);

impl Throttler {
    pub fn new(throttle: Option<LogThrottle>) -> Self {
        Self(Mutex::new(State { throttle, windows: HashMap::new() }))
    }

    pub fn set(&self, throttle: Option<LogThrottle>) {
        self.state().throttle = throttle;
    }

    /// Counts the line, and decides whether it is written.
    pub fn count(&self, event: &Event<'_>, now: Instant) -> Verdict {
        if self.state().throttle.is_none() {
            return Verdict::WRITTEN;
        }
        let (name, key) = describe(event);
        if NEVER_THROTTLED.contains(&name.as_str()) {
            return Verdict::WRITTEN;
        }
        let mut state = self.state();
        let Some(throttle) = state.throttle else { return Verdict::WRITTEN };
        let mut kind = Kind { callsite: event.metadata().callsite(), key };
        if state.windows.len() >= MAX_KINDS && !state.windows.contains_key(&kind) {
            // A window with suppressed lines stays until its summary is written.
            state.windows.retain(|_, window| now < window.ends || window.suppressed > 0);
            if state.windows.len() >= MAX_KINDS {
                kind.key.clear();
            }
        }
        let window = state.windows.entry(kind).or_insert_with(|| Window {
            ends: now + throttle.interval,
            count: 0,
            suppressed: 0,
            level: *event.metadata().level(),
            event: name,
        });
        if now >= window.ends && window.suppressed == 0 {
            (window.ends, window.count) = (now + throttle.interval, 0);
        }
        window.count += 1;
        if window.count <= throttle.lines {
            return Verdict::WRITTEN;
        }
        window.suppressed += 1;
        let is_first_suppressed = window.suppressed == 1;
        drop(state);
        SUPPRESSED_LINES.get().increment(1);
        Verdict { is_written: false, is_first_suppressed }
    }

    /// Writes the summaries of the intervals that are over; returns when the next summary is due.
    pub fn summarize(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let over: Vec<_> = state.windows.extract_if(|_, window| window.ends <= now).collect();
        let suppressing = state.windows.values().filter(|window| window.suppressed > 0);
        let next = suppressing.map(|window| window.ends).min();
        // The summaries are lines themselves, and lock the state when they are counted.
        drop(state);
        over.iter().for_each(|(kind, window)| window.summarize(kind));
        next
    }

    /// Writes all summaries that are not written yet.
    pub fn summarize_all(&self) {
        let windows = std::mem::take(&mut self.state().windows);
        windows.iter().for_each(|(kind, window)| window.summarize(kind));
    }

    #[cfg(test)]
    pub fn kinds(&self) -> usize {
        self.state().windows.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn summarize(&self, kind: &Kind) {
        if self.suppressed == 0 {
            return;
        }
        let (of, suppressed, key) = (self.event.as_str(), self.suppressed, kind.key.as_str());
        const TEXT: &str = "more lines of this kind were not written";
        match self.level {
            Level::ERROR => error!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            Level::WARN => warn!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            Level::INFO => info!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
            _ => debug!(event = SUPPRESSED, of, suppressed, key, "{TEXT}"),
        }
    }
}

/// The name of an event, or else its target, and the fields [`KEYS`].
fn describe(event: &Event<'_>) -> (String, String) {
    let mut name = Short::new(MAX_KEY_BYTES);
    let mut key = Short::new(MAX_KEY_BYTES);
    fields::read(event, |field, value| {
        // Writing to memory cannot fail.
        let _ = if field == "event" {
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
