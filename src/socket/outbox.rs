//! The frames that wait to be written to one connection, bounded by count and by bytes.
//!
//! Holds nothing on the heap while empty. Frames are shared, never copied. While *held*, publications wait in
//! a queue of their own and the gateway's own frames overtake them. Holds are counted; the last release
//! returns the publications.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::{Delivery, deflate};
use crate::config::SendQueue;

/// The most slices that one `writev` is given.
const MAX_SLICES: usize = 64;

/// The queue is full, and the connection is to be closed with 4008.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// The first publication with an offset that waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstWaiting {
    Nothing,
    Offset(u64),
    /// Something waits of which the offset is not known.
    Unknown,
}

#[derive(Debug)]
pub struct Outbox {
    limits: SendQueue,
    /// `None` while nothing waits and nothing is held back.
    queue: Option<Box<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many bytes wait, held publications included.
    bytes: usize,
    /// The first frame. `rest` is empty whenever this is `None`.
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// Whether a part of `first` is written already, so that it can no longer be dropped.
    is_first_partly_written: bool,
    held: Option<Held>,
    /// Wake the tasks that wait until nothing is left to be written: one that sends a history and one that relays the
    /// messages of an upstream may wait at the same time.
    drain_wakers: Vec<Waker>,
}

/// Publications that are held back.
#[derive(Debug, Default)]
struct Held {
    holds: usize,
    /// Whether publications with a position are dropped, because the holder will read them from the history.
    skips_positioned: bool,
    waiting: VecDeque<Delivery>,
}

impl Queue {
    /// Each frame that waits, in order, held publications last.
    fn frames(&self) -> impl Iterator<Item = &Bytes> {
        let held = self.held.iter().flat_map(|held| held.waiting.iter().map(|one| &one.frame));
        self.first.iter().chain(&self.rest).chain(held)
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some())
            + self.rest.len()
            + self.held.as_ref().map_or(0, |held| held.waiting.len())
    }

    fn append(&mut self, frame: Bytes) {
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.rest.push_back(frame),
        }
    }

    fn release_all(&mut self) -> VecDeque<Delivery> {
        let waiting = self.held.take().map(|held| held.waiting).unwrap_or_default();
        self.bytes -= waiting.iter().map(|publication| publication.frame.len()).sum::<usize>();
        waiting
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = &mut self.first {
            if written < first.len() {
                first.advance(written);
                self.is_first_partly_written |= written > 0;
                return;
            }
            written -= first.len();
            self.first = self.rest.pop_front();
            self.is_first_partly_written = false;
        }
    }
}

/// The longest end of a frame that has an offset: `"offset":9007199254740991,"epoch":"…"}`.
const LONGEST_END: usize = 128;

/// The offset at the end of a frame, or of the rest of one.
fn last_offset(frame: &[u8]) -> Option<u64> {
    let end = &frame[frame.len().saturating_sub(LONGEST_END)..];
    let name = b"\"offset\":";
    let at = end.windows(name.len()).rposition(|part| part == name)?;
    let digits = &end[at + name.len()..];
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = digits.split_at(length);
    let is_last = after == b"}" || after.starts_with(b",\"epoch\":");
    if is_last { std::str::from_utf8(number).ok()?.parse().ok() } else { None }
}

impl Outbox {
    pub fn new(limits: SendQueue) -> Self {
        Self { limits, queue: None }
    }

