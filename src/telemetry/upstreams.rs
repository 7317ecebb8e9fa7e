//! Upstreams: requests, replies and retries.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hyper::header::HeaderValue;
use metrics::{Counter, Gauge, Histogram, SharedString};
use tracing::{debug, info, warn};

use super::definitions::{self, Configured, UPSTREAM, buckets, metrics, millis, words};
use super::log::{ConnectionFields, MessageFields, connection_event, message_event};
use crate::protocol::{ChannelName, Dialect, label_enum};

metrics! {
    /// Requests to upstreams, by outcome.
    REQUESTS = counter "tidegate_upstream_requests_total" [
        upstream: UPSTREAM,
        outcome: words(&[RequestOutcome::LABELS]),
    ];
    /// Replies that upstreams streamed, by how they ended.
    REPLIES = counter "tidegate_upstream_replies_total" [
        upstream: UPSTREAM,
        outcome: words(&[ReplyEnd::LABELS]),
    ];
    /// Requests that were sent again.
    RETRIES = counter "tidegate_upstream_retries_total" [upstream: UPSTREAM];
    /// Answers whose body does not look like their Content-Type, so that no reply is read from it.
    CONTENT_TYPE_MISMATCHES = counter "tidegate_upstream_content_type_mismatches_total" [upstream: UPSTREAM];
    /// Time from a relayed message to the upstream's answer.
    SECONDS = histogram "tidegate_upstream_request_seconds" [upstream: UPSTREAM] in buckets::REQUEST;
    /// Messages, replies and sockets in flight.
    IN_FLIGHT = gauge "tidegate_upstream_in_flight" [upstream: UPSTREAM];
}

label_enum! {
    /// What became of a request to an upstream.
    pub enum RequestOutcome {
        /// The upstream accepted it, or its socket is open.
        Taken => "taken",
        /// The upstream accepted it, and the reply streams in the response.
        Streaming => "streaming",
        /// The upstream is overloaded by its own account.
        Busy => "busy",
        Rejected => "rejected",
        /// It cannot be reached, did not answer in time, or a gateway in front of it answered 502, 503 or 504.
        Unavailable => "unavailable",
        /// It answered that it failed, with another 5xx or a status without a meaning here.
        Failed => "failed",
        /// It answered with a redirect, which is not followed.
        Redirected => "redirected",
        /// The head of its answer is too large.
        HeadTooLarge => "head_too_large",
        /// Its answer is not HTTP/1.1.
        Malformed => "malformed",
        /// It was not sent, because `max_in_flight` was reached.
        Full => "full",
        /// It was not sent, because its client holds its share of `max_in_flight` or of the queue.
        ShareFull => "share_full",
        /// It was not sent, because the circuit is open.
        CircuitOpen => "circuit_open",
    }
}

label_enum! {
    /// How a streamed reply ended.
    pub enum ReplyEnd {
        Complete => "complete",
        Lost => "lost",
        TooLarge => "too_large",
        TooLong => "too_long",
        /// Nothing came for `stream_idle_timeout`.
        Silent => "silent",
        /// Its content encoding is unknown, or does not fit its bytes.
        Unreadable => "unreadable",
        /// The upstream said in its stream that it failed.
        Failed => "failed",
        /// The upstream said in its stream that it was stopped.
        Aborted => "aborted",
        /// It is not what its dialect says.
        Malformed => "malformed",
        /// The gateway stopped reading it.
        GivenUp => "given_up",
    }
}

/// The upstream of a pass route broke RFC 6455, for which both sides are closed.
pub fn upstream_broke_protocol(fields: ConnectionFields<'_>) {
    connection_event!(
        warn,
        fields,
        event = "upstream_broke_protocol",
        "an upstream broke the WebSocket protocol"
    );
}

/// The upstream of a pass route has taken nothing of what waits for it.
pub fn upstream_stalled(fields: ConnectionFields<'_>, stalled: Duration) {
    let stalled_ms = millis(stalled);
    connection_event!(
        warn,
        fields,
        event = "upstream_stalled",
        stalled_ms,
        "an upstream takes nothing of what its client sends"
    );
}

/// The metrics of one upstream, whose series are looked up once.
pub struct UpstreamMetrics {
    name: Box<str>,
    /// In the order of [`RequestOutcome::ALL`].
    requests: Box<[Counter]>,
    /// In the order of [`ReplyEnd::ALL`].
    replies: Box<[Counter]>,
    retries: Counter,
    seconds: Histogram,
    in_flight: Gauge,
    content_type_mismatches: Counter,
    /// Whether a wrong `Content-Type` was reported.
    is_mismatch_reported: AtomicBool,
    /// A bit for each dialect that was found in its replies.
    dialects_found: AtomicU32,
}

