//! Debug lines of one user, channel or connection, for some time.
//!
//! They are told apart by the fields that such lines carry: `user`, `channel` and `connection`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{Event, Level, Metadata};

use super::fields::{self, is_written_as};

/// Debugged at once; each costs a comparison a line.
const MAX_SUBJECTS: usize = 32;

/// Whom lines are about, as the lines write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    User(String),
    Channel(String),
    Connection(String),
}

impl Subject {
    /// The field that names it.
    fn field(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Channel(_) => "channel",
            Self::Connection(_) => "connection",
        }
    }

    /// What it is called in the server API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user_id",
            Self::Channel(_) => "channel",
            Self::Connection(_) => "connection_id",
        }
    }

    /// Its name.
    pub fn id(&self) -> &str {
        let (Self::User(id) | Self::Channel(id) | Self::Connection(id)) = self;
        id
    }
}

/// Somebody is being debugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debugged {
    pub subject: Subject,
    /// For how long from now.
    pub left: Duration,
}

/// As many are debugged at once as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// What the log's thread is to know.
pub(super) struct Expired {
    /// Nobody is debugged any more.
    pub ended: bool,
    /// When the next one expires.
    pub next: Option<Instant>,
}

#[derive(Clone)]
struct Wanted {
    subject: Subject,
    until: Instant,
}

/// Everybody who is being debugged: at most [`MAX_SUBJECTS`].
#[derive(Default)]
pub(super) struct Debugging {
    /// Somebody is.
    on: AtomicBool,
    wanted: ArcSwap<Vec<Wanted>>,
    changing: Mutex<()>,
}

impl Debugging {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether an event from there may be wanted.
    pub fn may_want(&self, metadata: &Metadata<'_>) -> bool {
        self.is_on()
            && metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && (metadata.target().starts_with("tidegate") || metadata.target() == super::AUDIT)
    }

    pub fn wants(&self, event: &Event<'_>) -> bool {
        if !self.may_want(event.metadata()) {
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

    /// True = callsites must be asked again.
    pub fn set(&self, subject: Subject, time: Duration, now: Instant) -> Result<bool, TooMany> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
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

    pub fn expire(&self, now: Instant) -> Expired {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = Vec::clone(&self.wanted.load());
        wanted.retain(|wanted| now < wanted.until);
        let next = wanted.iter().map(|wanted| wanted.until).min();
        Expired { ended: self.store(wanted), next }
    }

    /// True = it was switched on or off.
    fn store(&self, wanted: Vec<Wanted>) -> bool {
        let on = !wanted.is_empty();
        self.wanted.store(Arc::new(wanted));
        self.on.swap(on, Ordering::Relaxed) != on
    }
}
