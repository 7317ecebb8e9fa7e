//! What is posted of a reply that has ended, to the URL of `on_complete`.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Sender;
use super::message::MessageContext;
use crate::clock;
use crate::config::Include;
use crate::generations::PostRecord;
use crate::protocol::{ChannelName, ErrorCode, EventName};
use crate::shutdown::Shutdown;
use crate::telemetry::replies::GenerationEnd;
use crate::upstream::{
    Collected, EndedReply, EndedReplyError, EndedReplyUser, KeptShare, ReplyOutcome, ReplyPoster,
    ReplySummary, Timings,
};

/// The most bytes of text that are posted, and as many of thoughts and of tool calls.
pub(super) const MAX_POSTED_BYTES: usize = 1024 * 1024;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A reply that is posted when it has ended.
pub(super) struct Post {
    poster: ReplyPoster,
    /// The path pattern.
    route: Box<str>,
    record: Box<PostRecord>,
    /// The client's object, if it is posted, and its share of what is kept.
    message: Option<(Box<RawValue>, KeptShare)>,
    /// Whether the client's object had no room.
    is_message_cut: bool,
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
        let received = clock::since_unix_epoch().saturating_sub(context.received_at.elapsed());
        let record = Box::new(PostRecord {
            upstream: sender.upstream().to_owned(),
            message_id: message_id.to_owned(),
            user_id: sender.user_id.clone(),
            username: sender.username.clone(),
            params: sender.params.clone(),
            connection_id: sender.connection_id,
            request_id: sender.request_id.to_string(),
            received_ms: millis(received),
        });
        Self::of_record(poster, sender.route.path.as_str(), record, context.received_at)
    }

    /// The post of a reply that another node has begun.
    pub fn of_record(
        poster: ReplyPoster,
        route: &str,
        record: Box<PostRecord>,
        received_at: Instant,
    ) -> Self {
        Self {
            poster,
            route: route.into(),
            record,
            message: None,
            is_message_cut: false,
            received_at,
            first_event_at: Cell::new(None),
            end: OnceCell::new(),
            is_timed_out: Cell::new(false),
        }
    }

    /// Keeps the client's object, if it is to be posted and has room.
    pub fn with_message(mut self, data: &RawValue) -> Self {
        if self.poster.includes(Include::Message) {
            let share = self.poster.keep(data.get().len());
            self.is_message_cut = share.is_none();
            self.message = share.map(|share| (data.to_owned(), share));
        }
        self
    }

    /// What another node needs to post the reply.
    pub fn record(&self) -> Box<PostRecord> {
        self.record.clone()
    }

    /// What is collected of the reply.
    pub fn collected(&self) -> Collected {
        self.poster.collected(MAX_POSTED_BYTES)
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
        let record = &*self.record;
        let own_reason = terminal.finish_reason.as_deref();
        let reply = EndedReply {
            task_id,
            message_id: &record.message_id,
            upstream: &record.upstream,
            route: &self.route,
            channel: channel.as_str(),
            params: &record.params,
            user: record.user_id.as_ref().map(|id| {
                let name = record.username.as_deref();
                EndedReplyUser { id, name }
            }),
            connection_id: record.connection_id,
            request_id: &record.request_id,
            outcome,
            finish_reason: summary.finish_reason.map(|reason| reason.label()).or(own_reason),
            error,
            text: summary.text(),
            reasoning: self.poster.includes(Include::Reasoning).then(|| summary.reasoning()),
            message: self.message.as_ref().map(|(message, _)| &**message),
            tool_calls: summary.ended_tool_calls(),
            truncated: summary.is_cut || self.is_message_cut,
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
