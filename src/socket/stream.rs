//! The byte streams that a socket can run on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClientTcp, ClientTls, Http2Stream};

/// A closed set of streams, so that the hub's handles need no type parameter.
#[derive(Debug)]
pub enum ByteStream {
    Tcp(ClientTcp),
    /// Boxed, so that a connection of its own is as small as it can be.
    Http2(Box<Http2Stream>),
    /// Boxed, so that a connection without TLS is as small as it can be.
    Tls(Box<ClientTls>),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Self::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
            Self::Http2($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
            #[cfg(test)]
            Self::Memory($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl ByteStream {
    /// The TCP connection below it, for its options. What is read and written there is not the stream's.
    pub fn tcp(&self) -> Option<&ClientTcp> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.tcp()),
            Self::Http2(_) => None,
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// Bytes that were written to the stream and that the kernel has not taken. [`AsyncWrite::poll_flush`] writes them.
    pub fn unsent_bytes(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.unsent_bytes(),
            _ => 0,
        }
    }

    /// Bytes that have come and were not read.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.held_bytes(),
            _ => 0,
        }
    }

    /// Waits for a byte without taking it. 0 = the peer's half has ended.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_peek(cx, &mut [0]),
            Self::Tls(tls) => tls.poll_peek(cx),
            // The stream of a request is watched by the connection that carries it.
            Self::Http2(_) => Poll::Pending,
            #[cfg(test)]
            Self::Memory(_) => Poll::Pending,
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(cx))
    }
}

/// Whether an error of `accept` is of the one connection, such as one that its client has reset already, so that the
/// next one can be accepted at once.
pub fn is_failed_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
