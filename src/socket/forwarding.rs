//! A socket whose client is sent the frames of an upstream as they are.
//!
//! What the gateway itself sends must not come inside a frame, and publications not inside a message. Invariants: while a
//! frame is not complete, pings are left out and a close frame waits; while a message is not complete, publications wait.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::closing::Phase;
use super::frame::{self, Opcode};
use super::{ByteStream, ConnectionEnd, Place, Socket};
use crate::config::SendQueue;

/// The payload of the gateway's own pings, by which their pongs are told from those to the upstream's.
const PING: &[u8] = b"tidegate";

/// The state of a socket that forwards frames.
#[derive(Debug)]
pub(super) struct Forwarding {
    /// Where the forwarded frames have come to.
    place: Cell<Place>,
    /// Whether publications reach this socket.
    has_channel: bool,
    is_holding: Cell<bool>,
    /// A close frame of the gateway that waits for the end of a frame.
    close: RefCell<Option<Bytes>>,
    /// Whether a pong to a ping of the gateway may still come.
    awaits_pong: Cell<bool>,
}

impl Forwarding {
    pub fn is_in_frame(&self) -> bool {
        self.place.get() == Place::InFrame
    }

    pub fn is_between(&self) -> bool {
        self.place.get() == Place::Between
    }

    pub fn wait_with_close(&self, frame: Bytes) {
        *self.close.borrow_mut() = Some(frame);
    }
}

impl Socket {
    /// A socket that forwards. `has_channel`: publications reach it as well.
    pub fn forwarding(stream: ByteStream, queue: SendQueue, has_channel: bool) -> Self {
        let forwarding = Forwarding {
            place: Cell::default(),
            has_channel,
            is_holding: Cell::new(false),
            close: RefCell::default(),
            awaits_pong: Cell::new(false),
        };
        // Its own decoder reads nothing.
        Self { forwarding: Some(Box::new(forwarding)), ..Self::new(stream, 0, queue) }
    }

    /// Registers the task of `cx` as the one that drives this socket, and writes what waits. Returns whether the
    /// connection goes on.
    pub fn poll_output(&self, cx: &mut Context<'_>) -> bool {
        self.driving_task.set(cx);
        if self.is_broken.get() || self.poll_flush(cx).is_err() || self.poll_end(cx).is_err() {
            self.mark_ended();
            return false;
        }
        true
    }

    /// Makes one read. `Ready(0)` if the peer's half has ended or broken.
    pub fn poll_input(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.is_active.set(true);
                Poll::Ready(buffer.filled().len())
            }
            Poll::Ready(_) => {
                self.mark_ended();
                Poll::Ready(0)
            }
        }
    }

    /// Whether bytes wait to be written, so that no more should be forwarded.
    pub fn is_backlogged(&self) -> bool {
        !self.outbox.borrow().is_empty()
    }

    /// Whether the client is not read because its upstream takes nothing.
    pub fn set_reading_paused(&self, is_paused: bool) {
        self.is_reading_paused.set(is_paused);
    }

    /// Sends bytes of the upstream, which end at `place`.
    pub fn forward(&self, bytes: &[u8], place: Place) {
        if bytes.is_empty() || self.is_broken.get() {
            return;
        }
        self.send_frames(bytes);
        if !self.is_broken.get() {
            self.set_place(place);
        }
    }

    fn set_place(&self, place: Place) {
        let Some(forwarding) = &self.forwarding else { return };
        forwarding.place.set(place);
        if place != Place::InFrame
            && let Some(close) = forwarding.close.take()
        {
            self.outbox.borrow_mut().push_page(close);
            self.flush();
        }
        if !forwarding.has_channel {
            return;
        }
        let is_holding = place != Place::Between;
        if forwarding.is_holding.replace(is_holding) != is_holding {
            match is_holding {
                true => self.outbox.borrow_mut().hold(),
                false => self.release(),
            }
        }
    }

    /// Whether the gateway's close frame waits for the end of a forwarded frame.
    pub fn has_waiting_close(&self) -> bool {
        self.forwarding.as_ref().is_some_and(|forwarding| forwarding.close.borrow().is_some())
    }

    /// Pings the client, unless a frame is being forwarded.
    pub(super) fn ping_between_frames(&self, forwarding: &Forwarding) {
        if !forwarding.is_in_frame() {
            forwarding.awaits_pong.set(true);
            self.send(frame::encode(Opcode::Ping, PING));
        }
    }

    /// Whether a pong answers a ping of the gateway, and is not for the upstream.
    pub fn takes_pong(&self, payload: &[u8]) -> bool {
        let Some(forwarding) = &self.forwarding else { return false };
        payload == PING && forwarding.awaits_pong.replace(false)
    }

    /// Forwards the upstream's close frame. If it is the answer to the client's, the connection ends.
    pub fn forward_close(&self, frame: &[u8], close: Option<(u16, &str)>) {
        let is_answer = self.phase.get() == Phase::Answering;
        if !is_answer && !self.is_open() {
            return;
        }
        self.drop_held();
        self.outbox.borrow_mut().push_page(Bytes::copy_from_slice(frame));
        if is_answer {
            self.linger();
        } else {
            self.set_end(ConnectionEnd::ByUpstream(close.map(|(code, _)| code)));
            self.keep_end_text(close.map_or("", |(_, text)| text));
            self.await_close();
        }
        self.flush();
        self.wake();
    }

    /// The client sent a close frame, which is for the upstream to answer.
    pub fn client_closed(&self, close: Option<(u16, &str)>) {
        if self.is_open() {
            self.set_end(ConnectionEnd::ByPeer(close.map(|(code, _)| code)));
            self.keep_end_text(close.map_or("", |(_, text)| text));
            self.await_answer();
        } else {
            self.linger();
            self.wake();
        }
    }

    /// Answers the client's close frame in the upstream's place, and ends the connection.
    pub fn answer_close(&self) {
        let answer = match self.end() {
            Some(ConnectionEnd::ByPeer(Some(code))) => frame::close(code, ""),
            _ => frame::encode(Opcode::Close, b""),
        };
        self.forward_close(&answer, None);
    }

    /// The upstream is gone without a close frame: so is the client's connection, after what has been forwarded.
    pub fn cut(&self) {
        if self.is_open() {
            self.set_end(ConnectionEnd::UpstreamLost);
        }
        self.drop_held();
        self.linger();
        self.flush();
        self.wake();
    }

    /// Whether the client's close frame is still to come.
    pub fn awaits_close(&self) -> bool {
        self.phase.get() == Phase::Closing
    }

    /// Whether bytes of the upstream still go to the client.
    pub fn takes_frames(&self) -> bool {
        self.is_open() || self.phase.get() == Phase::Answering || self.has_waiting_close()
    }

    /// Counts a frame that came instead of the peer's close frame.
    pub fn count_late_frame(&self) {
        self.count_frame_to_close();
    }

    /// Counts bytes that are not used any more.
    pub fn count_discarded(&self, bytes: usize) {
        self.discard(bytes);
    }

    /// Publications that wait cannot be sent any more.
    fn drop_held(&self) {
        self.outbox.borrow_mut().release_all();
    }
}
