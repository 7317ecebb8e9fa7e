//! The bytes of a client's connection in its HTTP phase, with the deadlines of that phase.
//!
//! It lies between the TCP stream and the HTTP library, because only here is it visible for whom a connection waits: for
//! the head of a request, for the next request, for a client that must read, or for nothing that the client must do.
//! It also writes what the library cannot: interim responses, and the gateway's own answers to malformed requests.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::exchange::{Exchange, Fault};
use super::head_end::HeadEnd;
use crate::config::{MinPace, Server};
use crate::proxy::Pace;
use crate::socket::ByteStream;

/// How many bytes are read at once while a head is awaited.
const HEAD_READ_BYTES: usize = 8 * 1024;

thread_local! {
    /// What a read takes, for as long as it is copied.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; HEAD_READ_BYTES].into());
}

/// A client that has ended its half may have closed the connection altogether, which looks the same. It gets its
/// response, but one that has begun and then stops for this long is given up.
const HALF_CLOSED_PAUSE: Duration = Duration::from_secs(5);

/// The most bytes that the kernel queues without having sent them. With less in the queue, a client that reads slowly
/// is seen to read.
#[cfg(target_os = "linux")]
const NOT_SENT_BYTES: u32 = 32 * 1024;

/// How many bytes are written before the kernel's queue is limited.
const UNLIMITED_BYTES: usize = 16 * 1024;

/// The time limits of a connection's HTTP phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    header_timeout: Duration,
    keep_alive: Duration,
    min_pace: MinPace,
}

impl From<&Server> for TimeLimits {
    fn from(server: &Server) -> Self {
        Self {
            header_timeout: server.header_timeout,
            keep_alive: server.keep_alive,
            min_pace: server.min_pace,
        }
    }
}

/// The connection waits for the head of a request.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    /// Whether the head has a time limit of its own: its first byte has arrived, or it is the connection's first.
    has_begun: bool,
    /// Whether bytes of it have arrived.
    has_bytes: bool,
}

pub(super) struct ClientStream {
    tcp: TokioIo<ByteStream>,
    /// What was read before.
    early: Vec<u8>,
    exchange: Rc<Exchange>,
    limits: TimeLimits,
    timer: Pin<Box<Sleep>>,
    waiting: Waiting,
    head: HeadEnd,
    /// Everything that the HTTP library has passed on is written.
    is_flushed: bool,
    /// What is written before any other byte.
    interim: Vec<u8>,
    /// The response that is held ([`Exchange::hold_response`]).
    held: Vec<u8>,
    /// How many bytes were written, and whether the kernel queues only little of what is.
    written: usize,
    is_not_sent_limited: bool,
    pace: Pace,
    last_written: Instant,
    /// When the client was seen to have ended its half.
    half_closed: Option<Instant>,
}

impl ClientStream {
    /// `early` are the bytes that were read of the connection.
    pub fn new(
        tcp: ByteStream,
        early: Vec<u8>,
        exchange: Rc<Exchange>,
        limits: TimeLimits,
    ) -> Self {
        let now = Instant::now();
        Self {
            tcp: TokioIo::new(tcp),
            early,
            exchange,
            limits,
            timer: Box::pin(tokio::time::sleep_until(now + limits.header_timeout)),
            waiting: Waiting { since: now, has_begun: true, has_bytes: false },
            head: HeadEnd::default(),
            is_flushed: true,
            interim: Vec::new(),
            held: Vec::new(),
            written: 0,
            is_not_sent_limited: false,
            pace: Pace::new(limits.min_pace),
            last_written: now,
            half_closed: None,
        }
    }

    /// Returns the stream as it was, and the response that is held.
    pub fn into_parts(self) -> (ByteStream, Vec<u8>) {
        let tcp = self.tcp.into_inner();
        if self.is_not_sent_limited {
            set_not_sent(&tcp, false);
        }
        (tcp, self.held)
    }

