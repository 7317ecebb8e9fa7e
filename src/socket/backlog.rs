//! What the kernel does not take at once: frames that are sent past the bounds of the outbox, and the tasks that wait until
//! everything is written.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::frame::Opcode;
use super::{Socket, deflate};

impl Socket {
    /// Completes when the outbox is empty or the connection is ending.
    pub async fn drained(&self) {
        std::future::poll_fn(|cx| self.poll_drained(cx)).await;
    }

    /// `Ready` when the outbox is empty or the connection is ending.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut outbox = self.outbox.borrow_mut();
        if !self.is_open() || outbox.is_empty() {
            return Poll::Ready(());
        }
        outbox.wake_when_empty(cx.waker());
        Poll::Pending
    }

    pub(super) fn wake_drained(&self) {
        self.outbox.borrow_mut().wake_waiting();
    }

    /// Appends a message for this peer to `frames`, compressed if that was negotiated and makes it smaller.
    pub fn append_message(&self, frames: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
        deflate::append(frames, opcode, payload, self.window());
    }

    /// Writes whole frames, or bytes that are forwarded, past the outbox if nothing waits there, and queues what the kernel
    /// does not take, however full the queue is. The caller sends no more before the socket is drained.
    pub fn send_frames(&self, frames: &[u8]) {
        if frames.is_empty() || self.is_broken.get() {
            return;
        }
        let mut written = 0;
        if self.outbox.borrow().is_empty() {
            match self.write_now(frames) {
                Ok(taken) => written = taken,
                Err(()) => return,
            }
        }
        if written < frames.len() {
            let mut outbox = self.outbox.borrow_mut();
            outbox.push_page(Bytes::copy_from_slice(&frames[written..]));
            if written > 0 {
                outbox.mark_partly_written();
            }
            drop(outbox);
            // A partial write has not registered the driving task for writability.
            self.flush();
        }
    }
}
