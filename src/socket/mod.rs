//! The server side of RFC 6455: frame codec, message assembly, outbox and flush of one connection.
//!
//! One task drives a socket with [`Socket::poll_drive`]; any code on the same thread may write to it directly.
//! What the kernel does not take of a direct write stays in the outbox, and the driving task is registered
//! for writability; so the task is the fallback and no writer waits. The socket knows nothing of channels,
//! users or JSON.

mod backlog;
mod client_tcp;
mod client_tls;
mod closing;
mod decoder;
mod deflate;
mod delivery;
mod driving_task;
mod event;
mod forwarding;
pub mod frame;
mod frame_scanner;
mod head;
mod http2_stream;
mod linger;
mod outbox;
mod poller;
mod publications;
mod stream;
#[cfg(test)]
mod tests;
mod tls_handshakes;
mod utf8;
mod writing;

pub use client_tcp::{ClientListener, ClientTcp};
pub use client_tls::ClientTls;
pub use decoder::{Decoder, Incoming, Proceed, parse_close};
pub use deflate::Window;
pub use delivery::Delivery;
pub use event::{ConnectionEnd, Event};
pub use frame_scanner::{DataFrame, FrameScanner, MAX_KEPT, Place, ScanFault, Scanned};
pub use http2_stream::Http2Stream;
pub use linger::linger_and_close;
pub use poller::watch_connections;
pub use publications::HoldGuard;
pub use stream::{ByteStream, is_failed_connection};
pub use tls_handshakes::{TlsAcceptor, TlsHandshakes};

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::clock;
use crate::config::SendQueue;
use crate::protocol::{DeflateTerms, Position};
use closing::{Ending, Phase};
use deflate::Negotiated;
use driving_task::DrivingTask;
use forwarding::Forwarding;
use frame::Opcode;
use outbox::{Outbox, Overflow};

/// The most that one read takes, in bytes. The buffer belongs to the thread, not to the connection.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How many reads one poll makes before other tasks of the thread run.
const READS_PER_POLL: usize = 8;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// One WebSocket. Lives on one thread.
#[derive(Debug)]
pub struct Socket {
    stream: RefCell<ByteStream>,
    decoder: RefCell<Decoder>,
    outbox: RefCell<Outbox>,
    /// Direct writers register it for writability.
    driving_task: DrivingTask,
    phase: Cell<Phase>,
    /// `None` while nothing of the end has begun.
    ending: OnceCell<Box<Ending>>,
    /// The stream cannot be used any more, and the driving task is to end.
    is_broken: Cell<bool>,
    is_reading_paused: Cell<bool>,
    /// Whether bytes came since the last [`Socket::take_activity`].
    is_active: Cell<bool>,
    /// Since when the kernel has not taken everything: the last 16 bits of the Unix seconds, never 0. 0 = it took
    /// everything at the last attempt. No peer stays blocked for the 18 hours after which they repeat.
    blocked_since: Cell<u16>,
    /// Whether the peer has taken bytes that waited since the last [`Socket::take_activity`].
    has_progressed: Cell<bool>,
    /// Publications of this epoch up to this offset are not sent: the client has them, or they are older than
    /// its subscription. `None` = all are sent.
    after: Cell<Option<Position>>,
    /// `None` if whole messages are sent.
    forwarding: Option<Box<Forwarding>>,
    /// `None` if compression was not negotiated.
    deflate: Option<Negotiated>,
    pub hub_place: Cell<HubPlace>,
}

/// With the counts of its `Rc` it has the 160 bytes of a class of jemalloc's. Other builds have streams of tests, or mio's
/// checks.
#[cfg(not(any(test, debug_assertions)))]
const _: () = assert!(size_of::<Socket>() <= 144);

/// Where the hub keeps a socket.
#[derive(Debug, Default, Clone, Copy)]
pub struct HubPlace {
    /// The index in its channel's list.
    pub slot: u32,
    /// The number of the next publication of the channel that it gets. It wraps.
    pub cursor: u32,
}

