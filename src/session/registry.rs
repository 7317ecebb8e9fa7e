//! The open sessions of one thread, and their timers.
//!
//! No session has a timer of its own. A sweep looks at a slice of the registry at each tick and at all of it
//! within a round, so a deadline is kept to within a round.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use super::driver::WakeQueue;
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

/// The sessions of one thread.
pub struct SessionRegistry {
    sessions: RefCell<Slots>,
    /// The sessions that are to be polled.
    pub(super) woken: Arc<WakeQueue>,
    /// Where the next tick of the sweep begins.
    cursor: Cell<usize>,
    tick: Cell<Duration>,
}

impl SessionRegistry {
    /// `routes` decide how fine the timers must be.
    pub fn new(routes: &[Arc<config::Route>]) -> Self {
        let tick = Cell::new(tick(routes));
        let (sessions, woken) = (RefCell::default(), Arc::default());
        Self { sessions, woken, cursor: Cell::new(0), tick }
    }

    pub(super) fn set_routes(&self, routes: &[Arc<config::Route>]) {
        self.tick.set(tick(routes));
    }

    pub fn len(&self) -> usize {
        self.sessions.borrow().count
    }

    pub(super) fn insert(&self, session: &Rc<Session>) {
        let slot = self.sessions.borrow_mut().insert(Rc::clone(session));
        session.registry_slot.set(slot);
    }

    pub(super) fn remove(&self, session: &Session) {
        // What the session's end calls may look into the registry, so it is dropped after the borrow.
        let removed = self.sessions.borrow_mut().remove(session);
        drop(removed);
    }

    /// The session in this slot, if there is one.
    pub(super) fn at(&self, slot: u32) -> Option<Rc<Session>> {
        self.sessions.borrow().slots.get(slot as usize)?.clone()
    }

    pub(super) fn all(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().slots.iter().flatten().cloned().collect()
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
            let is_round_over = self.cursor.get() >= self.sessions.borrow().slots.len();
            if is_round_over {
                let queued = held.queues;
                telemetry::connections::send_queues_measured(reported, queued);
                self.keep_budget(budget, std::mem::take(&mut held));
                reported = queued;
            }
        }
    }

    /// Calls `visit` with every session that is here now. Other tasks of the thread run in between.
    pub(super) async fn for_each(&self, mut visit: impl FnMut(&Rc<Session>)) {
        let mut start = 0;
        let count = self.sessions.borrow().slots.len();
        while start < count {
            let end = (start + SESSIONS_PER_TURN).min(count);
            let slice = self.sessions.borrow().slice(start, end);
            for session in &slice {
                session.contain(|| visit(session));
            }
            drop(slice);
            start = end;
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn open_sessions<C: FromIterator<Rc<Session>>>(&self) -> C {
        let sessions = self.sessions.borrow();
        let all = sessions.slots.iter().flatten();
        all.filter(|session| session.socket.is_open()).cloned().collect()
    }

    /// Ends every connection without a closing handshake.
    pub(super) fn abort_all(&self) {
        self.sessions.borrow().slots.iter().flatten().for_each(|session| session.socket.abort());
    }

    fn next_slice(&self) -> Vec<Rc<Session>> {
        let sessions = self.sessions.borrow();
        let count = sessions.slots.len();
        let size = count.div_ceil(TICKS_PER_ROUND as usize);
        let start = if self.cursor.get() >= count { 0 } else { self.cursor.get() };
        let end = (start + size).min(count);
        self.cursor.set(end);
        sessions.slice(start, end)
    }
}

/// Sessions, each at the index in its `registry_slot`, which stays the same as long as the session is here.
#[derive(Default)]
struct Slots {
    slots: Vec<Option<Rc<Session>>>,
    /// How many of them have a session.
    count: usize,
    /// The empty ones. Some may be used, or cut off, since they came here.
    free: Vec<u32>,
}

impl Slots {
    fn insert(&mut self, session: Rc<Session>) -> u32 {
        self.count += 1;
        while let Some(slot) = self.free.pop() {
            if let Some(empty @ None) = self.slots.get_mut(slot as usize) {
                *empty = Some(session);
                return slot;
            }
        }
        self.slots.push(Some(session));
        // A process has far fewer descriptors.
        u32::try_from(self.slots.len() - 1).expect("a thread has fewer than 2^32 sessions")
    }

    /// Returns the session if it was here.
    fn remove(&mut self, session: &Session) -> Option<Rc<Session>> {
        let slot = session.registry_slot.get();
        let found = self.slots.get_mut(slot as usize)?;
        let removed = found.take_if(|found| std::ptr::eq(&**found, session))?;
        self.count -= 1;
        self.free.push(slot);
        while self.slots.pop_if(|last| last.is_none()).is_some() {}
        if self.slots.is_empty() {
            self.free = Vec::new();
        }
        Some(removed)
    }

    fn slice(&self, start: usize, end: usize) -> Vec<Rc<Session>> {
        let end = end.min(self.slots.len());
        self.slots.get(start..end).unwrap_or_default().iter().flatten().cloned().collect()
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
