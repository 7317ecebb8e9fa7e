//! How a connection ends: the closing handshake, whichever side begins it, and the timeouts for a peer that
//! does not take part in it.
//!
//! Invariant: from the first step of its end on, a connection has a deadline.

use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::forwarding::Forwarding;
use super::frame::{self, Opcode};
use super::{ConnectionEnd, Delivery, Socket};
use crate::protocol::CloseReason;

/// How long a peer may take to answer our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may then take to end the TCP connection.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How many frames are parsed while the peer's close frame is awaited. An honest peer had at most a few of them on
/// their way when our close frame reached it.
const MAX_FRAMES_TO_CLOSE: u16 = 1000;

/// How many bytes are discarded before the connection is aborted. What a peer has on its way when our close frame
/// reaches it fits, so that it reads our close frame and not a reset.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// How far a connection has come towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Our close frame is queued or sent; the peer's is awaited. Nothing else of the peer is used.
    Closing,
    /// The peer's close frame came, and the upstream's answer is awaited. What the upstream still sends is forwarded.
    Answering,
    /// Both close frames are sent, or the peer broke the protocol or floods. The outbox is flushed, our half is shut
    /// down, and what still comes is discarded, so that the peer reads our close frame and not a reset.
    Lingering,
    /// Our half of the TCP connection is shut down.
    HalfClosed,
}

/// What is known of the end of a connection. Most connections are far from it, and have none.
#[derive(Debug)]
pub(super) struct Ending {
    end: Cell<Option<ConnectionEnd>>,
    /// The reason text of the close frame that ended the connection, unless it is empty or the gateway's own.
    text: OnceCell<Box<str>>,
    /// When the connection is aborted if it has not ended. `None` while it is open.
    deadline: Cell<Option<Instant>>,
    /// How many frames are still parsed while the peer's close frame is awaited.
    frames_to_close: Cell<u16>,
    /// The bytes that came after the close frame, or after a fault.
    discarded_bytes: Cell<usize>,
    /// How the peer broke the protocol, if it did. Nothing more of it is read, and the owner has yet to close.
    fault: Cell<Option<CloseReason>>,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            end: Cell::default(),
            text: OnceCell::new(),
            deadline: Cell::default(),
            frames_to_close: Cell::new(MAX_FRAMES_TO_CLOSE),
            discarded_bytes: Cell::default(),
            fault: Cell::default(),
        }
    }
}

impl Socket {
    fn ending(&self) -> &Ending {
        self.ending.get_or_init(Box::default)
    }

    /// How the connection ended. `None` while it is open.
    pub fn end(&self) -> Option<ConnectionEnd> {
        self.ending.get()?.end.get()
    }

    pub(super) fn set_end(&self, end: ConnectionEnd) {
        self.ending().end.set(Some(end));
    }

    /// The reason text of the close frame that ended the connection; "" = there is none.
    pub fn end_text(&self) -> &str {
        let text = self.ending.get().and_then(|ending| ending.text.get());
        match self.end() {
            Some(ConnectionEnd::ByGateway(reason)) => text.map_or(reason.text(), |text| text),
            _ => text.map_or("", |text| text),
        }
    }

    /// The owner found that the peer broke the protocol. Nothing more of it is read.
    pub fn set_fault(&self, reason: CloseReason) {
        self.ending().fault.set(Some(reason));
    }

    /// How the peer broke the protocol, if it did.
    pub fn fault(&self) -> Option<CloseReason> {
        self.ending.get()?.fault.get()
    }

    /// Begins the closing handshake. Does nothing on a connection that is ending already.
    pub fn close(&self, reason: CloseReason) {
        self.close_with(ConnectionEnd::ByGateway(reason), reason.into());
    }

    /// Like [`Socket::close`], with another text: it says which limit the client is over.
    pub fn close_over(&self, reason: CloseReason, text: &str) {
        if self.is_open() {
            self.keep_end_text(text);
        }
        self.close_with(ConnectionEnd::ByGateway(reason), frame::close(reason.code(), text));
    }

    /// Like [`Socket::close`], with the code of an upstream that closed its side.
    pub fn close_as(&self, code: u16, text: &str) {
        self.close_with(ConnectionEnd::ByGateway(CloseReason::Normal), frame::close(code, text));
    }

    /// Like [`Socket::close`], with the code that a server asked for.
    pub fn disconnect(&self, code: u16, text: &str) {
        if self.is_open() {
            self.keep_end_text(text);
        }
        self.close_with(ConnectionEnd::ByServer(code), frame::close(code, text));
    }

    pub(super) fn keep_end_text(&self, text: &str) {
        if !text.is_empty() {
            // The first text stays: a connection ends once.
            let _ = self.ending().text.set(text.into());
        }
    }

