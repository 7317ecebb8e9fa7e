//! What waits to be written to one connection: bounded by count and by bytes.
//!
//! Holds nothing on the heap while empty. Frames are shared, never copied. While *held*, publications
//! wait aside and the gateway's own frames overtake them; holds are counted, and the last release lets
//! the publications go.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::Delivery;
use crate::config::SendQueue;

/// As many slices as one `writev` is given.
const MAX_SLICES: usize = 64;

/// The queue is full; the connection is to be closed with 4008.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

#[derive(Debug)]
pub struct Outbox {
    limits: SendQueue,
    /// Both queues together.
    bytes: usize,
    /// The front; inline, so that a single frame that is written at once costs no allocation. Empty
    /// exactly when `rest` is.
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// A part of `first` is on the wire already: it can no longer be dropped.
    first_begun: bool,
    held: Option<Box<Held>>,
}

/// Publications that wait aside.
#[derive(Debug, Default)]
struct Held {
    holds: usize,
    /// What has a position is dropped rather than kept: whoever holds will read it from the history.
    skips_positioned: bool,
    waiting: VecDeque<Delivery>,
}

impl Outbox {
    pub fn new(limits: SendQueue) -> Self {
        Self {
            limits,
            bytes: 0,
            first: None,
            rest: VecDeque::new(),
            first_begun: false,
            held: None,
        }
    }

    /// Nothing that could be written now.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// What waits, held publications included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some())
            + self.rest.len()
            + self.held.as_ref().map_or(0, |held| held.waiting.len())
    }

    /// Counts `frame` in; one frame always fits an empty queue, whatever its size.
    fn admit(&mut self, frame: &Bytes) -> Result<(), Overflow> {
        let count = self.count();
        if count > 0
            && (count >= self.limits.messages || self.bytes + frame.len() > self.limits.bytes)
        {
            return Err(Overflow);
        }
        self.bytes += frame.len();
        Ok(())
    }

    fn append(&mut self, frame: Bytes) {
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.rest.push_back(frame),
        }
    }

    /// A frame of the gateway's own: not held back.
    pub fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        self.admit(&frame)?;
        self.append(frame);
        Ok(())
    }

    /// A part of a history, bounded by who sends it rather than here.
    pub fn push_page(&mut self, frames: Bytes) {
        self.bytes += frames.len();
        self.append(frames);
    }

    /// A publication: waits aside while held.
    pub fn push_publication(&mut self, publication: Delivery) -> Result<(), Overflow> {
        if publication.position.is_some()
            && self.held.as_ref().is_some_and(|held| held.skips_positioned)
        {
            return Ok(());
        }
        self.admit(&publication.frame)?;
        match &mut self.held {
            Some(held) => held.waiting.push_back(publication),
            None => self.append(publication.frame),
        }
        Ok(())
    }

    /// Notes that `written` bytes of a publication went out before the rest of it was pushed.
    pub fn mark_begun(&mut self) {
        self.first_begun = true;
    }

    pub fn hold(&mut self) {
        self.held.get_or_insert_default().holds += 1;
    }

    /// Takes back one hold. What waited is returned once nobody holds any more; it is not counted then.
    pub fn release(&mut self) -> VecDeque<Delivery> {
        match &mut self.held {
            Some(held) if held.holds > 1 => {
                held.holds -= 1;
                VecDeque::new()
            }
            _ => self.release_all(),
        }
    }

    /// The same, however many hold.
    pub fn release_all(&mut self) -> VecDeque<Delivery> {
        let waiting = self.held.take().map(|held| held.waiting).unwrap_or_default();
        self.bytes -= waiting.iter().map(|publication| publication.frame.len()).sum::<usize>();
        waiting
    }

    /// While held: whether publications with a position are dropped, those that wait already included.
    pub fn skip_positioned(&mut self, skip: bool) {
        let Some(held) = &mut self.held else { return };
        held.skips_positioned = skip;
        if skip {
            let bytes = &mut self.bytes;
            held.waiting.retain(|Delivery { frame, position }| {
                if position.is_some() {
                    *bytes -= frame.len();
                }
                position.is_none()
            });
        }
    }

    /// Drops what has not begun to go out and makes room for `last`, the close frame.
    pub fn replace_with(&mut self, last: Bytes) {
        self.held = None;
        self.rest = VecDeque::new();
        if !self.first_begun {
            self.first = None;
        }
        self.bytes = self.first.as_ref().map_or(0, Bytes::len) + last.len();
        self.append(last);
    }

    /// Writes until everything is out (`Ready`) or the stream takes no more (`Pending`, and the task of
    /// `cx` is woken when it does).
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = &self.first {
            let written = if self.rest.is_empty() {
                Pin::new(&mut *stream).poll_write(cx, first)
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                slices[0] = IoSlice::new(first);
                let mut used = 1;
                for (slice, frame) in slices[1..].iter_mut().zip(&self.rest) {
                    *slice = IoSlice::new(frame);
                    used += 1;
                }
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.rest = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = &mut self.first {
            if written < first.len() {
                first.advance(written);
                self.first_begun |= written > 0;
                return;
            }
            written -= first.len();
            self.first = self.rest.pop_front();
            self.first_begun = false;
        }
    }
}
