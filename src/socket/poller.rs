//! The TCP connections of a worker thread's clients, and what the kernel reports of them.
//!
//! tokio keeps 256 bytes for each connection that it watches, so that any number of tasks on any threads can wait for it. A
//! client's connection is used by one task of one thread: here it takes 24 bytes. All connections of a thread are watched
//! by one queue of the kernel, which is itself watched by tokio ([`watch_connections`]).
//!
//! Invariant: readiness is only forgotten when the kernel has said that there is no more, so that every later change is
//! reported and wakes the task.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mio::event::{Event, Source};
use mio::{Events, Interest, Registry, Token};
use tokio::io::unix::AsyncFd;

/// How many reports are taken from the kernel at once.
const EVENTS: usize = if cfg!(test) { 4 } else { 1024 };

/// How many places are allocated at once. They do not move, so that a table that grows is never there twice.
const CHUNK: usize = 128;

const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
/// The peer has ended its half, or the connection is broken. Nothing else will be reported.
const ENDED: u8 = 4;

thread_local! {
    static POLLER: RefCell<Option<Rc<Poller>>> = const { RefCell::new(None) };
}

/// What is watched on this thread.
struct Poller {
    registry: Registry,
    chunks: RefCell<Vec<Box<[Place]>>>,
    /// The places that are not in use.
    free: RefCell<Vec<u32>>,
}

#[derive(Default)]
struct Place {
    ready: Cell<u8>,
    /// The task to wake when more is ready.
    waker: RefCell<Option<Waker>>,
}

/// A place among what is watched, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    place: u32,
}

/// What a task can wait for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Readiness {
    Read,
    Write,
}

impl Readiness {
    fn bits(self) -> u8 {
        match self {
            Self::Read => READABLE | ENDED,
            Self::Write => WRITABLE,
        }
    }
}

impl Poller {
    fn with_place<T>(&self, place: u32, visit: impl FnOnce(&Place) -> T) -> Option<T> {
        let place = place as usize;
        let chunks = self.chunks.borrow();
        chunks.get(place / CHUNK).and_then(|chunk| chunk.get(place % CHUNK)).map(visit)
    }

    fn take_place(&self) -> u32 {
        let mut free = self.free.borrow_mut();
        if let Some(place) = free.pop() {
            return place;
        }
        let mut chunks = self.chunks.borrow_mut();
        // A process has far fewer descriptors.
        let first = u32::try_from(chunks.len() * CHUNK).expect("fewer than 2^32 connections");
        chunks.push(std::iter::repeat_with(Place::default).take(CHUNK).collect());
        free.extend((first + 1..first + CHUNK as u32).rev());
        first
    }

    /// Notes what the kernel reports, and wakes the task if that is new.
    fn note(&self, event: &Event) {
        let mut ready = 0;
        if event.is_readable() {
            ready |= READABLE;
        }
        if event.is_writable() {
            ready |= WRITABLE;
        }
        if event.is_read_closed() || event.is_error() {
            ready |= READABLE | ENDED;
        }
        if event.is_write_closed() || event.is_error() {
            ready |= WRITABLE;
        }
        // Whatever is reported late of a place's former connection is found out by the next read or write.
        let place = u32::try_from(event.token().0).unwrap_or(u32::MAX);
        let waker = self.with_place(place, |place| {
            let before = place.ready.get();
            place.ready.set(before | ready);
            if ready & !before == 0 { None } else { place.waker.borrow_mut().take() }
        });
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }
}

fn poller() -> io::Result<Rc<Poller>> {
    let found = POLLER.try_with(|poller| poller.borrow().clone()).ok().flatten();
    found.ok_or_else(|| io::Error::other("this thread watches no connections"))
}

impl Watch {
    /// Watches `source`, which can be written to until the kernel refuses it.
    pub fn begin(source: &mut impl Source) -> io::Result<Self> {
        let poller = poller()?;
        let place = poller.take_place();
        let watch = Self { place };
        poller.with_place(place, |place| {
            place.ready.set(WRITABLE);
            place.waker.take();
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        poller.registry.register(source, Token(place as usize), interest)?;
        Ok(watch)
    }

    /// Calls `attempt` if the connection may be ready, until it has a result. `has_drained` tells of a result whether it
    /// was all that there is. If the kernel has no more, the task is woken when it has.
    pub fn poll<T>(
        &self,
        readiness: Readiness,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> io::Result<T>,
        has_drained: impl FnOnce(&T) -> bool,
    ) -> Poll<io::Result<T>> {
        // Whoever finds a connection always ready lets others run as well.
        let progress = ready!(tokio::task::coop::poll_proceed(cx));
        let poller = poller()?;
        let polled = poller.with_place(self.place, |place| {
            loop {
                if place.ready.get() & readiness.bits() == 0 {
                    let mut waker = place.waker.borrow_mut();
                    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                        *waker = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                match attempt() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        place.ready.set(place.ready.get() & !readiness.bits());
                    }
                    result => {
                        // The kernel has said that the peer has ended: it will not report that again.
                        let keeps = place.ready.get() & ENDED != 0;
                        if result.as_ref().is_ok_and(has_drained) && !keeps {
                            place.ready.set(place.ready.get() & !readiness.bits());
                        }
                        return Poll::Ready(result);
                    }
                }
            }
        });
        let polled = polled.unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NotConnected.into())));
        if polled.is_ready() {
            progress.made_progress();
        }
        polled
    }

    #[cfg(test)]
    pub fn place(&self) -> u32 {
        self.place
    }

    /// Forgets `source`, which other descriptors keep open.
    pub fn end(&self, source: &mut impl Source) {
        if let Ok(poller) = poller() {
            // What is not known is forgotten already.
            let _ = poller.registry.deregister(source);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The kernel forgets a connection that is closed. Without a poller the thread is ending.
        let Ok(poller) = poller() else { return };
        poller.with_place(self.place, |place| {
            place.ready.set(0);
            place.waker.take()
        });
        poller.free.borrow_mut().push(self.place);
    }
}

/// Ends what is watched on this thread when dropped.
struct Running(Rc<Poller>);

impl Drop for Running {
    fn drop(&mut self) {
        // Where the thread itself ends, there is none any more.
        let _ = POLLER.try_with(|poller| {
            poller.borrow_mut().take_if(|poller| Rc::ptr_eq(poller, &self.0));
        });
    }
}

/// Makes this thread able to watch connections. The returned future passes on what the kernel reports, and must run as a
/// task of this thread.
pub fn watch_connections() -> io::Result<impl Future<Output = io::Result<Infallible>>> {
    let poll = mio::Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let poller = Rc::new(Poller { registry, chunks: RefCell::default(), free: RefCell::default() });
    POLLER.set(Some(Rc::clone(&poller)));
    let running = Running(poller);
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, for types whose descriptor changes; that of a poll does not"
    )]
    let mut poll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
    Ok(async move {
        let Running(poller) = &running;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut guard = poll.readable_mut().await?;
            match guard.get_inner_mut().poll(&mut events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let mut count = 0;
            for event in &events {
                count += 1;
                poller.note(event);
            }
            // Otherwise there may be more, of which the kernel does not tell again.
            if count < EVENTS {
                guard.clear_ready();
            }
        }
    })
}

#[cfg(test)]
mod tests;
