//! The one task of a thread that drives its sessions: whoever is woken is polled next, in the order of the wakes.
//!
//! A task of tokio's for each connection would take 256 bytes of every idle one; a waker takes 32. A panic closes its own
//! session and no other, and sessions that still run when the task is dropped end with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::{Services, Session, SessionRegistry};

/// How many sessions are polled before other tasks of the thread run; about as many as the tasks that a tokio runtime polls
/// before it looks for new input.
const SESSIONS_PER_POLL: usize = 64;

/// The sessions of a thread that are to be polled. There is at most one entry for each session.
#[derive(Default)]
pub(super) struct WakeQueue(Mutex<Woken>);

#[derive(Default)]
struct Woken {
    sessions: VecDeque<Arc<SessionWaker>>,
    /// The task that polls them, while it waits.
    driver: Option<Waker>,
}

/// Wakes one session. A wake that comes late reaches the next session of its slot, which is polled in vain.
pub(super) struct SessionWaker {
    queue: Arc<WakeQueue>,
    /// The session's place in the registry.
    slot: u32,
    is_queued: AtomicBool,
}

impl Wake for SessionWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let queue = Arc::clone(&self.queue);
            queue.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.queue.push(Arc::clone(self));
        }
    }
}

impl WakeQueue {
    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, session: Arc<SessionWaker>) {
        let driver = {
            let mut woken = self.lock();
            woken.sessions.push_back(session);
            woken.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Takes the next session. If there is none, the task of `driver` is woken when one is.
    fn pop(&self, driver: &Waker) -> Option<Arc<SessionWaker>> {
        let mut woken = self.lock();
        let next = woken.sessions.pop_front();
        if next.is_none() {
            woken.driver = Some(driver.clone());
        }
        next
    }
}

/// Drives the sessions of a thread for ever.
pub async fn drive_sessions(services: Rc<Services>) -> Infallible {
    let running = Running(services);
    let registry = &running.0.registry;
    // It gives way by itself, where tokio's budget would make reads and writes fail.
    tokio::task::unconstrained(poll_fn(|cx| registry.poll_sessions(cx))).await
}

/// Ends the driven sessions when dropped.
struct Running(Rc<Services>);

impl Drop for Running {
    fn drop(&mut self) {
        for session in self.0.registry.all() {
            if session.is_driven.get() {
                session.contain(|| session.finish());
            }
        }
    }
}

impl SessionRegistry {
    /// Lets the thread's driver poll `session` from now on, and end it.
    pub(super) fn drive(&self, session: &Session) {
        session.is_driven.set(true);
        let waker = SessionWaker {
            queue: Arc::clone(&self.woken),
            slot: session.registry_slot.get(),
            is_queued: AtomicBool::new(false),
        };
        Arc::new(waker).wake();
    }

    fn poll_sessions(&self, cx: &mut Context<'_>) -> Poll<Infallible> {
        for _ in 0..SESSIONS_PER_POLL {
            let Some(woken) = self.woken.pop(cx.waker()) else { return Poll::Pending };
            // Cleared first: whatever wakes the session during its poll queues it again.
            woken.is_queued.store(false, Ordering::Release);
            let Some(session) = self.at(woken.slot) else { continue };
            let waker = Waker::from(woken);
            if session.poll(&mut Context::from_waker(&waker)).is_ready() {
                session.contain(|| session.finish());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Session {
    /// Drives the socket. `Ready` when the connection has ended.
    pub(super) fn poll(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut drive = || {
            let driven = self.socket.poll_drive(cx, &mut |event| {
                // After a panic the session's state is not known. Only its socket is closed.
                if !self.has_panicked.get() {
                    self.on_event(event);
                }
            });
            self.flush_bridge();
            driven
        };
        // The second call sends the close frame. If that panics as well, the connection ends without one.
        let polled = self.contain(&mut drive).or_else(|| self.contain(drive));
        polled.unwrap_or(Poll::Ready(()))
    }
}
