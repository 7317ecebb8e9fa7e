//! The open sessions of one thread: their timers, and their orderly end.
//!
//! No session has a timer of its own. A sweep looks at a slice of the registry each tick and at all of it
//! within a round; a deadline is kept to within a round.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use crate::clock;
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

/// The sessions of one thread, each at the index in its `registry_slot`.
pub struct SessionRegistry {
    sessions: RefCell<Vec<Rc<Session>>>,
    cursor: Cell<usize>,
    tick: Cell<Duration>,
}

impl SessionRegistry {
    /// Of the sessions of these routes.
    pub fn new(routes: &[Arc<config::Route>]) -> Self {
        let tick = Cell::new(tick(routes));
        Self { sessions: RefCell::default(), cursor: Cell::new(0), tick }
    }

    /// Other routes from now on.
    pub(super) fn set_routes(&self, routes: &[Arc<config::Route>]) {
        self.tick.set(tick(routes));
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub(super) fn enter(&self, session: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        session.registry_slot.set(sessions.len());
        sessions.push(Rc::clone(session));
    }

    pub(super) fn leave(&self, session: &Session) {
        let mut sessions = self.sessions.borrow_mut();
        let slot = session.registry_slot.get();
        if sessions.get(slot).is_some_and(|found| std::ptr::eq(&**found, session)) {
            let left = sessions.swap_remove(slot);
            if let Some(moved) = sessions.get(slot) {
                moved.registry_slot.set(slot);
            }
            drop(sessions);
            drop(left);
        }
    }

    /// Runs the timers of this thread's sessions for ever.
    pub async fn sweep(&self) {
        let (mut queued, mut reported) = (0, 0);
        loop {
            tokio::time::sleep(self.tick.get()).await;
            let now = Instant::now();
            let unix_now = clock::since_unix_epoch();
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
    pub(super) async fn visit(&self, mut visitor: impl FnMut(&Rc<Session>)) {
        // From the end to the start: a session that leaves is replaced by the last one, which has been
        // visited, or is still to be.
        let mut end = self.len();
        while end > 0 {
            let start = end.saturating_sub(VISITED_AT_ONCE);
            let slice = {
                let sessions = self.sessions.borrow();
                sessions.get(start..end.min(sessions.len())).unwrap_or_default().to_vec()
            };
            slice.iter().for_each(&mut visitor);
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
        let mut departure = Departure::new(self.open_sessions(), stop.drain);
        let mut ticks = tokio::time::interval(DRAIN_TICK);
        while self.len() > 0 {
            ticks.tick().await;
            if departure.started.elapsed() >= stop.drain + stop.grace / 2 {
                self.sessions.borrow().iter().for_each(|session| session.socket.cut());
            } else if !departure.close_due() {
                // Also those that were only opening when the drain began.
                let spread = departure.spread;
                self.open_sessions().iter().for_each(|session| session.send_away(spread));
            }
        }
    }

    /// Sends `leaving` away, evenly spread over this time.
    pub(super) async fn dismiss(&self, leaving: VecDeque<Rc<Session>>, over: Duration) {
        let mut departure = Departure::new(leaving, over);
        let mut ticks = tokio::time::interval(DRAIN_TICK);
        loop {
            ticks.tick().await;
            if !departure.close_due() {
                let spread = departure.spread;
                return departure.waiting.iter().for_each(|session| session.send_away(spread));
            }
        }
    }

    fn open_sessions(&self) -> VecDeque<Rc<Session>> {
        self.sessions.borrow().iter().filter(|session| session.socket.is_open()).cloned().collect()
    }
}

/// A round takes a quarter of the shortest time that a session's timers are set to.
fn tick(routes: &[Arc<config::Route>]) -> Duration {
    let times = |route: &Arc<config::Route>| {
        let heartbeat = [route.idle_ping, route.pong_timeout];
        heartbeat.into_iter().chain(route.max_session).chain(route.expiry_notice)
    };
    let finest = routes.iter().flat_map(times).min().unwrap_or(LONGEST_ROUND);
    let round = (finest / 4).clamp(Duration::from_millis(50), LONGEST_ROUND);
    round / TICKS_PER_ROUND
}

/// Sessions that are sent away, some at each tick.
struct Departure {
    waiting: VecDeque<Rc<Session>>,
    count: usize,
    started: Instant,
    over: Duration,
    /// What each is asked to wait at most before it comes back.
    spread: Duration,
}

impl Departure {
    fn new(waiting: VecDeque<Rc<Session>>, over: Duration) -> Self {
        let (count, spread) = (waiting.len(), over.min(MAX_RECONNECT_SPREAD));
        Self { waiting, count, started: Instant::now(), over, spread }
    }

    /// Sends away who is due; false = the time is over, and with it all patience.
    fn close_due(&mut self) -> bool {
        let share = self.started.elapsed().as_secs_f64() / self.over.as_secs_f64();
        if share >= 1.0 {
            return false;
        }
        let due = (self.count as f64 * share).ceil() as usize;
        let gone = self.count - self.waiting.len();
        self.send_some_away(due.saturating_sub(gone));
        true
    }

    /// The next `count`; who is relaying goes to the end of the queue.
    fn send_some_away(&mut self, mut count: usize) {
        for _ in 0..self.waiting.len() {
            if count == 0 {
                return;
            }
            let Some(session) = self.waiting.pop_front() else { return };
            if session.is_relaying() {
                self.waiting.push_back(session);
            } else {
                session.send_away(self.spread);
                count -= 1;
            }
        }
    }
}

impl Session {
    pub(super) fn send_away(&self, spread: Duration) {
        if self.client.route.borrow().protocol == config::Protocol::Json {
            let span = spread.as_millis().max(1);
            let wait = uuid::Uuid::new_v4().as_u128() % span;
            self.say(&going_away(wait as u64));
        }
        self.socket.close(CloseReason::Restarting);
    }
}
