//! Connections to servers that know whether they have been used before, and that read an answer though the server does
//! not take the rest of the request.
//!
//! A server may close a connection that idles in the pool at the moment in which the next request is sent on it. Such a
//! request can be sent again, unlike one that failed on a connection of its own.
//!
//! A server may also answer before it has read the whole request, for example that it is too large, and close the
//! connection. Writing fails then, while the answer has arrived and can be read.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::http::Extensions;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

/// What has happened on the connection.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Happened>);

#[derive(Debug, Default)]
struct Happened {
    /// A response has come over the connection.
    was_used: AtomicBool,
    /// The connection has switched to another protocol.
    has_switched: AtomicBool,
}

/// Notes that the connection of a response has been used.
pub(super) fn note_response<B>(response: &Response<B>) {
    if let Some(Notes(happened)) = response.extensions().get() {
        happened.was_used.store(true, Ordering::Relaxed);
        let has_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        happened.has_switched.store(has_switched, Ordering::Relaxed);
    }
}

pub(super) fn was_used(connected: &Connected) -> bool {
    let mut extensions = Extensions::new();
    connected.get_extras(&mut extensions);
    extensions
        .get::<Notes>()
        .is_some_and(|Notes(happened)| happened.was_used.load(Ordering::Relaxed))
}

/// A connector whose connections note their use.
#[derive(Debug, Clone)]
pub struct Connector<C>(pub(super) C);

/// A connection that notes its use.
pub struct Noted<S> {
    stream: S,
    notes: Notes,
}

impl<S> Noted<S> {
    /// Returns the connection without its notes.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// The server has closed its side if writing fails. The answer, or the end of the connection, is still to be read:
    /// until then the write stays pending, and the reader, which belongs to the same task, wakes it.
    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
                    && !self.notes.0.has_switched.load(Ordering::Relaxed) =>
            {
                Poll::Pending
            }
            written => written,
        }
    }
}

impl<C> Service<Uri> for Connector<C>
where
    C: Service<Uri, Future: Send + 'static>,
{
    type Response = Noted<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let stream = connecting.await?;
            Ok(Noted { stream, notes: Notes::default() })
        })
    }
}

impl<S: Connection> Connection for Noted<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.notes.clone())
    }
}

impl<S: Read + Unpin> Read for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Write + Unpin> Write for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(written)
    }
}
