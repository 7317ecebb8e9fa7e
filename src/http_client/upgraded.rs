//! A connection that has switched to another protocol (RFC 9110 section 7.8).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::Response;
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connections::Noted;

/// What the connections of an [`HttpClient`](super::HttpClient) are made of.
type Connection = Noted<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// The bytes of a connection that an [`HttpClient`](super::HttpClient) opened and that has switched protocols.
pub struct UpgradedStream {
    transport: Transport,
    /// What came in one segment with the response, and is read first.
    early: Bytes,
}

/// Without TLS it is the bare TCP stream, because the layers of the HTTP client around it take about 1 KB of memory, and
/// time at each read and write.
enum Transport {
    Tcp(TcpStream),
    Other(Box<dyn Duplex>),
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl UpgradedStream {
    /// Takes the connection of a response whose status is 101.
    pub async fn of(response: Response<Incoming>) -> hyper::Result<Self> {
        let upgraded = match hyper::upgrade::on(response).await?.downcast::<Connection>() {
            Ok(Parts { io, read_buf: early, .. }) => {
                let transport = match io.into_inner() {
                    MaybeHttpsStream::Http(tcp) => Transport::Tcp(tcp.into_inner()),
                    tls @ MaybeHttpsStream::Https(_) => {
                        Transport::Other(Box::new(TokioIo::new(tls)))
                    }
                };
                // An empty part of the buffer in which the response was read would keep all of it.
                let early = if early.is_empty() { Bytes::new() } else { early };
                return Ok(Self { transport, early });
            }
            Err(upgraded) => upgraded,
        };
        let transport = Transport::Other(Box::new(TokioIo::new(upgraded)));
        Ok(Self { transport, early: Bytes::new() })
    }
}

macro_rules! on_transport {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().transport {
            Transport::Tcp(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            Transport::Other(other) => {
                let $stream = Pin::new(other);
                $call
            }
        }
    };
}

impl AsyncRead for UpgradedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..length]);
            self.early.advance(length);
            if self.early.is_empty() {
                // The buffer of the response's head is not kept.
                self.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        on_transport!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for UpgradedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.is_write_vectored(),
            Transport::Other(other) => other.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, stream => stream.poll_shutdown(cx))
    }
}
