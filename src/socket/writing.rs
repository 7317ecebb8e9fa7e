//! What is written to a socket: at once as far as the kernel takes it, and the rest when it takes more.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite as _;

use super::frame::Opcode;
use super::{Overflow, Socket, frame};
use crate::clock;
use crate::protocol::CloseReason;

impl Socket {
    /// Sends one of the gateway's own frames.
    pub fn send(&self, mut frame: Bytes) {
        if !self.is_open() {
            return;
        }
        // Straight to the kernel if nothing is in front of it, so that nothing is allocated for it.
        let is_first = self.outbox.borrow().is_empty();
        let written = match is_first.then(|| self.write_now(&frame)) {
            Some(Ok(written)) if written == frame.len() => return,
            Some(Ok(written)) => written,
            Some(Err(())) => return,
            None => 0,
        };
        frame.advance(written);
        let pushed = {
            let mut outbox = self.outbox.borrow_mut();
            let pushed = outbox.push(frame);
            if written > 0 {
                outbox.mark_partly_written();
            }
            pushed
        };
        match pushed {
            // Registers the driving task for writability as well.
            Ok(()) => self.flush(),
            Err(Overflow) => self.close(CloseReason::TooSlow),
        }
    }

    pub fn send_text(&self, text: &str) {
        self.send(frame::text(text));
    }

    /// Sends `bytes` with the next frame, or by [`Socket::send_waiting`].
    pub fn send_with_next(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.outbox.borrow_mut().push_page(bytes);
        }
    }

    /// Sends one of the gateway's own frames with what follows it, see [`Socket::send_with_next`]. Returns whether the
    /// caller has to see to it that [`Socket::send_waiting`] is called soon: behind what the kernel has not taken, the
    /// frame is queued like any other.
    pub fn send_text_with_next(&self, text: &str) -> bool {
        let is_first = self.is_open() && self.outbox.borrow().is_empty();
        match is_first {
            true => self.send_with_next(frame::text(text)),
            false => self.send_text(text),
        }
        is_first
    }

    /// Sends what waits, as far as the kernel takes it.
    pub fn send_waiting(&self) {
        if !self.outbox.borrow().is_empty() && !self.is_broken.get() {
            self.flush();
        }
    }

    pub fn ping(&self) {
        if let Some(forwarding) = &self.forwarding {
            return self.ping_between_frames(forwarding);
        }
        self.send(frame::encode(Opcode::Ping, b""));
    }

    /// Makes one write past the outbox. Returns how many bytes the kernel took.
    pub(super) fn write_now(&self, bytes: &[u8]) -> Result<usize, ()> {
        let written = self.driving_task.with_waker(|waker| {
            let mut stream = self.stream.borrow_mut();
            Pin::new(&mut *stream).poll_write(&mut Context::from_waker(waker), bytes)
        });
        match written {
            Poll::Ready(Ok(written)) => Ok(written),
            Poll::Pending => Ok(0),
            Poll::Ready(Err(_)) => {
                self.abort();
                Err(())
            }
        }
    }

    /// Makes one write of what waits and, behind it, `bytes`. Returns how many of `bytes` the kernel took.
    pub(super) fn write_behind(&self, bytes: &[u8]) -> Result<usize, ()> {
        let mut outbox = self.outbox.borrow_mut();
        let written = self.driving_task.with_waker(|waker| {
            let mut cx = Context::from_waker(waker);
            outbox.poll_write_with(&mut *self.stream.borrow_mut(), &mut cx, bytes)
        });
        match written {
            Poll::Ready(Ok(written)) => {
                if outbox.is_empty() {
                    outbox.wake_waiting();
                }
                Ok(written)
            }
            Poll::Pending => Ok(0),
            Poll::Ready(Err(_)) => {
                drop(outbox);
                self.abort();
                Err(())
            }
        }
    }

    /// Whether the kernel has not taken everything at the last attempt.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get() != 0
    }

    /// Writes the outbox, as far as the kernel takes it.
    pub(super) fn flush(&self) {
        let flushed =
            self.driving_task.with_waker(|waker| self.poll_flush(&mut Context::from_waker(waker)));
        if flushed.is_err() {
            self.abort();
        }
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Result<(), ()> {
        let mut outbox = self.outbox.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        let before = outbox.bytes() + stream.unsent_bytes();
        let mut polled = outbox.poll_write(&mut *stream, cx);
        if matches!(polled, Poll::Ready(Ok(()))) && stream.unsent_bytes() > 0 {
            polled = Pin::new(&mut *stream).poll_flush(cx);
        }
        // Only what the kernel takes after it was full tells that the peer has taken something.
        let unsent = stream.unsent_bytes();
        let is_blocked = !outbox.is_empty() || unsent > 0;
        match (self.blocked_since.get() != 0, is_blocked) {
            (true, _) if outbox.bytes() + unsent < before => self.has_progressed.set(true),
            (false, true) => self.blocked_since.set((clock::unix_seconds() as u16).max(1)),
            _ => {}
        }
        if !is_blocked {
            self.blocked_since.set(0);
        }
        match polled {
            Poll::Ready(Ok(())) => {
                outbox.wake_waiting();
                Ok(())
            }
            Poll::Pending => Ok(()),
            Poll::Ready(Err(_)) => Err(()),
        }
    }
}
