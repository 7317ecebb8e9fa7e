//! The body of a request on its way upstream. It is streamed and never buffered here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// A request body that records when it makes progress.
pub(super) struct Upload {
    body: Incoming,
    progress: Progress,
}

/// The time of a request's last progress.
#[derive(Clone)]
pub(super) struct Progress {
    started: Instant,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The last progress, in milliseconds since [`Progress::started`].
    last_progress_ms: AtomicU64,
    /// The upstream is ready for more of the body, and the client has not sent it.
    waits_for_client: AtomicBool,
}

/// The side that a request was waiting for when its timeout expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stalled {
    Client,
    Upstream,
}

impl Upload {
    pub fn new(body: Incoming) -> (Self, Progress) {
        let progress = Progress { started: Instant::now(), shared: Arc::default() };
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
        self.progress.record(polled.is_ready());
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
    fn record(&self, has_progress: bool) {
        self.shared.waits_for_client.store(!has_progress, Ordering::Relaxed);
        if has_progress {
            let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.shared.last_progress_ms.store(since, Ordering::Relaxed);
        }
    }

    /// Completes when there was no progress for `timeout`.
    pub async fn stalled(&self, timeout: Duration) -> Stalled {
        loop {
            let last = Duration::from_millis(self.shared.last_progress_ms.load(Ordering::Relaxed));
            let left = last.saturating_add(timeout).saturating_sub(self.started.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
        }
        if self.shared.waits_for_client.load(Ordering::Relaxed) {
            Stalled::Client
        } else {
            Stalled::Upstream
        }
    }
}
