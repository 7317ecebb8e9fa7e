//! The gateway's end of an upstream's socket: whole messages both ways, control frames answered here.
//!
//! One task drives it with [`UpstreamSocket::poll_output`] and [`UpstreamSocket::poll_input`]; any code of the same thread
//! may write to it. What the kernel does not take waits here, and the driving task is registered for writability. The
//! caller bounds what waits ([`UpstreamSocket::held_bytes`]).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::super::gate::InFlightPermit;
use crate::http_client::{BufferedStream, UpgradedStream};
use crate::protocol::CloseReason;
use crate::socket::frame::{self, Opcode};
use crate::socket::{Decoder, Incoming, Proceed};

/// The time limit for the upstream to answer our close frame, or to take our answer to its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// While something waits to be written, at most this many pings are answered.
const MAX_WAITING_PONGS: u8 = 4;

/// The most that one read takes, in bytes. The buffer belongs to the thread, not to the connection.
const READ_BYTES: usize = 64 * 1024;

/// The close codes that a connection's own side gives.
const GOING_AWAY: u16 = 1001;
const NORMAL: u16 = 1000;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// The code and reason of a close frame; `None` = there was no valid close frame.
pub type Closed = Option<(u16, Box<str>)>;

/// What an upstream sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromUpstream<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// A message that is larger than the limit, for which the upstream is closed with 1009.
    TooBig,
}

/// How an upstream's socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEnd {
    /// The upstream has closed it, or has broken the protocol or the connection.
    Closed(Closed),
    /// It took nothing for the upstream's timeout.
    Stalled,
    /// It did not answer our close frame.
    Unanswered,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Our close frame is queued. Messages are still received until the upstream answers it, from when it was written for
    /// [`CLOSE_TIMEOUT`].
    Closing(Option<Instant>),
    /// Nothing more is received; only what waits is written.
    Ending(Closed, Instant),
}

/// An upstream's socket. Lives on one thread.
pub struct UpstreamSocket {
    stream: RefCell<BufferedStream>,
    decoder: RefCell<Decoder>,
    phase: RefCell<Phase>,
    /// Wakes the driving task.
    waker: RefCell<Waker>,
    /// Only while a deadline may pass.
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
    /// How many pongs were queued since nothing waited.
    pongs: Cell<u8>,
    /// How long the upstream may take nothing.
    timeout: Duration,
    _in_flight: InFlightPermit,
}

impl UpstreamSocket {
    /// `timeout` is how long the upstream may take nothing.
    pub(in crate::upstream) fn new(
        stream: UpgradedStream,
        max_message_bytes: usize,
        timeout: Duration,
        in_flight: InFlightPermit,
    ) -> Self {
        Self {
            stream: RefCell::new(stream.into()),
            decoder: RefCell::new(Decoder::of_server(max_message_bytes)),
            phase: RefCell::new(Phase::Open),
            waker: RefCell::new(Waker::noop().clone()),
            timer: RefCell::default(),
            pongs: Cell::default(),
            timeout,
            _in_flight: in_flight,
        }
    }

