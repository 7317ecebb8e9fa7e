//! The connections that wait for a request, and the requests that wait for a connection.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, unwoken};
use super::{Origin, Returned};

/// From this many on, requests that do not wait any more are looked for.
const WAITING_TO_CHECK: usize = 64;

/// The idle connections of one client. Cheap to clone. Holds as many as were in use at the same time within `keep`.
#[derive(Clone)]
pub(super) struct IdleConnections {
    origins: Arc<Mutex<Origins>>,
    /// How long a connection may idle.
    keep: Duration,
}

#[derive(Default)]
struct Origins {
    by_origin: HashMap<Origin, Waiting>,
    /// A task closes what idles for too long.
    has_reaper: bool,
}

/// What waits at one origin: connections or requests.
#[derive(Default)]
struct Waiting {
    /// The one that was used last is at the end, and used next.
    connections: Vec<(Instant, Box<Connection>)>,
    /// The request that waits longest is first. Some of them have another connection by now.
    requests: VecDeque<oneshot::Sender<Box<Connection>>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.requests.is_empty()
    }
}

impl IdleConnections {
    pub fn new(keep: Duration) -> Self {
        Self { origins: Arc::default(), keep }
    }

    /// Takes an idle connection that its server has not closed, if there is one. It wakes the caller's task from now on.
    pub fn take(&self, origin: &Origin, cx: &mut Context<'_>) -> Poll<Option<Box<Connection>>> {
        loop {
            let taken = self.lock().by_origin.get_mut(origin).and_then(|it| it.connections.pop());
            let Some((since, mut connection)) = taken else { return Poll::Ready(None) };
            if since.elapsed() < self.keep && connection.drive(cx) && connection.is_ready() {
                return Poll::Ready(Some(connection));
            }
        }
    }

    /// Registers a request that waits for the next idle connection.
    pub fn wait(&self, origin: &Origin) -> Returned {
        let (request, returned) = oneshot::channel();
        let mut origins = self.lock();
        let requests = &mut origins.by_origin.entry(origin.clone()).or_default().requests;
        if requests.len() >= WAITING_TO_CHECK && requests.len() == requests.capacity() {
            requests.retain(|request| !request.is_closed());
        }
        requests.push_back(request);
        returned
    }

    /// Keeps a connection whose response is complete, or has no reader. One that is not ready for a request soon is closed.
    pub fn recycle(&self, origin: &Origin, mut connection: Box<Connection>) {
        if !connection.is_ready() && !connection.drive(&mut unwoken()) {
            return;
        }
        if connection.is_ready() {
            return self.put(origin, connection);
        }
        // For example, the server has answered before it took all of the request.
        let Ok(runtime) = Handle::try_current() else { return };
        let (idle, origin) = (self.clone(), origin.clone());
        runtime.spawn(async move {
            let ready = std::future::poll_fn(|cx| {
                let is_open = connection.drive(cx);
                if is_open && !connection.is_ready() { Poll::Pending } else { Poll::Ready(is_open) }
            });
            if timeout(idle.keep, ready).await == Ok(true) {
                idle.put(&origin, connection);
            }
        });
    }

    /// Keeps a connection, or gives it to a request that waits for one.
    pub fn put(&self, origin: &Origin, mut connection: Box<Connection>) {
        let mut origins = self.lock();
        let waiting = match origins.by_origin.get_mut(origin) {
            Some(waiting) => waiting,
            None => origins.by_origin.entry(origin.clone()).or_default(),
        };
        while let Some(request) = waiting.requests.pop_front() {
            match request.send(connection) {
                Ok(()) => return,
                Err(unused) => connection = unused,
            }
        }
        waiting.connections.push((Instant::now(), connection));
        if !origins.has_reaper
            && let Ok(runtime) = Handle::try_current()
        {
            origins.has_reaper = true;
            runtime.spawn(reap(Arc::downgrade(&self.origins), self.keep));
        }
    }

    /// The lock is held for a few instructions, and by one thread only.
    fn lock(&self) -> MutexGuard<'_, Origins> {
        lock(&self.origins)
    }
}

fn lock(origins: &Mutex<Origins>) -> MutexGuard<'_, Origins> {
    origins.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the connections that idle for longer than `keep`, until there are none.
async fn reap(origins: Weak<Mutex<Origins>>, keep: Duration) {
    loop {
        tokio::time::sleep(keep).await;
        let Some(origins) = origins.upgrade() else { return };
        let mut closed = Vec::new();
        let mut origins = lock(&origins);
        origins.by_origin.retain(|_, waiting| {
            let expired =
                waiting.connections.iter().take_while(|(since, _)| since.elapsed() >= keep);
            let expired = expired.count();
            closed.extend(waiting.connections.drain(..expired));
            waiting.requests.retain(|request| !request.is_closed());
            !waiting.is_empty()
        });
        origins.has_reaper = !origins.by_origin.is_empty();
        let is_done = !origins.has_reaper;
        drop(origins);
        // Their sockets are closed without the lock.
        drop(closed);
        if is_done {
            return;
        }
    }
}
