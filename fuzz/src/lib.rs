//! What targets need that read from a connection: bytes in memory in place of a socket, and a runtime.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::runtime::{Builder, Runtime};

/// A connection whose other end has sent all its bytes and closed. What is written is kept.
pub struct Pieces {
    unread: Box<[u8]>,
    position: usize,
    /// The most bytes of one read.
    step: usize,
    /// Nothing is read before something was written.
    is_answer: bool,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Pieces {
    /// The bytes of a client, which sends them at once.
    pub fn request(bytes: &[u8], step: usize) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let pieces = Self::new(bytes, step, false);
        let written = Rc::clone(&pieces.written);
        (pieces, written)
    }

    /// The bytes of a server, which waits for a request.
    pub fn answer(bytes: &[u8], step: usize) -> Self {
        Self::new(bytes, step, true)
    }

    fn new(bytes: &[u8], step: usize, is_answer: bool) -> Self {
        let (unread, step) = (bytes.into(), step.max(1));
        Self { unread, position: 0, step, is_answer, written: Rc::default() }
    }
}

impl Read for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_answer && self.written.borrow().is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self.step.min(buffer.remaining()).min(self.unread.len() - self.position);
        buffer.put_slice(&self.unread[self.position..self.position + length]);
        self.position += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}
