//! A client's TLS connection, whose handshake is over, on a TCP connection of either kind.
//!
//! It holds no buffer while it is idle. What is read is opened in a buffer of the thread, and what is written is sealed in
//! another, so that a delivery is one record and one system call. What is kept is the beginning of a record that has not
//! come whole, plaintext for which the reader had no room, and sealed bytes that the kernel did not take: each at most
//! about one record, since nothing more is read or sealed before it is gone.
//!
//! Invariant: bytes that were sealed are written in order and before any others.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ClientTcp;
use crate::tls::{MAX_PLAINTEXT, MAX_RECORD, Opened, RecordError, Records, record_length};

/// The most that one read takes, in bytes. The buffers belong to the thread.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Sealed bytes as they come: those that were kept, and behind them what one read takes.
    static SEALED_IN: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_RECORD + READ_BYTES]);
    /// A record that is written.
    static SEALED_OUT: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(MAX_RECORD));
}

/// A client's TLS connection. At most one task waits for it at a time.
#[derive(Debug)]
pub struct ClientTls<T = ClientTcp> {
    tcp: T,
    records: Records,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// What has been opened and not been read.
    opened: Vec<u8>,
    /// Sealed bytes that the kernel has not taken.
    unsent: Vec<u8>,
    incoming: Half,
}

/// How far the peer's half has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// `close_notify` has come.
    Closed,
    /// The peer has broken the protocol, or its half ended without `close_notify`: what it sent may have been cut.
    Broken,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientTls<T> {
    /// `early` are sealed bytes that came behind the handshake.
    pub fn new(tcp: T, records: Records, mut early: Vec<u8>) -> Self {
        let mut tls = Self {
            tcp,
            records,
            partial: Vec::new(),
            opened: Vec::new(),
            unsent: Vec::new(),
            incoming: Half::Open,
        };
        if !early.is_empty() {
            tls.take(&mut early, &mut ReadBuf::new(&mut []));
        }
        tls
    }

    pub fn tcp(&self) -> &T {
        &self.tcp
    }

    /// Sealed bytes that the kernel has not taken.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    #[cfg(test)]
    fn records_sealed(&self) -> u64 {
        self.records.sealed()
    }

    /// What came of messages that are not complete.
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.opened.len()
    }

    /// Waits for a byte without taking it. 0 = the peer's half has ended.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut [])))?;
        Poll::Ready(Ok(self.opened.len().min(1)))
    }

    /// Reads until something was opened or the peer's half has ended. What does not fit into `buffer` is kept.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What was opened is read before the end of what came after it.
        while self.opened.is_empty() && buffer.filled().is_empty() {
            match self.incoming {
                Half::Open => {}
                Half::Closed => return Poll::Ready(Ok(())),
                Half::Broken => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
            // A peer that asks for answers and does not take them is not read either.
            if self.unsent.len() > MAX_RECORD {
                ready!(self.poll_unsent(cx))?;
            }
            let read = SEALED_IN.with_borrow_mut(|bytes| {
                let kept = self.partial.len();
                // No more than the reader has room for, so that hardly anything has to be kept.
                let room = buffer.remaining().clamp(MAX_RECORD, READ_BYTES);
                let mut read = ReadBuf::new(&mut bytes[kept..kept + room]);
                ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
                let length = read.filled().len();
                if length == 0 {
                    self.incoming = Half::Broken;
                    return Poll::Ready(io::Result::Ok(()));
                }
                bytes[..kept].copy_from_slice(&self.partial);
                self.partial = Vec::new();
                self.take(&mut bytes[..kept + length], buffer);
                Poll::Ready(Ok(()))
            });
            ready!(read)?;
            // An answer to the peer does not wait for the next write.
            if !self.unsent.is_empty()
                && let Poll::Ready(Err(error)) = self.poll_unsent(cx)
            {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Opens the records in `sealed`, into `buffer` as far as there is room.
    fn take(&mut self, mut sealed: &mut [u8], buffer: &mut ReadBuf<'_>) {
        loop {
            let length = match record_length(sealed) {
                Ok(Some(length)) if length <= sealed.len() => length,
                Ok(_) => {
                    self.partial = sealed.to_vec();
                    return;
                }
                Err(error) => return self.fail(error),
            };
            let (record, rest) = sealed.split_at_mut(length);
            match self.records.open(record, &mut self.unsent) {
                Ok(Opened::Data(data)) => {
                    let fits = match self.opened.is_empty() {
                        true => data.len().min(buffer.remaining()),
                        false => 0,
                    };
                    buffer.put_slice(&data[..fits]);
                    self.opened.extend_from_slice(&data[fits..]);
                }
                Ok(Opened::Nothing) => {}
                Ok(Opened::Closed) => {
                    // Whatever comes behind it is not the peer's (RFC 8446 section 6.1).
                    self.incoming = Half::Closed;
                    return;
                }
                Err(error) => return self.fail(error),
            }
            sealed = rest;
        }
    }

    /// The peer gets an alert, and nothing more of it is read.
    fn fail(&mut self, error: RecordError) {
        self.incoming = Half::Broken;
        self.records.seal_error(error, &mut self.unsent);
    }

    /// Writes what the kernel has not taken.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let polled = loop {
            if sent == self.unsent.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.tcp).poll_write(cx, &self.unsent[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        match polled {
            Poll::Ready(Ok(())) => self.unsent = Vec::new(),
            _ => drop(self.unsent.drain(..sent)),
        }
        polled
    }

    /// Seals one record of the beginning of `parts`, and writes it. Returns how much of `parts` it took.
    fn poll_seal<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let mut room = MAX_PLAINTEXT;
        let parts = parts.map(|part| {
            let taken = &part[..part.len().min(room)];
            room -= taken.len();
            taken
        });
        let polled = SEALED_OUT.with_borrow_mut(|sealed| {
            sealed.clear();
            self.records.seal(parts, sealed).map_err(io::Error::other)?;
            let mut sent = 0;
            while sent < sealed.len() {
                match Pin::new(&mut self.tcp).poll_write(cx, &sealed[sent..]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => sent += written?,
                    Poll::Pending => {
                        self.unsent = sealed[sent..].to_vec();
                        break;
                    }
                }
            }
            io::Result::Ok(())
        });
        Poll::Ready(polled.map(|()| MAX_PLAINTEXT - room))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientTls<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.opened.is_empty() {
            // The buffer may hold bytes of its owner, which are none of this read.
            let mut unfilled = ReadBuf::new(buffer.initialize_unfilled());
            ready!(this.poll_fill(cx, &mut unfilled))?;
            let filled = unfilled.filled().len();
            buffer.advance(filled);
            return Poll::Ready(Ok(()));
        }
        let taken = this.opened.len().min(buffer.remaining());
        buffer.put_slice(&this.opened[..taken]);
        if taken == this.opened.len() {
            this.opened = Vec::new();
        } else {
            this.opened.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientTls<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, slices.iter().map(|slice| &**slice))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_unsent(cx)
    }

    /// Sends `close_notify` and ends this side's half.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.records.seal_close(&mut this.unsent);
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
