//! The body of a request on its way upstream. It is streamed and never buffered here.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::pace::Pace;
use crate::config::MinPace;
use crate::protocol::clean_trailers;

/// A request body that records when it makes progress. A client that sends it too slowly, or not whole, ends it with an
/// error.
pub(super) struct Upload {
    /// `None` = the request has no body.
    body: Option<Incoming>,
    pace: Pace,
    /// Checks the pace while the client sends nothing; created when it first does.
    timer: Option<Pin<Box<Sleep>>>,
    progress: Progress,
    /// Whether any of it was asked for. Until then it can be sent to another upstream.
    was_read: bool,
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
    /// A [`State`].
    state: AtomicU8,
    /// The body of a request that was dropped before it was sent; the inner `None` = it has no body.
    unsent: Mutex<Option<Option<Incoming>>>,
}

/// What a request's body is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Flowing = 0,
    /// The upstream is ready for more of the body, and the client has not sent it.
    WaitsForClient = 1,
    /// The client was too slow.
    TooSlow = 2,
    /// The client broke off, or its chunks are malformed.
    Broken = 3,
}

/// The side that a request was waiting for when its timeout expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stalled {
    Client,
    Upstream,
}

/// What the client did wrong with the body of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFault {
    TooSlow,
    Broken,
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSlow => "the client sends the request body too slowly",
            Self::Broken => "the client did not send the whole request body",
        })
    }
}

impl std::error::Error for ClientFault {}

impl Upload {
    pub fn new(body: Incoming, required: MinPace) -> (Self, Progress) {
        let progress = Progress { started: Instant::now(), shared: Arc::default() };
        let body = (!body.is_end_stream()).then_some(body);
        (Self::with(body, required, progress.clone()), progress)
    }

    fn with(body: Option<Incoming>, required: MinPace, progress: Progress) -> Self {
        Self { body, pace: Pace::new(required), timer: None, progress, was_read: false }
    }

    /// The body of a request that has none.
    pub fn empty(required: MinPace) -> Self {
        let progress = Progress { started: Instant::now(), shared: Arc::default() };
        Self::with(None, required, progress)
    }

    fn fail(&self, fault: ClientFault) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        self.progress.set(match fault {
            ClientFault::TooSlow => State::TooSlow,
            ClientFault::Broken => State::Broken,
        });
        Poll::Ready(Some(Err(fault)))
    }

    /// The client must send before there is more. Whether it is too slow; if not, the task is woken to check again.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Some(check) = self.pace.wait(Instant::now()) else { return true };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(check)));
            if timer.deadline() != check {
                timer.as_mut().reset(check);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.was_read {
            *self.progress.unsent() = Some(self.body.take());
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = ClientFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        self.was_read = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match polled {
            Poll::Pending => {
                self.progress.set(State::WaitsForClient);
                match self.poll_too_slow(cx) {
                    true => self.fail(ClientFault::TooSlow),
                    false => Poll::Pending,
                }
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.pace.moved(Instant::now(), bytes);
                self.progress.record();
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.fail(ClientFault::Broken),
            Poll::Ready(None) => {
                self.progress.record();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Progress {
    /// The lock is held for an assignment only.
    fn unsent(&self) -> MutexGuard<'_, Option<Option<Incoming>>> {
        self.shared.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the body of a request that was dropped before any of it was sent. `None` = some of it may have been sent.
    pub fn take_unsent(&self, required: MinPace) -> Option<Upload> {
        let body = self.unsent().take()?;
        Some(Upload::with(body, required, self.clone()))
    }

    fn set(&self, state: State) {
        self.shared.state.store(state as u8, Ordering::Relaxed);
    }

    fn is(&self, state: State) -> bool {
        self.shared.state.load(Ordering::Relaxed) == state as u8
    }

    fn record(&self) {
        self.set(State::Flowing);
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.last_progress_ms.store(since, Ordering::Relaxed);
    }

    /// What the client did wrong, if that is why the request failed.
    pub fn client_fault(&self) -> Option<ClientFault> {
        if self.is(State::TooSlow) {
            Some(ClientFault::TooSlow)
        } else {
            self.is(State::Broken).then_some(ClientFault::Broken)
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
        if self.is(State::WaitsForClient) { Stalled::Client } else { Stalled::Upstream }
    }
}