/// What waits to be written to a peer.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// Frames, held publications included, and their bytes.
    pub messages: usize,
    pub bytes: usize,
    pub limits: SendQueue,
    /// Whether publications are held back.
    pub is_held: bool,
    /// Since when the kernel does not take everything, in Unix seconds; `None` if it does.
    pub since: Option<u64>,
}

/// What a peer has done since it was last asked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has sent or taken something, or could not be expected to.
    Seen,
    /// Bytes wait for it, and it has taken none.
    Stalled,
    Silent,
}

/// The socket is not read until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct ReadPause(Rc<Socket>);

impl Drop for ReadPause {
    fn drop(&mut self) {
        self.0.is_reading_paused.set(false);
        self.0.wake();
    }
}

impl Socket {
    /// `max_message` bounds a whole message, all fragments together, in bytes.
    pub fn new(stream: ByteStream, max_message: usize, queue: SendQueue) -> Self {
        Self {
            stream: RefCell::new(stream),
            decoder: RefCell::new(Decoder::new(max_message)),
            outbox: RefCell::new(Outbox::new(queue)),
            driving_task: DrivingTask::default(),
            phase: Cell::new(Phase::Open),
            ending: OnceCell::new(),
            is_broken: Cell::new(false),
            is_reading_paused: Cell::new(false),
            is_active: Cell::new(false),
            blocked_since: Cell::new(0),
            has_progressed: Cell::new(false),
            after: Cell::new(None),
            forwarding: None,
            deflate: None,
            hub_place: Cell::default(),
        }
    }

    /// A socket whose messages may be compressed.
    #[must_use]
    pub fn with_deflate(mut self, terms: Option<DeflateTerms>) -> Self {
        if let Some(terms) = terms {
            self.decoder.get_mut().allow_compressed();
            self.deflate = Some(Negotiated::new(terms));
        }
        self
    }

    /// The window for which its frames are compressed; `None` if they are not.
    pub fn window(&self) -> Option<Window> {
        self.deflate.as_ref().map(Negotiated::window)
    }

