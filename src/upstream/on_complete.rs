//! Posts replies that have ended to the URL of `on_complete`, at least once: again until an answer decides, for a bounded
//! number of times.
//!
//! What waits is bounded by count and bytes, for each upstream of the process; what does not fit is dropped, which is
//! logged and counted. A post belongs to no connection and holds nothing of a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::dialect::Collected;
use super::ended_reply::EndedReply;
use super::http::{IDEMPOTENCY_KEY, NOT_IN_HEADER, X_REQUEST_ID, describe};
use super::kept::{KeptBytes, KeptShare, MAX_RUNNING_BYTES};
use super::{NO_RESPONSE, deadline_after, response, signature};
use crate::config::{self, Include};
use crate::http_client::{self, HttpClient};
use crate::shutdown::Shutdown;
use crate::telemetry::on_complete::{PostEnd, PostMetrics};

/// The most replies that wait to be taken, and their bytes.
const MAX_WAITING: usize = 1024;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The most posts in flight at once, so that a receiver that comes back is not flooded.
const MAX_IN_FLIGHT: usize = 16;

/// How often and how long a reply is posted before it is given up.
const MAX_ATTEMPTS: u32 = 20;
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// The pause after the first attempt, which doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that `Retry-After` can ask for.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(120);
/// The longest pause during a drain.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// How much of an answer is read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What all threads share of one upstream's `on_complete`.
pub(super) struct OnComplete {
    config: config::OnComplete,
    pub tls: Arc<ClientConfig>,
    metrics: PostMetrics,
    waiting: AtomicUsize,
    in_flight: Semaphore,
    /// What running replies have said so far.
    running: KeptBytes,
    /// The replies that wait to be taken.
    ended: KeptBytes,
}

impl OnComplete {
    pub fn new(upstream: &str, config: &config::OnComplete) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            tls: http_client::tls_config(config.url.scheme() == "https")?,
            config: config.clone(),
            metrics: PostMetrics::new(upstream),
            waiting: AtomicUsize::new(0),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            running: KeptBytes::new(MAX_RUNNING_BYTES),
            ended: KeptBytes::new(MAX_BYTES),
        }))
    }

    /// The client of one thread.
    pub fn client(&self) -> HttpClient {
        http_client::new(&self.tls, self.config.timeout, MAX_IN_FLIGHT)
    }
}

/// Posts the replies of one upstream, from one thread.
#[derive(Clone)]
pub struct ReplyPoster {
    pub(super) shared: Arc<OnComplete>,
    pub(super) client: HttpClient,
}

impl ReplyPoster {
    /// What is collected of a running reply, up to `max_bytes` of each kind.
    pub fn collected(&self, max_bytes: usize) -> Collected {
        let has_reasoning = self.includes(Include::Reasoning);
        Collected { max_bytes, has_reasoning, share: Some(self.shared.running.share()) }
    }

    /// Returns room for this many bytes that a running reply keeps; `None` = there is none.
    pub fn keep(&self, bytes: usize) -> Option<KeptShare> {
        let mut share = self.shared.running.share();
        share.grow(bytes).then_some(share)
    }

    pub fn includes(&self, what: Include) -> bool {
        self.shared.config.include.contains(&what)
    }

    /// Posts a reply on a task of its own. A drain waits for it, and ends it after `stops_after`.
    pub fn post(self, reply: &EndedReply<'_>, shutdown: &Shutdown, stops_after: Duration) {
        let name = ReplyName { channel: reply.channel.into(), task_id: reply.task_id.into() };
        let metrics = &self.shared.metrics;
        let body = match serde_json::to_vec(reply) {
            Ok(body) => Bytes::from(body),
            // Nothing in it is known to cause this.
            Err(error) => {
                return metrics.not_posted(
                    &name.channel,
                    &name.task_id,
                    PostEnd::Dropped,
                    0,
                    &error.to_string(),
                );
            }
        };
        let Some(place) = Place::take(&self.shared, body.len()) else {
            let why = "too many replies wait to be posted";
            return metrics.not_posted(&name.channel, &name.task_id, PostEnd::Dropped, 0, why);
        };
        let post = Post {
            poster: self,
            name,
            body,
            shutdown: shutdown.clone(),
            stops_after,
            _place: place,
            _tracked: shutdown.track(),
        };
        tokio::spawn(post.run());
    }
}

/// Counts a reply among those that wait, until it is dropped.
struct Place {
    shared: Arc<OnComplete>,
    _bytes: KeptShare,
}

