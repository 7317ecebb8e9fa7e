//! Closing many sessions in good order: all of a thread when the gateway drains, or those that cannot
//! follow a reload.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Session, SessionRegistry};
use crate::config;
use crate::protocol::{CloseReason, going_away};

const DRAIN_TICK: Duration = Duration::from_millis(20);

/// A client that is closed is asked to wait up to this long, so that not all reconnect at once.
const MAX_RECONNECT_SPREAD: Duration = Duration::from_secs(5);

impl SessionRegistry {
    /// Closes all sessions, evenly spread over `stop.drain`. A session with a message on its way to the
    /// upstream is closed after it, at the latest when `stop.drain` is over. A client that has not answered
    /// the close frame after half of `stop.grace` more is disconnected. Returns when the last session has
    /// ended.
    pub async fn drain(&self, stop: &config::Shutdown) {
        let mut close = GradualClose::new(self.open_sessions(), stop.drain);
        let mut ticks = tokio::time::interval(DRAIN_TICK);
        while self.len() > 0 {
            ticks.tick().await;
            if close.started.elapsed() >= stop.drain + stop.grace / 2 {
                self.abort_all();
            } else if !close.close_due() {
                // Also those that were only opening when the drain began.
                let open: Vec<_> = self.open_sessions();
                open.iter().for_each(|session| session.close_for_reconnect(close.spread));
            }
        }
    }

    /// Closes `sessions`, evenly spread over this time.
    pub(super) async fn close_gradually(&self, sessions: VecDeque<Rc<Session>>, over: Duration) {
        let mut close = GradualClose::new(sessions, over);
        let mut ticks = tokio::time::interval(DRAIN_TICK);
        loop {
            ticks.tick().await;
            if !close.close_due() {
                let rest = close.waiting.iter();
                return rest.for_each(|session| session.close_for_reconnect(close.spread));
            }
        }
    }
}

/// Sessions that are being closed, some at each tick.
struct GradualClose {
    waiting: VecDeque<Rc<Session>>,
    count: usize,
    started: Instant,
    over: Duration,
    /// The longest that a client is asked to wait before it reconnects.
    spread: Duration,
}

impl GradualClose {
    fn new(waiting: VecDeque<Rc<Session>>, over: Duration) -> Self {
        let (count, spread) = (waiting.len(), over.min(MAX_RECONNECT_SPREAD));
        Self { waiting, count, started: Instant::now(), over, spread }
    }

    /// Closes the sessions that are due. Returns false once the time is over, and closes none then.
    fn close_due(&mut self) -> bool {
        let share = self.started.elapsed().as_secs_f64() / self.over.as_secs_f64();
        if share >= 1.0 {
            return false;
        }
        let due = (self.count as f64 * share).ceil() as usize;
        let closed = self.count - self.waiting.len();
        self.close_next(due.saturating_sub(closed));
        true
    }

    /// Closes the next `count` sessions. Those that are relaying go to the end of the queue.
    fn close_next(&mut self, mut count: usize) {
        for _ in 0..self.waiting.len() {
            if count == 0 {
                return;
            }
            let Some(session) = self.waiting.pop_front() else { return };
            if session.is_relaying() {
                self.waiting.push_back(session);
            } else {
                session.close_for_reconnect(self.spread);
                count -= 1;
            }
        }
    }
}

impl Session {
    /// Closes the connection and asks the client to reconnect, after a random wait of up to `spread`.
    pub(super) fn close_for_reconnect(&self, spread: Duration) {
        if self.client.route.borrow().protocol == config::Protocol::Json {
            let span = spread.as_millis().max(1);
            let wait = uuid::Uuid::new_v4().as_u128() % span;
            self.send_event(&going_away(wait as u64));
        }
        self.socket.close(CloseReason::Restarting);
    }
}