    pub fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open && !self.is_broken.get()
    }

    /// Returns whether the peer has shown a sign of life since the last call.
    pub fn take_activity(&self) -> Activity {
        let (is_active, has_progressed) =
            (self.is_active.replace(false), self.has_progressed.replace(false));
        let has_waiting = self.has_waiting();
        let is_in_frame =
            self.forwarding.as_ref().is_some_and(|forwarding| forwarding.is_in_frame());
        // Inside a frame the peer cannot be pinged, and while it is not read its pong does not arrive.
        let cannot_tell = self.is_reading_paused.get() || (is_in_frame && !has_waiting);
        if is_active || has_progressed || cannot_tell {
            Activity::Seen
        } else if has_waiting {
            Activity::Stalled
        } else {
            Activity::Silent
        }
    }

    /// How many bytes wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.borrow().bytes() + self.stream.borrow().unsent_bytes()
    }

    /// Whether something could be written if the kernel took it.
    fn has_waiting(&self) -> bool {
        !self.outbox.borrow().is_empty() || self.stream.borrow().unsent_bytes() > 0
    }

    /// What waits to be written, and the bounds of it.
    pub fn queue(&self) -> Queue {
        let (outbox, unsent) = (self.outbox.borrow(), self.stream.borrow().unsent_bytes());
        Queue {
            messages: outbox.count(),
            bytes: outbox.bytes() + unsent,
            limits: outbox.limits(),
            is_held: outbox.is_held(),
            since: ((!outbox.is_empty() || unsent > 0) && self.blocked_since.get() != 0).then(
                || {
                    let now = clock::unix_seconds();
                    let age = (now as u16).wrapping_sub(self.blocked_since.get());
                    now.saturating_sub(age.into())
                },
            ),
        }
    }

    /// Publications of this epoch are sent from behind this offset on; `None` = all are sent.
    pub fn began_after(&self) -> Option<Position> {
        self.after.get()
    }

    /// How many bytes of messages that are not complete are kept.
    pub fn partial_bytes(&self) -> usize {
        self.decoder.borrow().buffered_bytes() + self.stream.borrow().held_bytes()
    }

    /// The size of the peer's message that was too large, as far as it is known.
    pub fn refused_bytes(&self) -> u64 {
        self.decoder.borrow().refused_bytes()
    }

    /// Calls `visit` with each frame that waits to be written.
    pub fn for_each_queued(&self, visit: &mut dyn FnMut(&Bytes)) {
        self.outbox.borrow().for_each(visit);
    }

    /// Stops reading until the guard is dropped; TCP makes the peer wait. One guard at a time.
    pub fn pause_reading(self: &Rc<Self>) -> ReadPause {
        self.is_reading_paused.set(true);
        ReadPause(Rc::clone(self))
    }

    fn wake(&self) {
        self.driving_task.wake();
    }

    /// Processes bytes of the peer: those read here, and those that came before the socket had the stream.
    pub fn feed(&self, bytes: &mut [u8], on_event: &mut dyn FnMut(Event<'_>)) {
        self.is_active.set(true);
        if self.proceed() == Proceed::Discard {
            return self.discard(bytes.len());
        }
        if self.phase.get() == Phase::Closing {
            self.discard(bytes.len());
        }
        let fed = self.decoder.borrow_mut().feed(bytes, &mut |incoming| {
            match incoming {
                Incoming::Close(close) => self.peer_closed(close),
                _ if self.phase.get() != Phase::Open => self.count_frame_to_close(),
                Incoming::Text(text) => on_event(Event::Text(text)),
                Incoming::Binary(bytes) => on_event(Event::Binary(bytes)),
                Incoming::Ping(payload) => {
                    self.send(frame::encode(Opcode::Pong, payload));
                    on_event(Event::Ping);
                }
                Incoming::Pong => on_event(Event::Pong),
                Incoming::SmallFragment => on_event(Event::SmallFragment),
            }
            self.proceed()
        });
        if let Err(reason) = fed {
            self.set_fault(reason);
            match self.phase.get() {
                Phase::Open => on_event(Event::Fault(reason)),
                _ => self.linger(),
            }
        }
    }

    /// How far the bytes of the peer are still parsed.
    fn proceed(&self) -> Proceed {
        match self.phase.get() {
            _ if self.fault().is_some() => Proceed::Discard,
            Phase::Open => Proceed::Parse,
            Phase::Closing => Proceed::SkipMessages,
            Phase::Answering | Phase::Lingering | Phase::HalfClosed => Proceed::Discard,
        }
    }

    /// Reads, passes on complete messages, and writes the outbox. `Ready` when the connection has ended and can
    /// be dropped. There are no more events once it is ending.
    pub fn poll_drive(
        &self,
        cx: &mut Context<'_>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Poll<()> {
        self.driving_task.set(cx);
        for _ in 0..READS_PER_POLL {
            if self.is_broken.get() || self.poll_flush(cx).is_err() || self.poll_end(cx).is_err() {
                self.mark_ended();
                return Poll::Ready(());
            }
            if self.is_reading_paused.get() && self.phase.get() == Phase::Open {
                return Poll::Pending;
            }
            match self.poll_read(cx, on_event) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    self.mark_ended();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes one read. `false` if the peer's half has ended or broken.
    fn poll_read(&self, cx: &mut Context<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Poll<bool> {
        READ_BUFFER.with_borrow_mut(|bytes| {
            let mut buffer = ReadBuf::new(bytes);
            let read = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut buffer);
            match read {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(false),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(false),
                Poll::Ready(Ok(())) => {
                    self.feed(buffer.filled_mut(), on_event);
                    Poll::Ready(true)
                }
            }
        })
    }
}
