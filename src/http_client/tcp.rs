//! Opens the TCP connections of HTTP clients, but not with the last file descriptors of the process: requests of
//! clients open them, and Redis, logs and the admin port need some too.

use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tower_service::Service;

/// A connection with this descriptor or a higher one is given up. The kernel gives out the lowest that is free, so
/// all below are in use then. The limit is one of the process.
static RESERVED_FROM: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Leaves the descriptors from `first` on to others than the connections of HTTP clients.
pub fn reserve_descriptors(first: RawFd) {
    RESERVED_FROM.store(first, Ordering::Relaxed);
}

/// An [`HttpConnector`] that leaves the reserved descriptors free.
#[derive(Clone)]
pub struct TcpConnector(pub(super) HttpConnector);

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxedError>> + Send>>;
type BoxedError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxedError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxedError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let mut tcp = self.0.clone();
        Box::pin(async move {
            // Many connections that are just being opened would take the reserved descriptors for a moment.
            check(&Socket::new(Domain::IPV4, Type::STREAM, None)?)?;
            let stream = tcp.call(uri).await?;
            check(stream.inner())?;
            Ok(stream)
        })
    }
}

/// Fails if `socket` has a reserved descriptor.
fn check(socket: &impl AsRawFd) -> io::Result<()> {
    if socket.as_raw_fd() < RESERVED_FROM.load(Ordering::Relaxed) {
        return Ok(());
    }
    let text = "the remaining file descriptors are reserved; raise the limit of open files";
    Err(io::Error::other(text))
}