    fn is_open(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Open)
    }

    /// Whether it was told to close, or is ending by itself.
    pub fn is_closing(&self) -> bool {
        !self.is_open()
    }

    /// How many bytes wait to be written, or belong to a message that is not complete.
    pub fn held_bytes(&self) -> usize {
        self.waiting_bytes() + self.decoder.borrow().buffered_bytes()
    }

    /// How many bytes wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.stream.borrow().waiting_bytes()
    }

    /// Queues a message, unless the socket is closing. [`UpstreamSocket::flush`] writes it.
    pub fn push(&self, opcode: Opcode, payload: &[u8]) {
        if self.is_open() {
            let encode = |waiting: &mut Vec<u8>| frame::append_masked(waiting, opcode, payload);
            self.stream.borrow_mut().push_with(encode);
        }
    }

    /// Writes what waits, as far as the kernel takes it.
    pub fn flush(&self) {
        let waker = self.waker.borrow();
        let mut cx = Context::from_waker(&waker);
        if self.stream.borrow_mut().poll_flush(&mut cx).is_pending() {
            // The driving task sets the deadline.
            waker.wake_by_ref();
        }
    }

    /// Queues a close frame behind what waits. A reason over 123 bytes is cut.
    pub fn close(&self, code: u16, reason: &str) {
        if self.is_open() {
            self.stream.borrow_mut().push(&frame::masked_close(code, reason));
            *self.phase.borrow_mut() = Phase::Closing(None);
            self.waker.borrow().wake_by_ref();
        }
    }

    /// Registers the task of `cx` as the one that drives this socket, and writes what waits. `Ready` when the socket has
    /// ended.
    pub fn poll_output(&self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        if !self.waker.borrow().will_wake(cx.waker()) {
            *self.waker.borrow_mut() = cx.waker().clone();
        }
        let is_written = self.stream.borrow_mut().poll_flush(cx).is_ready();
        if is_written {
            self.pongs.set(0);
            match &mut *self.phase.borrow_mut() {
                Phase::Ending(closed, _) => return Poll::Ready(SocketEnd::Closed(closed.take())),
                Phase::Closing(since) => {
                    since.get_or_insert_with(Instant::now);
                }
                Phase::Open => {}
            }
        }
        self.poll_deadline(cx)
    }

    fn poll_deadline(&self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        let mut timer = self.timer.borrow_mut();
        let Some(due) = self.due() else {
            *timer = None;
            return Poll::Pending;
        };
        let sleep = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(match &mut *self.phase.borrow_mut() {
            Phase::Ending(closed, _) => SocketEnd::Closed(closed.take()),
            Phase::Closing(Some(_)) => SocketEnd::Unanswered,
            Phase::Open | Phase::Closing(None) => SocketEnd::Stalled,
        })
    }

    /// When the upstream has taken too long, as it is now.
    fn due(&self) -> Option<Instant> {
        match &*self.phase.borrow() {
            Phase::Ending(_, since) | Phase::Closing(Some(since)) => Some(*since + CLOSE_TIMEOUT),
            Phase::Open | Phase::Closing(None) => {
                self.stream.borrow().stalled_since().map(|since| since + self.timeout)
            }
        }
    }

    /// Makes one read and passes on the messages that it completes. Nothing is read once the socket is ending. `Ready(false)`
    /// if the connection has ended without a close frame.
    pub fn poll_input(
        &self,
        cx: &mut Context<'_>,
        on_event: &mut dyn FnMut(FromUpstream<'_>),
    ) -> Poll<bool> {
        if matches!(*self.phase.borrow(), Phase::Ending(..)) {
            return Poll::Pending;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let read = self.stream.borrow_mut().poll_read(cx, buffer);
            read.map(|length| {
                self.feed(&mut buffer[..length], on_event);
                length > 0
            })
        })
    }

    fn feed(&self, bytes: &mut [u8], on_event: &mut dyn FnMut(FromUpstream<'_>)) {
        let fed = self.decoder.borrow_mut().feed(bytes, &mut |incoming| {
            match incoming {
                Incoming::Text(text) => on_event(FromUpstream::Text(text)),
                Incoming::Binary(bytes) => on_event(FromUpstream::Binary(bytes)),
                Incoming::Ping(payload) => self.answer_ping(payload),
                Incoming::Close(close) => {
                    self.answer_close(close);
                    return Proceed::Discard;
                }
                Incoming::Pong | Incoming::SmallFragment => {}
            }
            Proceed::Parse
        });
        if let Err(reason) = fed {
            let code = reason.code();
            if reason == CloseReason::MessageTooBig {
                on_event(FromUpstream::TooBig);
            }
            self.end(&frame::masked_close(code, ""), None);
        }
    }

    /// Answers a ping, unless the upstream sends pings faster than it reads the pongs.
    fn answer_ping(&self, payload: &[u8]) {
        if self.is_open() && self.pongs.get() < MAX_WAITING_PONGS {
            self.pongs.set(self.pongs.get() + 1);
            self.push(Opcode::Pong, payload);
        }
    }

    /// Answers the upstream's close frame with its own code (RFC 6455 section 5.5.1).
    fn answer_close(&self, close: Option<(u16, &str)>) {
        let closed = close.map_or((NORMAL, "".into()), |(code, reason)| (code, reason.into()));
        let mut answer = Vec::new();
        match close {
            Some((code, _)) => answer.extend_from_slice(&frame::masked_close(code, "")),
            None => frame::append_masked(&mut answer, Opcode::Close, b""),
        }
        self.end(&answer, Some(closed));
    }

    /// Receives nothing more, and sends `close` unless a close frame was sent.
    fn end(&self, close: &[u8], closed: Closed) {
        if self.is_open() {
            self.stream.borrow_mut().push(close);
        }
        *self.phase.borrow_mut() = Phase::Ending(closed, Instant::now());
    }
}

impl Drop for UpstreamSocket {
    /// The session is gone. If nothing waits, the upstream learns that without a wait.
    fn drop(&mut self) {
        if self.is_open() && self.waiting_bytes() == 0 {
            self.close(GOING_AWAY, "");
            self.flush();
        }
    }
}