impl Place {
    fn take(shared: &Arc<OnComplete>, bytes: usize) -> Option<Self> {
        let mut share = shared.ended.share();
        if !share.grow(bytes) {
            return None;
        }
        let waiting = shared.waiting.fetch_add(1, Ordering::Relaxed);
        shared.metrics.waiting(1.0);
        let place = Self { shared: Arc::clone(shared), _bytes: share };
        // A place that is not given is given back.
        (waiting < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.waiting(-1.0);
    }
}

/// Which reply it is, for the log and the headers.
struct ReplyName {
    channel: Box<str>,
    task_id: Box<str>,
}

/// A reply on its way.
struct Post {
    poster: ReplyPoster,
    name: ReplyName,
    body: Bytes,
    shutdown: Shutdown,
    stops_after: Duration,
    _place: Place,
    _tracked: TaskTrackerToken,
}

/// What came of one attempt; a text says what went wrong.
enum Attempt {
    Taken,
    Rejected(String),
    Failed { reason: String, retry_after: Option<Duration> },
}

impl Post {
    async fn run(self) {
        let (end, attempts, reason) = tokio::select! {
            ended = self.post_until_decided() => ended,
            () = self.drain_deadline() => {
                self.shutdown.record_early_end();
                (PostEnd::Abandoned, 0, "the gateway is stopping".to_owned())
            }
        };
        let ReplyName { channel, task_id } = &self.name;
        let metrics = &self.poster.shared.metrics;
        match end {
            PostEnd::Taken => metrics.posted(channel, task_id, attempts),
            end => metrics.not_posted(channel, task_id, end, attempts, &reason),
        }
    }

    async fn post_until_decided(&self) -> (PostEnd, u32, String) {
        let began = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (reason, retry_after) = match self.attempt(attempts).await {
                Attempt::Taken => return (PostEnd::Taken, attempts, String::new()),
                Attempt::Rejected(reason) => return (PostEnd::Rejected, attempts, reason),
                Attempt::Failed { reason, retry_after } => (reason, retry_after),
            };
            let pause = pause(attempts, retry_after);
            if attempts == MAX_ATTEMPTS || began.elapsed() + pause > MAX_AGE {
                return (PostEnd::GivenUp, attempts, reason);
            }
            self.record_retry(attempts, &reason);
            self.wait(pause).await;
        }
    }

    fn record_retry(&self, attempts: u32, reason: &str) {
        let ReplyName { channel, task_id } = &self.name;
        self.poster.shared.metrics.retried(channel, task_id, attempts, reason);
    }

    /// A drain shortens the pause: there may be no time for another attempt after it.
    async fn wait(&self, pause: Duration) {
        if !self.shutdown.is_draining() {
            tokio::select! {
                () = sleep(pause) => return,
                () = self.shutdown.draining() => {}
            }
        }
        sleep(pause.min(DRAIN_PAUSE)).await;
    }

    async fn attempt(&self, number: u32) -> Attempt {
        let ReplyPoster { shared, client } = &self.poster;
        // It is never closed. Who waits for it has no deadline of its own: each that is in flight has one.
        let _permit = shared.in_flight.acquire().await;
        let deadline = deadline_after(shared.config.timeout);
        let failed = |reason| Attempt::Failed { reason, retry_after: None };
        let request = match self.request() {
            Ok(request) => request,
            Err(reason) => return Attempt::Rejected(reason),
        };
        let sent = match timeout_at(deadline, client.request(request)).await {
            // The receiver closed an idle connection just now. It knows the reply by its key, if it has it already.
            Ok(Err(error)) if http_client::was_closed_while_idle(&error) => {
                self.record_retry(number, &describe(&error));
                match self.request() {
                    Ok(again) => {
                        timeout_at(deadline, client.request_on_new_connection(again)).await
                    }
                    Err(reason) => return Attempt::Rejected(reason),
                }
            }
            sent => sent,
        };
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(describe(&error)),
            Err(_) => return failed(NO_RESPONSE.to_owned()),
        };
        let status = response.status();
        let retry_after = response::retry_after(response.headers()).map(Duration::from_secs);
        // What it says does not matter, nor whether all of it comes.
        let _ = timeout_at(deadline, http_client::read_body(response, MAX_ANSWER_BYTES)).await;
        match status {
            status if status.is_success() => Attempt::Taken,
            status if is_final(status) => Attempt::Rejected(format!("answered {status}")),
            status => Attempt::Failed { reason: format!("answered {status}"), retry_after },
        }
    }

    /// Each attempt is signed for itself, because a signature has a time.
    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let config = &self.poster.shared.config;
        let task_id = percent_encoding::utf8_percent_encode(&self.name.task_id, NOT_IN_HEADER);
        let task_id = task_id.to_string();
        let mut request = Request::post(config.url.as_str())
            .header(IDEMPOTENCY_KEY, &task_id)
            .header(X_REQUEST_ID, &task_id);
        if let Some(secret) = &config.signing_secret {
            request = request.header(signature::HEADER, signature::sign(secret, &self.body));
        }
        let request = request.body(Full::new(self.body.clone()));
        let mut request = request.map_err(|error| format!("invalid request: {error}"))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(http_client::USER_AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &config.headers {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }

    /// Completes when a drain has no more time for this.
    async fn drain_deadline(&self) {
        self.shutdown.draining().await;
        sleep(self.stops_after).await;
    }
}

/// Whether a receiver that answers this would not take the same reply later either.
fn is_final(status: StatusCode) -> bool {
    let is_transient = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    !(status.is_server_error() || is_transient)
}

/// The time until the next attempt, half of it random, so that those that failed together do not come together.
fn pause(attempts: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1)));
    let pause = doubled.min(LONGEST_PAUSE);
    let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    let pause = pause.mul_f64(0.5 + random / 2.0);
    pause.max(retry_after.unwrap_or_default().min(LONGEST_ASKED_PAUSE))
}

#[cfg(test)]
mod tests;
