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
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let stream = connecting.await?;
            if stream.inner().as_raw_fd() >= RESERVED_FROM.load(Ordering::Relaxed) {
                let text =
                    "the remaining file descriptors are reserved; raise the limit of open files";
                return Err(io::Error::other(text).into());
            }
            Ok(stream)
        })
    }
}
