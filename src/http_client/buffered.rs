//! A connection that has switched protocols, and keeps what it cannot write yet, so that its writers need not wait.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::UpgradedStream;

/// The caller bounds what waits: it sends no more while [`BufferedStream::waiting_bytes`] says that there is enough.
pub struct BufferedStream {
    stream: UpgradedStream,
    /// What the stream has not taken. The first `written` bytes of it are written.
    waiting: Vec<u8>,
    written: usize,
    /// When the stream took bytes, or began to wait. `None` if nothing was found to wait since.
    stalled_since: Option<Instant>,
    /// Whether nothing can be written any more. It may still be read.
    is_write_broken: bool,
}

impl From<UpgradedStream> for BufferedStream {
    fn from(stream: UpgradedStream) -> Self {
        Self {
            stream,
            waiting: Vec::new(),
            written: 0,
            stalled_since: None,
            is_write_broken: false,
        }
    }
}

impl BufferedStream {
    /// How many bytes wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Since when the stream has taken nothing, if something waits.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since.filter(|_| self.waiting_bytes() > 0)
    }

    /// For how long the stream has taken nothing, if something waits.
    pub fn stalled_for(&self) -> Duration {
        self.stalled_since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Writes `bytes` behind what waits already, as far as the stream takes them, and keeps the rest.
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if bytes.is_empty() || self.is_write_broken {
            return;
        }
        let mut taken = 0;
        if self.waiting.is_empty() {
            while taken < bytes.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &bytes[taken..]) {
                    Poll::Ready(Ok(length)) if length > 0 => taken += length,
                    Poll::Ready(_) => return self.break_writing(),
                    Poll::Pending => break,
                }
            }
            self.flush_stream(cx);
            if taken < bytes.len() {
                self.stalled_since = Some(Instant::now());
            }
        }
        self.waiting.extend_from_slice(&bytes[taken..]);
    }

    /// Queues what `encode` appends, to be written by [`BufferedStream::poll_flush`].
    pub fn push_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_write_broken {
            encode(&mut self.waiting);
        }
    }

    /// Queues `bytes` to be written by [`BufferedStream::poll_flush`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.push_with(|waiting| waiting.extend_from_slice(bytes));
    }

    /// `Ready` when nothing waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.written < self.waiting.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.written..]) {
                Poll::Ready(Ok(length)) if length > 0 => {
                    self.written += length;
                    self.stalled_since = None;
                }
                Poll::Ready(_) => {
                    self.break_writing();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        if self.written > 0 {
            (self.waiting, self.written) = (Vec::new(), 0);
            self.flush_stream(cx);
        }
        Poll::Ready(())
    }

    /// A TLS stream keeps what it has not written yet, and its task is woken when it can be.
    fn flush_stream(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = Pin::new(&mut self.stream).poll_flush(cx) {
            self.break_writing();
        }
    }

    /// Ends the writing half once everything is written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_write_broken {
            return Poll::Ready(());
        }
        Pin::new(&mut self.stream).poll_shutdown(cx).map(drop)
    }

    /// Makes one read. `Ready(0)` if the peer's half has ended or broken.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(buffer.filled().len()),
            Poll::Ready(Err(_)) => Poll::Ready(0),
        }
    }

    fn break_writing(&mut self) {
        self.is_write_broken = true;
        (self.waiting, self.written) = (Vec::new(), 0);
    }
}
