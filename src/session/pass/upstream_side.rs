//! The upstream's end of a connection: its byte stream, what waits to be written to it, and the frames that it sends.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http_client::UpgradedStream;
use crate::socket::FrameScanner;
use crate::upstream::{InFlightPermit, PassedUpstream};

pub(super) struct UpstreamSide {
    stream: UpgradedStream,
    pub scanner: FrameScanner,
    /// What the stream has not taken. The first `written` bytes of it are written.
    waiting: Vec<u8>,
    written: usize,
    /// When the stream took bytes, or began to wait.
    pub last_progress: Instant,
    /// Whether nothing can be written any more. It may still be read.
    is_write_broken: bool,
    /// Whether the upstream has sent a close frame.
    pub has_closed: bool,
    /// Whether it was sent one.
    pub is_told_to_close: bool,
    _in_flight: InFlightPermit,
}

impl UpstreamSide {
    pub fn new(passed: PassedUpstream) -> Self {
        Self {
            stream: passed.stream,
            scanner: FrameScanner::of_server(),
            waiting: Vec::new(),
            written: 0,
            last_progress: Instant::now(),
            is_write_broken: false,
            has_closed: false,
            is_told_to_close: false,
            _in_flight: passed.in_flight,
        }
    }

    /// How many bytes wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len() - self.written
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
                self.last_progress = Instant::now();
            }
        }
        self.waiting.extend_from_slice(&bytes[taken..]);
    }

    /// Queues `bytes` to be written by [`UpstreamSide::poll_flush`].
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.is_write_broken {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// `Ready` when nothing waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.written < self.waiting.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.written..]) {
                Poll::Ready(Ok(length)) if length > 0 => {
                    self.written += length;
                    self.last_progress = Instant::now();
                }
                Poll::Ready(_) => {
                    self.break_writing();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
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

    /// Makes one read. `Ready(0)` if the upstream's half has ended or broken.
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
