//! A request's body on its way upstream. Nothing of it is held here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// Passes a body on and notes when it moves.
pub(super) struct Upload {
    body: Incoming,
    progress: Progress,
}

/// When the request last moved.
#[derive(Clone)]
pub(super) struct Progress {
    started: Instant,
    /// Milliseconds from `started`.
    moved: Arc<AtomicU64>,
}

impl Upload {
    pub fn new(body: Incoming) -> (Self, Progress) {
        let progress = Progress { started: Instant::now(), moved: Arc::default() };
        (Self { body, progress: progress.clone() }, progress)
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
            self.progress.note();
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

impl Progress {
    fn note(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(since, Ordering::Relaxed);
    }

    /// Completes when nothing has moved for `timeout`: neither side sends, or the upstream does not read.
    pub async fn stalled(&self, timeout: Duration) {
        loop {
            let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
            let left = moved.saturating_add(timeout).saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
