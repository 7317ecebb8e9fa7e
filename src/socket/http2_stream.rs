//! One stream of an HTTP/2 connection that carries a WebSocket (RFC 8441). Its flow control is its own: a stream whose
//! client does not read keeps no other one waiting.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes of one write. The HTTP library copies what a write has, and holds at most three that its client has
/// made no room for.
const MAX_WRITE_BYTES: usize = 16 * 1024;

thread_local! {
    /// What one write has, from several slices.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A WebSocket's stream.
pub struct Http2Stream {
    io: TokioIo<Upgraded>,
    /// Kept until the stream is closed.
    _held: Box<dyn Any>,
}

impl Http2Stream {
    /// `held` is dropped with the stream.
    pub fn new(upgraded: Upgraded, held: impl Any) -> Self {
        Self { io: TokioIo::new(upgraded), _held: Box::new(held) }
    }
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream").finish_non_exhaustive()
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, &bytes[..bytes.len().min(MAX_WRITE_BYTES)])
    }

    /// Makes one frame of what the slices have.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                let room = MAX_WRITE_BYTES - gathered.len();
                gathered.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            self.poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The HTTP library sends what it has by itself.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