impl UpstreamMetrics {
    pub fn new(name: &str) -> Self {
        definitions::register_configured(METRICS, Configured::Upstream, name);
        let upstream = SharedString::from(name.to_owned());
        let request = |outcome: &&'static str| REQUESTS.at([upstream.clone(), (*outcome).into()]);
        let reply = |end: &&'static str| REPLIES.at([upstream.clone(), (*end).into()]);
        Self {
            name: name.into(),
            requests: RequestOutcome::LABELS.iter().map(request).collect(),
            replies: ReplyEnd::LABELS.iter().map(reply).collect(),
            retries: RETRIES.at([upstream.clone()]),
            seconds: SECONDS.at([upstream.clone()]),
            in_flight: IN_FLIGHT.at([upstream.clone()]),
            content_type_mismatches: CONTENT_TYPE_MISMATCHES.at([upstream.clone()]),
            is_mismatch_reported: AtomicBool::new(false),
            dialects_found: AtomicU32::new(0),
        }
    }

    /// The upstream's name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request was answered, or failed; `took` includes its retries.
    pub fn request_finished(
        &self,
        fields: MessageFields<'_>,
        outcome: RequestOutcome,
        took: Duration,
    ) {
        self.requests[outcome as usize].increment(1);
        self.seconds.record(took.as_secs_f64());
        let (upstream, outcome) = (&*self.name, outcome.label());
        let took_ms = millis(took);
        message_event!(
            debug,
            fields,
            event = "upstream_asked",
            upstream,
            outcome,
            took_ms,
            "a request to an upstream has finished"
        );
    }

    /// A request was not sent.
    pub fn request_not_sent(&self, fields: MessageFields<'_>, outcome: RequestOutcome) {
        self.requests[outcome as usize].increment(1);
        let (upstream, outcome) = (&*self.name, outcome.label());
        message_event!(
            debug,
            fields,
            event = "upstream_not_asked",
            upstream,
            outcome,
            "a request to an upstream was not sent"
        );
    }

    /// A request failed because the upstream is unavailable. The circuit opens after a few of them, which also
    /// bounds these lines.
    pub fn request_failed(&self, fields: MessageFields<'_>, reason: &str) {
        let upstream = &*self.name;
        message_event!(
            warn,
            fields,
            event = "upstream_failed",
            upstream,
            reason,
            "an upstream is unavailable"
        );
    }

    /// A request is sent again with the same idempotency key.
    pub fn request_retried(&self, fields: MessageFields<'_>, reason: &str) {
        self.retries.increment(1);
        let upstream = &*self.name;
        message_event!(
            info,
            fields,
            event = "upstream_retried",
            upstream,
            reason,
            "sending a request to an upstream again"
        );
    }

    /// The body of an answer cannot be read, because of its content encoding.
    pub fn body_unreadable(&self, reason: &str) {
        let upstream = &*self.name;
        warn!(
            event = "upstream_body_unreadable",
            upstream, reason, "failed to read the body of an upstream's answer"
        );
    }

    /// A body is not what its `Content-Type` says, so that no reply was read from it. Logged once for each upstream.
    pub fn content_type_mismatched(&self, declared: Option<&HeaderValue>, looks_like: &str) {
        self.content_type_mismatches.increment(1);
        if self.is_mismatch_reported.swap(true, Ordering::Relaxed) {
            return;
        }
        let upstream = &*self.name;
        let declared = declared.map_or("none".into(), |it| String::from_utf8_lossy(it.as_bytes()));
        let content_type: String = declared.chars().take(100).collect();
        warn!(
            event = "upstream_content_type",
            upstream,
            content_type,
            looks_like,
            "a body is not what its Content-Type says, so it is not read as a reply; the upstream must declare its type"
        );
    }

    /// The dialect of a reply was found out. Reported once for each.
    pub fn dialect_found(&self, dialect: Dialect) {
        let bit = 1 << dialect as u32;
        if self.dialects_found.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        info!(
            event = "upstream_dialect_found",
            upstream = &*self.name,
            dialect = dialect.label(),
            "found out which dialect an upstream streams in"
        );
    }

    /// A streamed reply has ended.
    pub fn reply_ended(&self, channel: &ChannelName, task_id: &str, end: ReplyEnd) {
        self.replies[end as usize].increment(1);
        let (upstream, outcome) = (&*self.name, end.label());
        let channel = channel.as_str();
        debug!(
            event = "upstream_reply_ended",
            channel, task_id, upstream, outcome, "a streamed reply has ended"
        );
    }

    /// A request, a streamed reply or a socket counts as in flight.
    pub fn in_flight_started(&self) {
        self.in_flight.increment(1.0);
    }

    /// A request, a streamed reply or a socket is no longer in flight.
    pub fn in_flight_ended(&self) {
        self.in_flight.decrement(1.0);
    }
}