    fn close_with(&self, end: ConnectionEnd, frame: Bytes) {
        if !self.is_open() {
            return;
        }
        if let Some(forwarding) = &self.forwarding {
            self.close_forwarding(forwarding, frame);
        } else {
            let mut outbox = self.outbox.borrow_mut();
            // Publications with a position are left to the history: earlier ones may still have been on
            // their way to this client.
            let mut live_only =
                outbox.release_all().into_iter().filter(|held| held.position.is_none());
            let fits = live_only.all(|publication| outbox.push(publication.frame).is_ok());
            let is_too_slow = end == ConnectionEnd::ByGateway(CloseReason::TooSlow);
            if is_too_slow || !fits || outbox.push(frame.clone()).is_err() {
                outbox.replace_with(frame);
            }
        }
        self.set_end(end);
        // What a peer sends after it broke the protocol cannot be parsed, not even its close frame. What a peer sends
        // that floods is not worth parsing.
        let is_flooding = end == ConnectionEnd::ByGateway(CloseReason::Flooding);
        let awaits_close = self.fault().is_none() && !is_flooding;
        let next = if awaits_close { Phase::Closing } else { Phase::Lingering };
        self.enter_phase(next, CLOSE_TIMEOUT);
        // While the decoder is in use, it asks itself after each event.
        if let Ok(mut decoder) = self.decoder.try_borrow_mut() {
            decoder.set(self.proceed());
        }
        self.flush();
        self.wake();
    }

    /// Queues the close frame, behind the frame that is being forwarded.
    fn close_forwarding(&self, forwarding: &Forwarding, frame: Bytes) {
        let mut outbox = self.outbox.borrow_mut();
        let held = outbox.release_all();
        if forwarding.is_in_frame() {
            return forwarding.wait_with_close(frame);
        }
        // Publications cannot be put inside a message that will not end. What overflows is left out.
        let fits = |publication: Delivery| outbox.push(publication.frame).is_ok();
        if forwarding.is_between() {
            let _ = held.into_iter().all(fits);
        }
        outbox.push_page(frame);
    }

    /// Aborts the connection if its deadline has passed at `now`.
    pub fn abort_if_overdue(&self, now: Instant) {
        let deadline = self.ending.get().and_then(|ending| ending.deadline.get());
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.abort();
        }
    }

    /// Ends the connection without a closing handshake.
    pub fn abort(&self) {
        self.is_broken.set(true);
        self.wake();
    }

    /// Counts a frame that came instead of the peer's close frame.
    pub(super) fn count_frame_to_close(&self) {
        let frames_to_close = &self.ending().frames_to_close;
        match frames_to_close.get() {
            0 => self.linger(),
            left => frames_to_close.set(left - 1),
        }
    }

    /// Counts bytes that came when no more were expected.
    pub(super) fn discard(&self, count: usize) {
        let discarded_bytes = &self.ending().discarded_bytes;
        let discarded = discarded_bytes.get().saturating_add(count);
        discarded_bytes.set(discarded);
        if discarded > MAX_DISCARDED_BYTES {
            self.abort();
        }
    }

    /// Discards everything that the peer sends from now on.
    pub(super) fn linger(&self) {
        self.enter_phase(Phase::Lingering, CLOSE_TIMEOUT);
    }

    /// The peer's close frame is awaited.
    pub(super) fn await_close(&self) {
        self.enter_phase(Phase::Closing, CLOSE_TIMEOUT);
    }

    /// The upstream's answer to the peer's close frame is awaited.
    pub(super) fn await_answer(&self) {
        self.enter_phase(Phase::Answering, CLOSE_TIMEOUT);
    }

    fn enter_phase(&self, phase: Phase, timeout: Duration) {
        self.phase.set(phase);
        self.ending().deadline.set(Some(Instant::now() + timeout));
        self.wake_drained();
    }

    /// Answers the peer's close frame with the same code (RFC 6455 section 5.5.1).
    pub(super) fn peer_closed(&self, close: Option<(u16, &str)>) {
        let code = close.map(|(code, _)| code);
        if self.phase.get() == Phase::Open {
            let echo = match code {
                Some(code) => frame::close(code, ""),
                None => frame::encode(Opcode::Close, b""),
            };
            let mut outbox = self.outbox.borrow_mut();
            outbox.release_all();
            if outbox.push(echo.clone()).is_err() {
                outbox.replace_with(echo);
            }
            self.set_end(ConnectionEnd::ByPeer(code));
            self.keep_end_text(close.map_or("", |(_, text)| text));
        }
        self.linger();
    }

    /// The connection is over. Unless an end is known already, it was lost.
    pub(super) fn mark_ended(&self) {
        self.is_broken.set(true);
        if self.end().is_none() {
            self.set_end(ConnectionEnd::Lost);
        }
        self.wake_drained();
    }

    /// While lingering: shuts our half down once the outbox is written.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Result<(), ()> {
        if self.phase.get() == Phase::Lingering && self.outbox.borrow().is_empty() {
            match Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.enter_phase(Phase::HalfClosed, LINGER_TIMEOUT),
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}
