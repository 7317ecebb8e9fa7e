//! What waits to be written to one connection: bounded by count and by bytes.
//!
//! Holds nothing on the heap while empty. Frames are shared, never copied. While *held*, publications
//! wait aside and the gateway's own frames overtake them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

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
    #[expect(clippy::box_collection, reason = "24 bytes less in every idle connection")]
    held: Option<Box<VecDeque<Bytes>>>,
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
            + self.held.as_ref().map_or(0, |held| held.len())
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

    /// A publication: waits aside while held.
    pub fn push_publication(&mut self, frame: Bytes) -> Result<(), Overflow> {
        self.admit(&frame)?;
        match &mut self.held {
            Some(held) => held.push_back(frame),
            None => self.append(frame),
        }
        Ok(())
    }

    /// Notes that `written` bytes of a publication went out before the rest of it was pushed.
    pub fn mark_begun(&mut self) {
        self.first_begun = true;
    }

    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    pub fn release(&mut self) {
        if let Some(held) = self.held.take() {
            held.into_iter().for_each(|frame| self.append(frame));
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
