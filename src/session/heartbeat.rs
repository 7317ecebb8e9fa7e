//! Pings to silent clients, and the end of those that do not answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Session;
use crate::config::{Protocol, Route};
use crate::protocol::CloseReason;
use crate::socket::Activity;

/// How long either side of a connection may take nothing of what waits for it, where messages pass as they are. Each slows
/// its peer down meanwhile.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Times are counted from the thread's start.
pub(super) struct Heartbeat {
    last_seen: Cell<Duration>,
    /// When the ping was sent that is still unanswered.
    pinged: Cell<Option<Duration>>,
}

/// What a client's silence calls for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Ping,
    Close,
}

impl Heartbeat {
    pub fn new(now: Duration) -> Self {
        Self { last_seen: Cell::new(now), pinged: Cell::new(None) }
    }

    /// Notes what the client has done since the last call. A ping that is due counts as sent.
    fn observe(&self, activity: Activity, now: Duration, route: &Route) -> Due {
        match activity {
            Activity::Seen => {
                self.last_seen.set(now);
                self.pinged.set(None);
                return Due::Nothing;
            }
            // A ping would wait behind what the client does not read, which is no sign that it is gone.
            Activity::Stalled
                if route.protocol != Protocol::Json
                    && now < self.last_seen.get() + STALL_TIMEOUT =>
            {
                return Due::Nothing;
            }
            Activity::Stalled | Activity::Silent => {}
        }
        match self.pinged.get() {
            Some(pinged) if now >= pinged + route.pong_timeout => Due::Close,
            None if now >= self.last_seen.get() + route.idle_ping => {
                self.pinged.set(Some(now));
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