    /// Whether nothing could be written now.
    pub fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.first.is_none())
    }

    /// How many bytes wait, held publications included.
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    pub fn limits(&self) -> SendQueue {
        self.limits
    }

    /// Calls `visit` with each frame that waits, held publications included.
    pub fn for_each(&self, visit: &mut dyn FnMut(&Bytes)) {
        self.queue.iter().flat_map(|queue| queue.frames()).for_each(visit);
    }

    pub fn is_held(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.held.is_some())
    }

    /// Finds the first publication that is not written in full. Its offset is read from the ends of the frames, where the
    /// gateway writes it, so that nothing is kept for it. Where frames may be compressed, the rest of one tells nothing.
    pub fn first_waiting(&self, may_be_compressed: bool) -> FirstWaiting {
        let Some(queue) = &self.queue else { return FirstWaiting::Nothing };
        let mut is_rest = queue.is_first_partly_written;
        for frame in queue.frames() {
            let is_rest = std::mem::take(&mut is_rest);
            let offset = match deflate::is_compressed(frame) && !is_rest && may_be_compressed {
                true => match deflate::inflate_own(frame, last_offset) {
                    Some(offset) => offset,
                    None => return FirstWaiting::Unknown,
                },
                false => last_offset(frame),
            };
            match offset {
                Some(offset) => return FirstWaiting::Offset(offset),
                None if is_rest && may_be_compressed => return FirstWaiting::Unknown,
                None => {}
            }
        }
        FirstWaiting::Nothing
    }

    /// How many frames wait, held publications included.
    pub fn count(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.count())
    }

    fn queue(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// Counts `frame` in. One frame always fits an empty queue, whatever its size.
    fn count_in(&mut self, frame: &Bytes) -> Result<&mut Queue, Overflow> {
        let (count, bytes) = (self.count(), self.bytes() + frame.len());
        if count > 0 && (count >= self.limits.messages || bytes > self.limits.bytes) {
            return Err(Overflow);
        }
        let queue = self.queue();
        queue.bytes = bytes;
        Ok(queue)
    }

    /// Queues a frame of the gateway's own, which is not held back.
    pub fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        self.count_in(&frame)?.append(frame);
        Ok(())
    }

    /// Queues a part of a history. The sender bounds it, not this queue.
    pub fn push_page(&mut self, frames: Bytes) {
        let queue = self.queue();
        queue.bytes += frames.len();
        queue.append(frames);
    }

    /// Queues a publication, aside while publications are held back.
    pub fn push_publication(&mut self, publication: Delivery) -> Result<(), Overflow> {
        let held = self.queue.as_ref().and_then(|queue| queue.held.as_ref());
        if publication.position.is_some() && held.is_some_and(|held| held.skips_positioned) {
            return Ok(());
        }
        let queue = self.count_in(&publication.frame)?;
        match &mut queue.held {
            Some(held) => held.waiting.push_back(publication),
            None => queue.append(publication.frame),
        }
        Ok(())
    }

    /// A part of the frame that was just pushed, the first one, is written already.
    pub fn mark_partly_written(&mut self) {
        self.queue().is_first_partly_written = true;
    }

    pub fn hold(&mut self) {
        self.queue().held.get_or_insert_default().holds += 1;
    }

    /// Takes back one hold. Returns the held publications once there is no hold left; they are not counted then.
    pub fn release(&mut self) -> VecDeque<Delivery> {
        match self.queue.as_mut().and_then(|queue| queue.held.as_mut()) {
            Some(held) if held.holds > 1 => {
                held.holds -= 1;
                VecDeque::new()
            }
            _ => self.release_all(),
        }
    }

    /// Takes back all holds and returns the held publications.
    pub fn release_all(&mut self) -> VecDeque<Delivery> {
        let Some(queue) = &mut self.queue else { return VecDeque::new() };
        let waiting = queue.release_all();
        self.free_unused();
        waiting
    }

    /// While held: whether publications with a position are dropped, including those that are held already.
    pub fn skip_positioned(&mut self, skip: bool) {
        let Some(Queue { bytes, held: Some(held), .. }) = self.queue.as_deref_mut() else { return };
        held.skips_positioned = skip;
        if skip {
            held.waiting.retain(|Delivery { frame, position, .. }| {
                if position.is_some() {
                    *bytes -= frame.len();
                }
                position.is_none()
            });
        }
    }

    /// Drops every frame of which nothing is written yet, and queues `last`, the close frame.
    pub fn replace_with(&mut self, last: Bytes) {
        let queue = self.queue();
        queue.held = None;
        queue.rest = VecDeque::new();
        if !queue.is_first_partly_written {
            queue.first = None;
        }
        queue.bytes = queue.first.as_ref().map_or(0, Bytes::len) + last.len();
        queue.append(last);
    }

    /// Writes until nothing is left (`Ready`) or the stream takes no more (`Pending`; the task of `cx` is woken
    /// when it does again).
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(queue) = &mut self.queue else { return Poll::Ready(Ok(())) };
        while let Some(first) = &queue.first {
            let written = if queue.rest.is_empty() {
                Pin::new(&mut *stream).poll_write(cx, first)
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                slices[0] = IoSlice::new(first);
                let mut used = 1;
                for (slice, frame) in slices[1..].iter_mut().zip(&queue.rest) {
                    *slice = IoSlice::new(frame);
                    used += 1;
                }
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => queue.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        queue.rest = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Makes one write of what waits and, behind it, `more`, which is not queued. Returns how many bytes of `more` the
    /// stream took.
    pub fn poll_write_with<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(queue) = self.queue.as_mut().filter(|queue| queue.rest.len() < MAX_SLICES - 1)
        else {
            return Poll::Pending;
        };
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut used, mut waiting) = (0, 0);
        for frame in queue.first.iter().chain(&queue.rest) {
            slices[used] = IoSlice::new(frame);
            used += 1;
            waiting += frame.len();
        }
        slices[used] = IoSlice::new(more);
        match Pin::new(stream).poll_write_vectored(cx, &slices[..=used]) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => {
                queue.advance(written.min(waiting));
                if queue.first.is_none() {
                    queue.rest = VecDeque::new();
                }
                Poll::Ready(Ok(written.saturating_sub(waiting)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Wakes the task of `waker` when nothing is left to be written, or earlier.
    pub fn wake_when_empty(&mut self, waker: &Waker) {
        let wakers = &mut self.queue().drain_wakers;
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Wakes the tasks that wait for this outbox, and frees what an empty one does not need.
    pub fn wake_waiting(&mut self) {
        if let Some(queue) = &mut self.queue {
            std::mem::take(&mut queue.drain_wakers).into_iter().for_each(Waker::wake);
        }
        self.free_unused();
    }

    fn free_unused(&mut self) {
        self.queue.take_if(|queue| {
            queue.first.is_none() && queue.held.is_none() && queue.drain_wakers.is_empty()
        });
    }
}
