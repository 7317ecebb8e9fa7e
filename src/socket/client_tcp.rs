//! A client's TCP connection, and the socket on which they are accepted. Both belong to one thread and one task.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::poller::{Readiness, Watch};

/// A client's TCP connection. At most one task waits for it at a time.
#[derive(Debug)]
pub struct ClientTcp {
    tcp: mio::net::TcpStream,
    watch: Watch,
}

/// A listening TCP socket.
pub struct ClientListener {
    listener: mio::net::TcpListener,
    watch: Watch,
}

impl ClientListener {
    /// `listener` must not block.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let mut listener = mio::net::TcpListener::from_std(listener);
        let watch = Watch::begin(&mut listener)?;
        Ok(Self { listener, watch })
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<(ClientTcp, SocketAddr)> {
        let accepted = std::future::poll_fn(|cx| {
            self.watch.poll(Readiness::Read, cx, || self.listener.accept(), |_| false)
        });
        let (tcp, peer) = accepted.await?;
        Ok((ClientTcp::new(tcp)?, peer))
    }

    /// Accepts a connection that is there, even if it has not been reported yet; `None` = there is none.
    pub fn try_accept(&self) -> Option<(ClientTcp, SocketAddr)> {
        let (tcp, peer) = self.listener.accept().ok()?;
        Some((ClientTcp::new(tcp).ok()?, peer))
    }
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        self.watch.end(&mut self.listener);
    }
}

impl ClientTcp {
    fn new(mut tcp: mio::net::TcpStream) -> io::Result<Self> {
        let watch = Watch::begin(&mut tcp)?;
        Ok(Self { tcp, watch })
    }

    /// Takes over a connection that does not block. It is watched on this thread from now on.
    pub fn from_std(tcp: std::net::TcpStream) -> io::Result<Self> {
        Self::new(mio::net::TcpStream::from_std(tcp))
    }

    /// Gives the connection to another thread.
    pub fn into_std(self) -> std::net::TcpStream {
        let Self { mut tcp, watch } = self;
        // The descriptor stays open, so the kernel would not forget it.
        watch.end(&mut tcp);
        tcp.into()
    }

    /// Takes over a connection of tokio's.
    #[cfg(any(test, feature = "internals"))]
    pub fn from_tokio(tcp: tokio::net::TcpStream) -> io::Result<Self> {
        Self::new(mio::net::TcpStream::from_std(tcp.into_std()?))
    }

    /// Writes without waiting, as far as the kernel takes it.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.tcp).write(bytes)
    }

    /// Its place among what is watched.
    #[cfg(test)]
    pub(super) fn as_place(&self) -> u32 {
        self.watch.place()
    }

    /// Looks at what has arrived without taking it.
    pub fn poll_peek(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        self.watch.poll(Readiness::Read, cx, || self.tcp.peek(bytes), |_| false)
    }
}

impl AsFd for ClientTcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsRawFd for ClientTcp {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl AsyncRead for ClientTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { tcp, watch } = self.get_mut();
        let room = buf.remaining();
        let unfilled = buf.initialize_unfilled();
        // Less than there was room for: nothing is left. Nothing at all is the end.
        let has_drained = |read: &usize| (1..room).contains(read);
        let read = ready!(watch.poll(Readiness::Read, cx, || tcp.read(unfilled), has_drained))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { tcp, watch } = self.get_mut();
        let has_drained = |written: &usize| (1..bytes.len()).contains(written);
        watch.poll(Readiness::Write, cx, || tcp.write(bytes), has_drained)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { tcp, watch } = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        let has_drained = |written: &usize| (1..length).contains(written);
        watch.poll(Readiness::Write, cx, || tcp.write_vectored(slices), has_drained)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.tcp.shutdown(Shutdown::Write))
    }
}
