//! Debug lines about one user, channel or connection, for a limited time.
//!
//! Such lines are recognized by their fields `user`, `channel` and `connection`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{Event, Level, Metadata};

use super::fields::{self, is_written_as};

/// Subjects that can be debugged at a time; each one costs a comparison for each line.
const MAX_SUBJECTS: usize = 32;

/// What is debugged: its id as it is written in the fields of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    User(String),
    Channel(String),
    Connection(String),
}

impl Subject {
    /// The log field that holds the id.
    fn field(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Channel(_) => "channel",
            Self::Connection(_) => "connection",
        }
    }

    /// The name of the field in the server API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user_id",
            Self::Channel(_) => "channel",
            Self::Connection(_) => "connection_id",
        }
    }

    pub fn id(&self) -> &str {
        let (Self::User(id) | Self::Channel(id) | Self::Connection(id)) = self;
        id
    }
}

/// A subject that is being debugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debugged {
    pub subject: Subject,
    /// The time until it ends.
    pub left: Duration,
}

/// As many subjects are being debugged as are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// The result of [`Debugging::expire`].
pub(super) struct Expired {
    /// The last subject has expired, so that callsites must be asked again.
    pub ended: bool,
    /// When the next subject expires.
    pub next: Option<Instant>,
}

#[derive(Clone)]
struct Wanted {
    subject: Subject,
    until: Instant,
}

/// The subjects that are being debugged, at most [`MAX_SUBJECTS`].
#[derive(Default)]
pub(super) struct Debugging {
    /// There is at least one subject.
    on: AtomicBool,
    wanted: ArcSwap<Vec<Wanted>>,
    /// Held while `wanted` is replaced.
    changing: Mutex<()>,
}

impl Debugging {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether events of this callsite may be about a subject.
    pub fn may_include(&self, metadata: &Metadata<'_>) -> bool {
        self.is_on()
            && metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && (metadata.target().starts_with("tidegate") || metadata.target() == super::AUDIT)
    }

    /// Whether this event is about a subject.
    pub fn includes(&self, event: &Event<'_>) -> bool {
        if !self.may_include(event.metadata()) {
            return false;
        }
        let (wanted, now) = (self.wanted.load(), Instant::now());
        let mut found = false;
        fields::read(event, |name, value| {
            found |= wanted.iter().any(|wanted| {
                wanted.subject.field() == name
                    && now < wanted.until
                    && is_written_as(value, wanted.subject.id())
            });
        });
        found
    }

    /// Adds, extends or (with a `time` of zero) removes a subject. True = callsites must be asked again.
    pub fn set(&self, subject: Subject, time: Duration, now: Instant) -> Result<bool, TooMany> {
        let _lock = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = Vec::clone(&self.wanted.load());
        wanted.retain(|other| other.subject != subject && now < other.until);
        if !time.is_zero() {
            if wanted.len() >= MAX_SUBJECTS {
                return Err(TooMany);
            }
            wanted.push(Wanted { subject, until: now + time });
        }
        Ok(self.store(wanted))
    }

    pub fn list(&self, now: Instant) -> Vec<Debugged> {
        let wanted = self.wanted.load();
        let lasting = wanted.iter().filter(|wanted| now < wanted.until);
        lasting
            .map(|wanted| Debugged { subject: wanted.subject.clone(), left: wanted.until - now })
            .collect()
    }

    /// Removes the subjects whose time is over.
    pub fn expire(&self, now: Instant) -> Expired {
        let _lock = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = Vec::clone(&self.wanted.load());
        wanted.retain(|wanted| now < wanted.until);
        let next = wanted.iter().map(|wanted| wanted.until).min();
        Expired { ended: self.store(wanted), next }
    }

    /// True = debugging was switched on or off.
    fn store(&self, wanted: Vec<Wanted>) -> bool {
        let on = !wanted.is_empty();
        self.wanted.store(Arc::new(wanted));
        self.on.swap(on, Ordering::Relaxed) != on
    }
}
