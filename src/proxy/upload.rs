//! A request's body on its way upstream, and when it last moved. An upload may take longer than the
//! upstream may take to answer; only one that stands still is given up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

/// Passes everything through and notes each step.
pub(super) struct Upload {
    body: Incoming,
    progress: Progress,
}

/// When the body last moved.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

/// Neither the body moved nor an answer came for as long as the upstream may take.
pub(super) struct TimedOut;

impl Upload {
    pub fn new(body: Incoming) -> (Self, Progress) {
        let progress = Progress(Arc::new(Mutex::new(Instant::now())));
        (Self { body, progress: progress.clone() }, progress)
    }
}

impl Progress {
    /// `answer`'s value, if it comes within `timeout` of the body's last step.
    pub async fn within<T>(
        &self,
        timeout: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let moved = self.last();
            match timeout_at(moved + timeout, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.last() == moved => return Err(TimedOut),
                Err(_) => {}
            }
        }
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.step();
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
