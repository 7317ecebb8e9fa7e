//! The open sessions of one thread: their timers, and their orderly end.
//!
//! No session has a timer of its own. A sweep looks at a slice of the roster each tick and at all of it
//! within a round; a deadline is kept to within a round.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Session;
use super::credentials::unix_now;
use crate::config;
use crate::protocol::{CloseReason, going_away};
use crate::telemetry;

/// A round takes this long at most, and this many ticks.
const LONGEST_ROUND: Duration = Duration::from_secs(1);
const TICKS_PER_ROUND: u32 = 10;

/// Sessions that a visitor sees before others of the thread get their turn.
const VISITED_AT_ONCE: usize = 256;

const DRAIN_TICK: Duration = Duration::from_millis(20);

/// A client that is sent away is asked to wait up to this long, so that not all come back at once.
const MAX_RECONNECT_SPREAD: Duration = Duration::from_secs(5);

/// The sessions of one thread, each at the index in its `roster_slot`.
pub struct Roster {
    sessions: RefCell<Vec<Rc<Session>>>,
    cursor: Cell<usize>,
    tick: Duration,
}

impl Roster {
    /// `finest` is the shortest time that a session's timers are set to.
    pub fn new(finest: Duration) -> Self {
        let round = (finest / 4).clamp(Duration::from_millis(50), LONGEST_ROUND);
        Self { sessions: RefCell::default(), cursor: Cell::new(0), tick: round / TICKS_PER_ROUND }
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub(super) fn enter(&self, session: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        session.roster_slot.set(sessions.len());
        sessions.push(Rc::clone(session));
    }

    pub(super) fn leave(&self, session: &Session) {
        let mut sessions = self.sessions.borrow_mut();
        let slot = session.roster_slot.get();
        if sessions.get(slot).is_some_and(|found| std::ptr::eq(&**found, session)) {
            let left = sessions.swap_remove(slot);
            if let Some(moved) = sessions.get(slot) {
                moved.roster_slot.set(slot);
            }
            drop(sessions);
            drop(left);
        }
    }

    /// Runs the timers of this thread's sessions for ever.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut queued, mut reported) = (0, 0);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let unix_now = unix_now();
            for session in self.next_slice() {
                session.check(now);
                session.check_credentials(now, unix_now);
                queued += session.socket.queued_bytes();
            }
            let round_is_over = self.cursor.get() >= self.len();
            if round_is_over {
                telemetry::connections::send_queues(reported, queued);
                (queued, reported) = (0, queued);
            }
        }
    }

    /// Shows every session that is here now to `visitor`, some of them twice; others of the thread get
    /// their turn in between.
    pub(super) async fn visit(&self, mut visitor: impl FnMut(&Session)) {
        // From the end to the start: a session that leaves is replaced by the last one, which has been
        // visited, or is still to be.
        let mut end = self.len();
        while end > 0 {
            let start = end.saturating_sub(VISITED_AT_ONCE);
            let slice = {
                let sessions = self.sessions.borrow();
                sessions.get(start..end.min(sessions.len())).unwrap_or_default().to_vec()
            };
            slice.iter().for_each(|session| visitor(session));
            drop(slice);
            end = start;
            tokio::task::yield_now().await;
        }
    }

    fn next_slice(&self) -> Vec<Rc<Session>> {
        let sessions = self.sessions.borrow();
        let size = sessions.len().div_ceil(TICKS_PER_ROUND as usize);
        let start = if self.cursor.get() >= sessions.len() { 0 } else { self.cursor.get() };
        let end = (start + size).min(sessions.len());
        self.cursor.set(end);
        sessions[start..end].to_vec()
    }

    /// Sends everybody away, evenly spread over `drain`; those with a message on its way upstream
    /// wait for it, at the longest until `drain` is over. Who has not answered the close frame after half
    /// of `grace` is cut. Returns when the last session has ended.
    pub async fn drain(&self, stop: &config::Shutdown) {
        let drain = stop.drain;
        let started = Instant::now();
        let mut waiting = self.open_sessions();
        let count = waiting.len() as f64;
        let spread = drain.min(MAX_RECONNECT_SPREAD);
        let mut ticks = tokio::time::interval(DRAIN_TICK);
        while self.len() > 0 {
            ticks.tick().await;
            if started.elapsed() >= drain + stop.grace / 2 {
                self.sessions.borrow().iter().for_each(|session| session.socket.cut());
                continue;
            }
            let share = started.elapsed().as_secs_f64() / drain.as_secs_f64();
            if share < 1.0 {
                let due = (count * share).ceil() as usize;
                let gone = count as usize - waiting.len();
                send_some_away(&mut waiting, due.saturating_sub(gone), spread);
            } else {
                // Also those that were only opening when the drain began.
                self.open_sessions().iter().for_each(|session| session.send_away(spread));
            }
        }
    }

    fn open_sessions(&self) -> VecDeque<Rc<Session>> {
        self.sessions.borrow().iter().filter(|session| session.socket.is_open()).cloned().collect()
    }
}

/// The next `count` of `waiting`; who is relaying goes to the end of the queue.
fn send_some_away(waiting: &mut VecDeque<Rc<Session>>, mut count: usize, spread: Duration) {
    for _ in 0..waiting.len() {
        if count == 0 {
            return;
        }
        let Some(session) = waiting.pop_front() else { return };
        if session.is_relaying() {
            waiting.push_back(session);
        } else {
            session.send_away(spread);
            count -= 1;
        }
    }
}

impl Session {
    fn send_away(&self, spread: Duration) {
        if self.client.route.protocol == config::Protocol::Json {
            let span = spread.as_millis().max(1);
            let wait = uuid::Uuid::new_v4().as_u128() % span;
            self.say(&going_away(wait as u64));
        }
        self.socket.close(CloseReason::Restarting);
    }
}