    /// Whether the deadline has passed. If not, the task is woken at the deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn fail<T>(&self, fault: Fault) -> Poll<io::Result<T>> {
        self.exchange.set_fault(fault);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads while a head is awaited, and notes where it ends.
    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.note_read(&early);
            // The library has room for a head.
            buffer.put_slice(&early);
            return Poll::Ready(Ok(()));
        }
        let length = buffer.remaining().min(HEAD_READ_BYTES);
        let polled = READ_BUFFER.with_borrow_mut(|bytes| {
            let mut read = ReadBuf::new(&mut bytes[..length]);
            ready!(Pin::new(self.tcp.inner_mut()).poll_read(cx, &mut read))?;
            self.note_read(read.filled());
            buffer.put_slice(read.filled());
            Poll::Ready(Ok(()))
        });
        if polled.is_pending() {
            let Waiting { since, has_begun, has_bytes } = self.waiting;
            let timeout =
                if has_begun { self.limits.header_timeout } else { self.limits.keep_alive };
            if !self.poll_deadline(cx, since + timeout) {
                return Poll::Pending;
            }
            return match has_bytes {
                true => self.fail(Fault::HeadTimeout),
                // The end of a connection that nobody uses.
                false => {
                    self.exchange.set_over();
                    Poll::Ready(Ok(()))
                }
            };
        }
        polled
    }

    /// Notes what has been read of a head; nothing = the client has ended its half.
    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return self.exchange.set_over();
        }
        if !self.waiting.has_begun {
            self.waiting = Waiting { since: Instant::now(), has_begun: true, has_bytes: true };
        }
        self.waiting.has_bytes = true;
        if let Some(end) = self.head.find(bytes) {
            self.exchange.add_behind_head(bytes.len() - end);
            self.exchange.set_fragment(self.head.has_fragment);
        }
    }

    /// Writes with `write`, after the interim responses. `first` are the first bytes, and `length` all that there are.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        length: usize,
        write: impl FnOnce(Pin<&mut TokioIo<ByteStream>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.is_flushed && self.interim.is_empty() {
            if !self.exchange.is_responding() {
                // Without a request, this is the library's response to a malformed one.
                self.exchange.set_library_error(first);
                return Poll::Ready(Ok(length));
            }
            self.interim = self.exchange.take_interim(cx);
        }
        ready!(self.poll_interim(cx))?;
        // What fits into the kernel's queue needs no limit, and most connections get no more.
        if !self.is_not_sent_limited && self.written + length > UNLIMITED_BYTES {
            self.is_not_sent_limited = true;
            set_not_sent(self.tcp.inner(), true);
        }
        match write(Pin::new(&mut self.tcp), cx) {
            Poll::Ready(Ok(written)) => {
                self.is_flushed = false;
                self.written(written);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_pace(cx),
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = match Pin::new(self.tcp.inner_mut()).poll_write(cx, &self.interim)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => written,
                Poll::Pending => return self.poll_pace(cx),
            };
            self.interim.drain(..written);
            self.written(written);
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, bytes: usize) {
        self.last_written = Instant::now();
        self.written = self.written.saturating_add(bytes);
        self.pace.moved(self.last_written, bytes);
    }

    /// The client must read before more can be written.
    fn poll_pace<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            match self.pace.wait(Instant::now()) {
                None => return self.fail(Fault::TooSlow),
                Some(deadline) if self.poll_deadline(cx, deadline) => {}
                Some(_) => return Poll::Pending,
            }
        }
    }

    /// Notices a client that ends its half, or resets the connection, while it waits for a response.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.half_closed.is_none()
            && let Poll::Ready(0) = self.tcp.inner_mut().poll_peek(cx)?
        {
            self.half_closed = Some(Instant::now());
            self.exchange.set_half_closed();
            self.exchange.set_over();
        }
        if let Some(since) = self.half_closed
            && self.exchange.is_answered()
            && self.poll_deadline(cx, since.max(self.last_written) + HALF_CLOSED_PAUSE)
        {
            self.exchange.set_fault(Fault::Gone);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Read for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.exchange.is_responding() {
            return self.poll_read_head(cx, buffer);
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl Write for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.exchange.is_held() {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_with(cx, bytes, bytes.len(), |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.first().map_or(&[][..], |part| part);
        let length = parts.iter().map(|part| part.len()).sum();
        if self.exchange.is_held() {
            parts.iter().for_each(|part| self.held.extend_from_slice(part));
            return Poll::Ready(Ok(length));
        }
        self.poll_write_with(cx, first, length, |tcp, cx| tcp.poll_write_vectored(cx, parts))
    }

    /// The HTTP library flushes in each of its turns, once it has passed on everything that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flushed = true;
        if let Some(has_bytes) = self.exchange.finish() {
            self.waiting = Waiting { since: Instant::now(), has_begun: has_bytes, has_bytes };
            self.head = HeadEnd::default();
        }
        if self.exchange.is_responding() {
            if !self.exchange.is_answered() && self.interim.is_empty() {
                self.interim = self.exchange.take_interim(cx);
            }
            ready!(self.poll_interim(cx))?;
            self.poll_client(cx)?;
        }
        // With TLS, bytes that were written may not have been sent.
        let before = self.tcp.inner().unsent_bytes();
        let polled = Pin::new(&mut self.tcp).poll_flush(cx);
        let sent = before - self.tcp.inner().unsent_bytes();
        if sent > 0 {
            self.last_written = Instant::now();
            let now = self.last_written;
            self.pace.moved(now, sent);
        }
        if polled.is_pending() { self.poll_pace(cx) } else { polled }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Whether the kernel may queue only little that is not sent. If this fails, only the measured pace is less exact.
#[cfg(target_os = "linux")]
fn set_not_sent(stream: &ByteStream, is_limited: bool) {
    // 0 is the system's own limit.
    let bytes = if is_limited { NOT_SENT_BYTES } else { 0 };
    if let Some(tcp) = stream.tcp() {
        let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(bytes);
    }
}

#[cfg(not(target_os = "linux"))]
fn set_not_sent(_stream: &ByteStream, _is_limited: bool) {}
