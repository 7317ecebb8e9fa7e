//! Pings to silent clients, and the end of those that do not answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Session;
use super::tick::Tick;
use crate::config::{Protocol, Route};
use crate::protocol::CloseReason;
use crate::socket::Activity;

/// How long either side of a connection may take nothing of what waits for it, where messages pass as they are. Each slows
/// its peer down meanwhile.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) struct Heartbeat {
    last_seen: Cell<Tick>,
    /// When the last ping was sent.
    pinged: Cell<Tick>,
    /// Whether it is still unanswered.
    is_pinged: Cell<bool>,
}

/// What a client's silence calls for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Ping,
    Close,
}

impl Heartbeat {
    pub fn new(now: Tick) -> Self {
        Self { last_seen: Cell::new(now), pinged: Cell::new(now), is_pinged: Cell::new(false) }
    }

    /// Notes what the client has done since the last call. A ping that is due counts as sent. `now` is the time since the
    /// thread's start.
    fn observe(&self, activity: Activity, now: Duration, route: &Route) -> Due {
        match activity {
            Activity::Seen => {
                self.last_seen.set(Tick::at(now));
                self.is_pinged.set(false);
                return Due::Nothing;
            }
            // A ping would wait behind what the client does not read, which is no sign that it is gone.
            Activity::Stalled
                if route.protocol != Protocol::Json
                    && self.last_seen.get().elapsed(now) < STALL_TIMEOUT =>
            {
                return Due::Nothing;
            }
            Activity::Stalled | Activity::Silent => {}
        }
        match self.is_pinged.get() {
            true if self.pinged.get().elapsed(now) >= route.pong_timeout => Due::Close,
            false if self.last_seen.get().elapsed(now) >= route.idle_ping => {
                self.pinged.set(Tick::at(now));
                self.is_pinged.set(true);
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }
}

impl Session {
    /// Pings or closes a silent client, and ends a closing handshake that takes too long.
    pub(super) fn check_heartbeat(&self, now: Instant) {
        self.socket.abort_if_overdue(now);
        if !self.socket.is_open() {
            return;
        }
        let elapsed = now.duration_since(self.services.started);
        let activity = self.socket.take_activity();
        match self.heartbeat.observe(activity, elapsed, &self.client.route.borrow()) {
            Due::Nothing => {}
            Due::Ping => self.socket.ping(),
            Due::Close => self.socket.close(CloseReason::PongTimeout),
        }
    }
}

#[cfg(test)]
mod tests;
