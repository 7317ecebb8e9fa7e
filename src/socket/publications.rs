//! Publications on their way out of a socket: held back, released, or written at once.

use std::rc::Rc;

use bytes::Bytes;

use super::delivery::{Continuity, Delivery, are_all_next, continuity};
use super::outbox::{FirstWaiting, Outbox, Overflow};
use super::{Socket, deflate};
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

    pub(super) fn release(&self) {
        let held = self.outbox.borrow_mut().release();
        if held.is_empty() || !self.is_open() {
            return;
        }
        for publication in held {
            if self.accept_or_close(&publication) {
                let pushed = self.outbox.borrow_mut().push_publication(publication);
                if pushed.is_err() {
                    return self.close(CloseReason::TooSlow);
                }
            }
        }
        self.flush();
    }

    /// While publications are held back: whether those with a position are dropped, because the holder will
    /// read them from the history, or kept.
    pub fn skip_positioned(&self, skip: bool) {
        self.outbox.borrow_mut().skip_positioned(skip);
    }

    /// The frames of a page of the history in one buffer, in the form for this peer.
    pub fn join_page(&self, publications: &[Delivery]) -> Bytes {
        let frames: Vec<Bytes> = publications
            .iter()
            .map(|one| match self.window() {
                Some(window) => deflate::form_of(&one.frame, window),
                None => one.frame.clone(),
            })
            .collect();
        frames.concat().into()
    }

    /// Sends a page of the history, whole frames, however full the queue is. The caller waits until they are
    /// written before it sends the next page.
    pub fn send_page(&self, frames: Bytes) {
        if self.is_open() {
            self.outbox.borrow_mut().push_page(frames);
            self.flush();
        }
    }

    /// Publications up to `position` are not sent from now on.
    pub fn start_after(&self, position: Position) {
        self.after.set(Some(position));
    }

    /// Returns the last publication that the kernel has taken in full for this peer, if `last` is the last one that was
    /// handed to its channel's sockets. `None` if it began at no position, the history before it still waits, or a part of a
    /// compressed frame.
    pub fn written_up_to(&self, last: Option<Position>) -> Option<Position> {
        let after = self.after.get()?;
        let last = last.filter(|last| last.epoch == after.epoch).map_or(0, |last| last.offset);
        let offset = match self.outbox.borrow().first_waiting(self.window().is_some()) {
            FirstWaiting::Unknown => return None,
            FirstWaiting::Offset(waiting) if waiting <= after.offset => return None,
            FirstWaiting::Offset(waiting) => waiting - 1,
            FirstWaiting::Nothing => last.max(after.offset),
        };
        Some(Position { epoch: after.epoch, offset })
    }

    /// Sends publications. `joined` is all their frames in one buffer. Returns false if the connection is ending
    /// or this delivery overflowed its queue.
    pub fn deliver(&self, frames: &[Delivery], joined: &[u8]) -> bool {
        if !self.is_open() {
            return false;
        }
        if !are_all_next(self.after.get(), frames) && !self.outbox.borrow().is_held() {
            return frames.iter().all(|publication| self.deliver_one(publication.clone()));
        }
        self.deliver_all(frames, joined)
    }

    /// Sends one publication, unless the client has it already.
    fn deliver_one(&self, publication: Delivery) -> bool {
        if !self.accept_or_close(&publication) {
            return self.is_open();
        }
        let joined = publication.frame.clone();
        self.is_open() && self.deliver_all(&[publication], &joined)
    }

    /// Returns whether a publication is to be sent. Closes the connection if the publication shows a gap.
    fn accept_or_close(&self, publication: &Delivery) -> bool {
        match continuity(self.after.get(), publication) {
            Continuity::Next => true,
            Continuity::Duplicate => {
                duplicates_dropped(Duplicate::Replayed, 1);
                false
            }
            Continuity::NewEpoch(position) => {
                self.after.set(Some(position));
                true
            }
            Continuity::Gap => {
                self.close(CloseReason::BrokerGap);
                false
            }
        }
    }

    fn deliver_all(&self, frames: &[Delivery], joined: &[u8]) -> bool {
        let (is_empty, is_held) = {
            let outbox = self.outbox.borrow();
            (outbox.is_empty(), outbox.is_held())
        };
        // What waits although the kernel has refused nothing waits for the next frame.
        let is_direct = !is_held && (is_empty || !self.is_blocked());
        let written = match is_direct {
            true if is_empty => self.write_now(joined),
            true => self.write_behind(joined),
            false => Ok(0),
        };
        let written = match written {
            Ok(written) if written == joined.len() => return true,
            Ok(written) => written,
            Err(()) => return false,
        };
        let pushed = push_from(&mut self.outbox.borrow_mut(), frames, written);
        match pushed {
            Ok(()) => {
                if is_direct {
                    // A partial write has not registered the driving task for writability.
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

/// Queues `frames` without their first `written` bytes.
fn push_from(outbox: &mut Outbox, frames: &[Delivery], mut written: usize) -> Result<(), Overflow> {
    for Delivery { frame, position, .. } in frames {
        if written >= frame.len() {
            written -= frame.len();
            continue;
        }
        let rest = Delivery::new(frame.slice(written..), *position);
        outbox.push_publication(rest)?;
        if written > 0 {
            outbox.mark_partly_written();
            written = 0;
        }
    }
    Ok(())
}
