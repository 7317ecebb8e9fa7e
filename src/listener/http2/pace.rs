//! How fast a client must take the response on a stream. One that does not is reset; the connection's other streams
//! go on.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::OpenStream;
use crate::config::MinPace;
use crate::proxy::Pace;

/// The pace of one response.
pub(super) struct StreamPace {
    pace: RefCell<Pace>,
    /// How many bytes the client has been given, and not taken as far as is known. `None` = nothing waits for it.
    given: Cell<Option<usize>>,
    required: MinPace,
}

impl StreamPace {
    pub fn new(required: MinPace) -> Self {
        Self { pace: RefCell::new(Pace::new(required)), given: Cell::default(), required }
    }

    /// Completes when the client is too slow.
    pub async fn too_slow(&self) {
        loop {
            let now = Instant::now();
            let next = match self.given.get() {
                None => Some(now + self.required.timeout),
                Some(_) => self.pace.borrow_mut().wait(now),
            };
            match next {
                None => return,
                Some(at) => tokio::time::sleep_until(at).await,
            }
        }
    }

    /// The library takes a part of the response only when there is room for it, so that the one before is under way.
    fn taken(&self) {
        if let Some(bytes) = self.given.take() {
            self.pace.borrow_mut().moved(Instant::now(), bytes);
        }
    }

    fn give(&self, bytes: usize) {
        self.given.set(Some(bytes));
        // The wait begins now. Whether it is too long is asked later.
        let _ = self.pace.borrow_mut().wait(Instant::now());
    }
}

/// A response whose parts are counted.
pub(super) struct PacedBody<B> {
    body: B,
    pace: Rc<StreamPace>,
    /// Dropped with the response. `None` = the stream goes on as a WebSocket.
    _stream: Option<OpenStream>,
}

impl<B> PacedBody<B> {
    pub fn new(body: B, pace: Rc<StreamPace>, stream: Option<OpenStream>) -> Self {
        Self { body, pace, _stream: stream }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PacedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.pace.taken();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.pace.give(frame.data_ref().map_or(0, |data| data.remaining()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
