//! What the byte stream of a connection must know of the requests on it: whether a request is being answered, and what
//! of it is still to come.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::Request;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use crate::proxy::InterimResponses;

/// Why the gateway itself ends a connection in its HTTP phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A request head did not arrive in time.
    HeadTimeout,
    /// The client takes the response too slowly.
    TooSlow,
    /// The client sends nothing more, and the response has stopped.
    Gone,
}

/// The state of the current request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// From the head of a request to the last byte of its response.
    is_responding: Cell<bool>,
    /// The response exists, but need not be written yet.
    is_answered: Cell<bool>,
    /// The response has no more bytes.
    is_complete: Cell<bool>,
    /// The length of the request's body, if it is known.
    body_bytes: Cell<Option<u64>>,
    /// The response is an upgrade whose session sends it with its first frame.
    is_held: Cell<bool>,
    /// The current request was there before the previous one was answered.
    is_pipelined: Cell<bool>,
    /// The bytes that were read behind the request's head.
    read_behind_head: Cell<u64>,
    /// Whether the request target has a fragment.
    has_fragment: Cell<bool>,
    interim: RefCell<Option<InterimResponses>>,
    /// The status of an error response of the HTTP library, which the gateway replaces.
    library_error: Cell<Option<u16>>,
    fault: Cell<Option<Fault>>,
    /// Notified when the client has ended its half of the connection.
    half_closed: Notify,
    /// The client has ended its half, or nobody uses the connection any longer.
    is_over: Cell<bool>,
}

impl Exchange {
    /// A request has arrived.
    pub fn begin<B: Body>(&self, request: &Request<B>) {
        self.is_responding.set(true);
        self.is_answered.set(false);
        self.is_complete.set(false);
        self.body_bytes.set(request.body().size_hint().exact());
        self.interim.take();
    }

    /// Passes on the interim responses that are collected there.
    pub fn expect_interim(&self, interim: InterimResponses) {
        *self.interim.borrow_mut() = Some(interim);
    }

    /// The session that follows sends the response.
    pub fn hold_response(&self) {
        self.is_held.set(true);
    }

    /// Whether the response is kept instead of written.
    pub fn is_held(&self) -> bool {
        self.is_held.get()
    }

    /// The request has its response.
    pub fn answered(&self) {
        self.is_answered.set(true);
    }

    /// Everything is written. Returns whether bytes of the next request have been read already; `None` = the response
    /// is not complete.
    pub fn finish(&self) -> Option<bool> {
        if !self.is_responding.get() || !self.is_complete.get() {
            return None;
        }
        self.is_responding.set(false);
        self.has_fragment.set(false);
        let behind = self.read_behind_head.replace(0);
        let has_next = self.body_bytes.get().is_some_and(|length| behind > length);
        self.is_pipelined.set(has_next);
        Some(has_next)
    }

    /// Lets other tasks of the thread run before a request that has not waited for its turn. Otherwise the library would
    /// answer many requests of one client in a row, and a flood of them would keep all others waiting.
    pub async fn take_turn(&self) {
        if self.is_pipelined.replace(false) {
            tokio::task::yield_now().await;
        }
    }

    pub fn is_responding(&self) -> bool {
        self.is_responding.get()
    }

    pub fn is_answered(&self) -> bool {
        self.is_answered.get()
    }

    pub fn add_behind_head(&self, bytes: usize) {
        self.read_behind_head.set(self.read_behind_head.get() + bytes as u64);
    }

    pub fn set_fragment(&self, has_fragment: bool) {
        self.has_fragment.set(has_fragment);
    }

    /// Whether the target of the current request has a fragment.
    pub fn has_fragment(&self) -> bool {
        self.has_fragment.get()
    }

    /// Takes the interim responses that have come.
    pub fn take_interim(&self, cx: &Context<'_>) -> Vec<u8> {
        self.interim.borrow().as_ref().map(|interim| interim.take(cx.waker())).unwrap_or_default()
    }

    pub fn set_library_error(&self, response: &[u8]) {
        let status =
            response.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        if self.library_error.get().is_none() {
            self.library_error.set(status);
        }
    }

    pub fn library_error(&self) -> Option<u16> {
        self.library_error.get()
    }

    /// The client has ended its half.
    pub fn set_half_closed(&self) {
        self.half_closed.notify_one();
    }

    /// Completes when the client has ended its half of the connection, so that it cannot want a WebSocket any more.
    pub async fn half_closed(&self) {
        self.half_closed.notified().await;
    }

    pub fn set_fault(&self, fault: Fault) {
        self.fault.set(Some(fault));
    }

    pub fn set_over(&self) {
        self.is_over.set(true);
    }

    /// Whether nothing more is expected from the client.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }
}

/// The body of a response. Its end is the end of the response.
pub(super) struct ResponseBody<B> {
    body: B,
    exchange: Rc<Exchange>,
}

impl<B> ResponseBody<B> {
    pub fn new(body: B, exchange: Rc<Exchange>) -> Self {
        Self { body, exchange }
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.exchange.is_complete.set(true);
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
