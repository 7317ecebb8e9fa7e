//! A request's body on its way upstream. Nothing of it is held here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Milliseconds from [`Progress::started`].
    moved: AtomicU64,
    /// The upstream would take more, and the client has not sent it.
    waits_for_client: AtomicBool,
}

/// Whom a request waited for when it stopped moving.
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
        self.progress.note(polled.is_ready());
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
    fn note(&self, moved: bool) {
        self.shared.waits_for_client.store(!moved, Ordering::Relaxed);
        if moved {
            let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.shared.moved.store(since, Ordering::Relaxed);
        }
    }

    /// Completes when nothing has moved for `timeout`.
    pub async fn stalled(&self, timeout: Duration) -> Stalled {
        loop {
            let moved = Duration::from_millis(self.shared.moved.load(Ordering::Relaxed));
            let left = moved.saturating_add(timeout).saturating_sub(self.started.elapsed());
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
