//! Publications on their way out of a socket: held aside, let go, or written at once.

use std::rc::Rc;

use bytes::Bytes;

use super::Socket;
use super::delivery::{self, Delivery, Verdict};
use super::outbox::{Outbox, Overflow};
use crate::protocol::{CloseReason, Position};
use crate::telemetry::replies::{Duplicate, duplicates_dropped};

/// Publications for one connection are held back until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct HoldGuard(Rc<Socket>);

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Socket {
    /// Holds publications for this connection back until the guard is dropped; the gateway's own frames
    /// overtake them. When the last guard is dropped, the publications are sent.
    pub fn hold(self: &Rc<Self>) -> HoldGuard {
        self.outbox.borrow_mut().hold();
        HoldGuard(Rc::clone(self))
    }

    fn release(&self) {
        let waiting = self.outbox.borrow_mut().release();
        for publication in waiting {
            if self.accept_or_close(&publication) {
                let pushed = self.outbox.borrow_mut().push_publication(publication);
                if pushed.is_err() {
                    return self.close(CloseReason::TooSlow);
                }
            }
        }
        self.flush();
    }

    /// While held: whether publications with a position are dropped, because the holder will read them
    /// from the history, or wait aside.
    pub fn skip_positioned(&self, skip: bool) {
        self.outbox.borrow_mut().skip_positioned(skip);
    }

    /// Sends whole frames of a history, however full the queue; the caller waits until they are written
    /// before it sends more than a page.
    pub fn send_page(&self, frames: Bytes) {
        if self.is_open() {
            self.outbox.borrow_mut().push_page(frames);
            self.flush();
        }
    }

    /// From now on publications up to `position` are not for this connection.
    pub fn start_after(&self, position: Position) {
        self.after.set(Some(position));
    }

    /// Takes publications; `joined` is all their frames in one buffer. Returns whether they were taken:
    /// `false` on a connection that is ending, or that this delivery overflowed.
    pub fn deliver(&self, frames: &[Delivery], joined: &Bytes) -> bool {
        if !self.is_open() {
            return false;
        }
        if !delivery::all_follow(self.after.get(), frames) && !self.outbox.borrow().is_held() {
            return frames.iter().all(|publication| self.deliver_one(publication.clone()));
        }
        self.deliver_all(frames, joined)
    }

    /// One publication, if it is for this connection.
    fn deliver_one(&self, publication: Delivery) -> bool {
        if !self.accept_or_close(&publication) {
            return self.is_open();
        }
        let joined = publication.frame.clone();
        self.is_open() && self.deliver_all(&[publication], &joined)
    }

    /// Closes the connection where a publication shows that its history was lost.
    fn accept_or_close(&self, publication: &Delivery) -> bool {
        match delivery::judge(self.after.get(), publication) {
            Verdict::Next => true,
            Verdict::Had => {
                duplicates_dropped(Duplicate::Replayed, 1);
                false
            }
            Verdict::NewEpoch(position) => {
                self.after.set(Some(position));
                true
            }
            Verdict::Lost => {
                self.close(CloseReason::BrokerGap);
                false
            }
        }
    }

    fn deliver_all(&self, frames: &[Delivery], joined: &Bytes) -> bool {
        let direct = {
            let outbox = self.outbox.borrow();
            outbox.is_empty() && !outbox.is_held()
        };
        let written = if direct {
            match self.write_now(joined) {
                Ok(written) if written == joined.len() => return true,
                Ok(written) => written,
                Err(()) => return false,
            }
        } else {
            0
        };
        let pushed = push_from(&mut self.outbox.borrow_mut(), frames, written);
        match pushed {
            Ok(()) => {
                if direct {
                    // A write that was taken in part has not registered anybody for the rest.
                    self.flush();
                }
                true
            }
            Err(Overflow) => {
                self.close(CloseReason::TooSlow);
                false
            }
        }
    }
}

/// Queues `frames` less their first `written` bytes.
fn push_from(outbox: &mut Outbox, frames: &[Delivery], mut written: usize) -> Result<(), Overflow> {
    for Delivery { frame, position } in frames {
        if written >= frame.len() {
            written -= frame.len();
            continue;
        }
        let rest = Delivery { frame: frame.slice(written..), position: *position };
        outbox.push_publication(rest)?;
        if written > 0 {
            outbox.mark_begun();
            written = 0;
        }
    }
    Ok(())
}
