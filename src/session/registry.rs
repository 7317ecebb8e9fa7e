//! The open sessions of one thread, and their timers.
//!
//! No session has a timer of its own. A sweep looks at a slice of the registry at each tick and at all of it
//! within a round, so a deadline is kept to within a round.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use crate::clock;
use crate::config;
use crate::limits::{HeldMemory, ThreadBudget};
use crate::telemetry;

/// The longest duration of a round, and its number of ticks.
const LONGEST_ROUND: Duration = Duration::from_secs(1);
const SHORTEST_ROUND: Duration = Duration::from_millis(50);
const TICKS_PER_ROUND: u32 = 10;

/// How many sessions [`SessionRegistry::for_each`] looks at before it lets other tasks of the thread run.
const SESSIONS_PER_TURN: usize = 256;

/// The sessions of one thread, each at the index in its `registry_slot`.
pub struct SessionRegistry {
    sessions: RefCell<Vec<Rc<Session>>>,
    /// Where the next tick of the sweep begins.
    cursor: Cell<usize>,
    tick: Cell<Duration>,
}

impl SessionRegistry {
    /// `routes` decide how fine the timers must be.
    pub fn new(routes: &[Arc<config::Route>]) -> Self {
        let tick = Cell::new(tick(routes));
        Self { sessions: RefCell::default(), cursor: Cell::new(0), tick }
    }

    pub(super) fn set_routes(&self, routes: &[Arc<config::Route>]) {
        self.tick.set(tick(routes));
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub(super) fn insert(&self, session: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        session.registry_slot.set(sessions.len());
        sessions.push(Rc::clone(session));
    }

    pub(super) fn remove(&self, session: &Session) {
        let mut sessions = self.sessions.borrow_mut();
        let slot = session.registry_slot.get();
        if sessions.get(slot).is_some_and(|found| std::ptr::eq(&**found, session)) {
            let removed = sessions.swap_remove(slot);
            if let Some(moved) = sessions.get(slot) {
                moved.registry_slot.set(slot);
            }
            // What the session's end calls may look into the registry.
            drop(sessions);
            drop(removed);
        }
    }

    /// Runs the timers of this thread's sessions for ever.
    pub async fn sweep(&self, budget: &ThreadBudget) {
        let (mut held, mut reported) = (HeldMemory::default(), 0);
        loop {
            tokio::time::sleep(self.tick.get()).await;
            let now = Instant::now();
            let unix_now = clock::since_unix_epoch();
            for session in self.next_slice() {
                session.contain(|| {
                    session.check_heartbeat(now);
                    session.check_credentials(now, unix_now);
                });
                session.add_memory(&mut held);
            }
            let is_round_over = self.cursor.get() >= self.len();
            if is_round_over {
                let queued = held.queues;
                telemetry::connections::send_queues_measured(reported, queued);
                self.keep_budget(budget, std::mem::take(&mut held));
                reported = queued;
            }
        }
    }

    /// Calls `visit` with every session that is here now, with some of them twice. Other tasks of the
    /// thread run in between.
    pub(super) async fn for_each(&self, mut visit: impl FnMut(&Rc<Session>)) {
        // From the end to the start: a session that is removed is replaced by the last one, which has been
        // visited, or is still to be.
        let mut end = self.len();
        while end > 0 {
            let start = end.saturating_sub(SESSIONS_PER_TURN);
            let slice = {
                let sessions = self.sessions.borrow();
                sessions.get(start..end.min(sessions.len())).unwrap_or_default().to_vec()
            };
            for session in &slice {
                session.contain(|| visit(session));
            }
            drop(slice);
            end = start;
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn open_sessions<C: FromIterator<Rc<Session>>>(&self) -> C {
        self.sessions.borrow().iter().filter(|session| session.socket.is_open()).cloned().collect()
    }

    /// Ends every connection without a closing handshake.
    pub(super) fn abort_all(&self) {
        self.sessions.borrow().iter().for_each(|session| session.socket.abort());
    }

    fn next_slice(&self) -> Vec<Rc<Session>> {
        let sessions = self.sessions.borrow();
        let size = sessions.len().div_ceil(TICKS_PER_ROUND as usize);
        let start = if self.cursor.get() >= sessions.len() { 0 } else { self.cursor.get() };
        let end = (start + size).min(sessions.len());
        self.cursor.set(end);
        sessions[start..end].to_vec()
    }
}

/// A round takes a quarter of the shortest time that any timer of a session is set to.
fn tick(routes: &[Arc<config::Route>]) -> Duration {
    let times = |route: &Arc<config::Route>| {
        let heartbeat = [route.idle_ping, route.pong_timeout];
        heartbeat.into_iter().chain(route.max_session).chain(route.expiry_notice)
    };
    let finest = routes.iter().flat_map(times).min().unwrap_or(LONGEST_ROUND);
    let round = (finest / 4).clamp(SHORTEST_ROUND, LONGEST_ROUND);
    round / TICKS_PER_ROUND
}
