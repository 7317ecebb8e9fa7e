//! How a connection ends: the closing handshake, by whoever begins it, and the patience with a peer that
//! does not take part in it.
//!
//! Invariant: from the first step of its end on, a connection has a deadline.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::frame::{self, Opcode};
use super::{Ended, Socket};
use crate::protocol::CloseReason;

/// How long a peer has to answer our close frame, and then to end the TCP connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Our close frame is queued or sent; the peer's is awaited.
    Closing,
    /// Both close frames are through, or the peer broke the protocol: flush, end our half, discard
    /// what still comes, so that the peer reads our close frame rather than a reset.
    Lingering,
    /// Our half is ended.
    Ended,
}

impl Socket {
    /// Begins the closing handshake; does nothing on a connection that is ending already.
    pub fn close(&self, reason: CloseReason) {
        self.close_with(Ended::ByGateway(reason), reason.into());
    }

    /// Like [`Socket::close`], with the code of an upstream that closed its side.
    pub fn close_as(&self, code: u16, text: &str) {
        self.close_with(Ended::ByGateway(CloseReason::Normal), frame::close(code, text));
    }

    /// Like [`Socket::close`], with the code of a server that ordered it.
    pub fn disconnect(&self, code: u16, text: &str) {
        self.close_with(Ended::ByServer(code), frame::close(code, text));
    }

    fn close_with(&self, ended: Ended, frame: Bytes) {
        if !self.is_open() {
            return;
        }
        {
            let mut outbox = self.outbox.borrow_mut();
            // What has a position is left to the history: what comes before it may still have been on
            // its way to this client.
            let mut waiting =
                outbox.release_all().into_iter().filter(|waiting| waiting.position.is_none());
            let fits = waiting.all(|publication| outbox.push(publication.frame).is_ok());
            let too_slow = ended == Ended::ByGateway(CloseReason::TooSlow);
            if too_slow || !fits || outbox.push(frame.clone()).is_err() {
                outbox.replace_with(frame);
            }
        }
        self.ended.set(Some(ended));
        // The close frame of a peer that broke the protocol could not be found.
        let next = if self.fault.get().is_some() { Phase::Lingering } else { Phase::Closing };
        self.enter(next, CLOSE_TIMEOUT);
        self.flush();
        self.wake();
    }

    /// Aborts the connection if its deadline has passed at `now`.
    pub fn abort_if_overdue(&self, now: Instant) {
        if self.deadline.get().is_some_and(|deadline| deadline <= now) {
            self.abort();
        }
    }

    /// Ends the connection without a closing handshake.
    pub fn abort(&self) {
        self.broken.set(true);
        self.wake();
    }

    /// Nothing more of the peer's is read as frames.
    pub(super) fn linger(&self) {
        self.enter(Phase::Lingering, CLOSE_TIMEOUT);
    }

    fn enter(&self, phase: Phase, patience: Duration) {
        self.phase.set(phase);
        self.deadline.set(Some(Instant::now() + patience));
        if let Some(waker) = self.drained.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Answers the peer's close frame with the same code (RFC 6455 section 5.5.1).
    pub(super) fn peer_closed(&self, code: Option<u16>) {
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
            self.ended.set(Some(Ended::ByPeer(code)));
        }
        self.linger();
    }

    pub(super) fn over(&self) {
        self.broken.set(true);
        if self.ended.get().is_none() {
            self.ended.set(Some(Ended::Lost));
        }
        if let Some(waker) = self.drained.borrow_mut().take() {
            waker.wake();
        }
    }

    /// While lingering: once all is written, ends our half.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Result<(), ()> {
        if self.phase.get() == Phase::Lingering && self.outbox.borrow().is_empty() {
            match Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.enter(Phase::Ended, LINGER_TIMEOUT),
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}
