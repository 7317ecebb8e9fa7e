//! The JSON of a reply that has ended, for `on_complete`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::dialect::{ReplySummary, SummaryToolCall, Usage};
use crate::protocol::{ConnectionId, Params, UserId, label_enum};

label_enum! {
    /// How a reply has ended, for who gets all of it.
    pub enum ReplyOutcome {
        Completed => "completed",
        /// The upstream said that it failed.
        Failed => "failed",
        /// It broke off.
        Lost => "lost",
        /// A client or the upstream stopped it.
        Cancelled => "cancelled",
        /// It took too long, or nothing more came.
        TimedOut => "timed_out",
    }
}

/// A reply that has ended.
#[derive(Serialize)]
pub struct EndedReply<'a> {
    pub task_id: &'a str,
    pub message_id: &'a str,
    pub upstream: &'a str,
    /// The path pattern.
    pub route: &'a str,
    pub channel: &'a str,
    pub params: &'a Params,
    pub user: Option<EndedReplyUser<'a>>,
    pub connection_id: ConnectionId,
    pub request_id: &'a str,
    pub outcome: ReplyOutcome,
    pub finish_reason: Option<&'a str>,
    pub error: Option<EndedReplyError<'a>>,
    pub text: String,
    /// The thoughts, if they are to be posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The client's object, if it is to be posted and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a RawValue>,
    pub tool_calls: Vec<ToolCall<'a>>,
    /// Whether something was left out of the text or the tool calls, because they are too long.
    pub truncated: bool,
    pub usage: Option<EndedReplyUsage>,
    pub timings: Timings,
}

#[derive(Serialize)]
pub struct EndedReplyUser<'a> {
    pub id: &'a UserId,
    pub name: Option<&'a str>,
}

#[derive(Serialize)]
pub struct EndedReplyError<'a> {
    /// As clients got it.
    pub code: &'a str,
    pub text: &'a str,
    /// The upstream's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_code: Option<&'a str>,
}

#[derive(Serialize)]
pub struct ToolCall<'a> {
    id: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> From<&'a SummaryToolCall> for ToolCall<'a> {
    fn from(call: &'a SummaryToolCall) -> Self {
        Self { id: &call.id, name: &call.name, arguments: &call.arguments }
    }
}

/// The members of the event `usage`.
#[derive(Serialize)]
pub struct EndedReplyUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_tokens: Option<u64>,
}

/// When a reply was asked for and ended.
#[derive(Serialize)]
pub struct Timings {
    /// RFC 3339.
    pub received_at: String,
    pub ended_at: String,
    /// From the message to the first event of the reply.
    pub first_event_ms: Option<u64>,
    pub duration_ms: u64,
}

impl ReplySummary {
    pub fn ended_usage(&self) -> Option<EndedReplyUsage> {
        let Usage { input, output, cached_input, cache_write, reasoning, .. } = self.usage;
        self.usage.is_known().then(|| EndedReplyUsage {
            input_tokens: input,
            output_tokens: output,
            total_tokens: self.usage.total(),
            cached_input_tokens: cached_input,
            cache_write_tokens: cache_write,
            reasoning_tokens: reasoning,
        })
    }

    pub fn ended_tool_calls(&self) -> Vec<ToolCall<'_>> {
        self.tool_calls.iter().map(ToolCall::from).collect()
    }
}
