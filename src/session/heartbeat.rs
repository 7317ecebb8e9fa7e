//! Pings to silent clients, and the end of those that do not answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Session;
use crate::config::Route;
use crate::protocol::CloseReason;

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

    /// Notes whether bytes came since the last call. A ping that is due counts as sent.
    fn observe(&self, is_active: bool, now: Duration, route: &Route) -> Due {
        if is_active {
            self.last_seen.set(now);
            self.pinged.set(None);
            return Due::Nothing;
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
        let is_active = self.socket.take_activity();
        match self.heartbeat.observe(is_active, elapsed, &self.client.route.borrow()) {
            Due::Nothing => {}
            Due::Ping => self.socket.ping(),
            Due::Close => self.socket.close(CloseReason::PongTimeout),
        }
    }
}

#[cfg(test)]
mod tests;
