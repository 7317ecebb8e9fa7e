//! What is posted of a reply that has ended, to the URL of `on_complete`.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Sender;
use super::message::MessageContext;
use crate::clock;
use crate::config::Route;
use crate::protocol::{ChannelName, ConnectionId, ErrorCode, EventName, Params, RequestId, UserId};
use crate::shutdown::Shutdown;
use crate::telemetry::replies::GenerationEnd;
use crate::upstream::{
    EndedReply, EndedReplyError, EndedReplyUser, ReplyOutcome, ReplyPoster, ReplySummary, Timings,
};

/// The most bytes of text that are posted, and as many of tool calls.
pub(super) const MAX_POSTED_BYTES: usize = 1024 * 1024;

/// A reply that is posted when it has ended.
pub(super) struct Post {
    poster: ReplyPoster,
    route: Arc<Route>,
    params: Arc<Params>,
    user_id: Option<UserId>,
    username: Option<Box<str>>,
    connection_id: ConnectionId,
    request_id: RequestId,
    message_id: Box<str>,
    received_at: Instant,
    first_event_at: Cell<Option<Instant>>,
    end: OnceCell<TerminalEvent>,
    is_timed_out: Cell<bool>,
}

/// What the terminal event says, which may be the upstream's own. Members of other types say nothing.
#[derive(Default)]
struct TerminalEvent {
    event: String,
    error: Option<String>,
    code: Option<String>,
    upstream_code: Option<String>,
    finish_reason: Option<String>,
}

impl TerminalEvent {
    fn read(json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Members {
            event: Option<serde_json::Value>,
            error: Option<serde_json::Value>,
            code: Option<serde_json::Value>,
            upstream_code: Option<serde_json::Value>,
            finish_reason: Option<serde_json::Value>,
        }
        let Ok(members) = serde_json::from_slice::<Members>(json) else { return Self::default() };
        let text = |value: Option<serde_json::Value>| match value {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        Self {
            event: text(members.event).unwrap_or_default(),
            error: text(members.error),
            code: text(members.code),
            upstream_code: text(members.upstream_code),
            finish_reason: text(members.finish_reason),
        }
    }
}

impl Post {
    pub fn new(
        poster: ReplyPoster,
        sender: &Sender,
        message_id: &str,
        context: &MessageContext,
    ) -> Self {
        Self {
            poster,
            route: Arc::clone(&sender.route),
            params: Arc::clone(&sender.params),
            user_id: sender.user_id.clone(),
            username: sender.username.clone(),
            connection_id: sender.connection_id,
            request_id: sender.request_id.clone(),
            message_id: message_id.into(),
            received_at: context.received_at,
            first_event_at: Cell::new(None),
            end: OnceCell::new(),
            is_timed_out: Cell::new(false),
        }
    }

    pub fn begin(&self, now: Instant) {
        if self.first_event_at.get().is_none() {
            self.first_event_at.set(Some(now));
        }
    }

    pub fn set_end(&self, json: &[u8]) {
        // If it is too large to be published, another one takes its place; but it says more.
        let _ = self.end.set(TerminalEvent::read(json));
    }

    pub fn set_timed_out(&self) {
        self.is_timed_out.set(true);
    }

    pub fn send(
        &self,
        task_id: &str,
        channel: &ChannelName,
        end: GenerationEnd,
        summary: &ReplySummary,
        shutdown: &Shutdown,
        stops_after: Duration,
    ) {
        let nothing = TerminalEvent::default();
        let terminal = self.end.get().unwrap_or(&nothing);
        let outcome = self.outcome(end, terminal);
        let is_broken = !matches!(outcome, ReplyOutcome::Completed | ReplyOutcome::Cancelled);
        let error = is_broken.then(|| EndedReplyError {
            code: terminal.code.as_deref().unwrap_or(ErrorCode::WorkerLost.label()),
            text: terminal.error.as_deref().unwrap_or(match end {
                GenerationEnd::EngineDown => "the engine was unavailable",
                GenerationEnd::Taken => "another node reported the reply as lost",
                _ => "",
            }),
            upstream_code: terminal.upstream_code.as_deref(),
        });
        let own_reason = terminal.finish_reason.as_deref();
        let reply = EndedReply {
            task_id,
            message_id: &self.message_id,
            upstream: self.route.upstream.as_deref().unwrap_or_default(),
            route: self.route.path.as_str(),
            channel: channel.as_str(),
            params: &self.params,
            user: self.user_id.as_ref().map(|id| {
                let name = self.username.as_deref();
                EndedReplyUser { id, name }
            }),
            connection_id: self.connection_id,
            request_id: &self.request_id,
            outcome,
            finish_reason: summary.finish_reason.map(|reason| reason.label()).or(own_reason),
            error,
            text: summary.text(),
            tool_calls: summary.ended_tool_calls(),
            truncated: summary.is_cut,
            usage: summary.ended_usage(),
            timings: self.timings(),
        };
        self.poster.clone().post(&reply, shutdown, stops_after);
    }

    fn outcome(&self, end: GenerationEnd, terminal: &TerminalEvent) -> ReplyOutcome {
        match end {
            GenerationEnd::Completed if terminal.event == EventName::Error.label() => {
                ReplyOutcome::Failed
            }
            GenerationEnd::Completed if terminal.event == EventName::Cancelled.label() => {
                ReplyOutcome::Cancelled
            }
            GenerationEnd::Completed => ReplyOutcome::Completed,
            GenerationEnd::TaskFailed => ReplyOutcome::Failed,
            GenerationEnd::Cancelled => ReplyOutcome::Cancelled,
            GenerationEnd::Overdue => ReplyOutcome::TimedOut,
            GenerationEnd::WorkerLost if self.is_timed_out.get() => ReplyOutcome::TimedOut,
            GenerationEnd::WorkerLost | GenerationEnd::Taken | GenerationEnd::EngineDown => {
                ReplyOutcome::Lost
            }
        }
    }

    fn timings(&self) -> Timings {
        let duration = self.received_at.elapsed();
        let now = clock::since_unix_epoch();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let first = self.first_event_at.get();
        Timings {
            received_at: clock::to_rfc3339(now.saturating_sub(duration)),
            ended_at: clock::to_rfc3339(now),
            first_event_ms: first
                .map(|first| millis(first.saturating_duration_since(self.received_at))),
            duration_ms: millis(duration),
        }
    }
}
