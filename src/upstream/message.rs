//! What upstreams are given: messages, and requests for sockets.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Forwarded;
use super::dialect::Failure;
use crate::protocol::{
    ChannelName, ConnectionId, Params, RequestId, SenderKey, TraceContext, UserId,
};
use crate::telemetry::log::{ConnectionFields, MessageFields};

/// One client message with the data that every upstream gets.
#[derive(Debug, Clone)]
pub struct Message {
    /// The text, trimmed and not empty.
    pub text: String,
    /// The client's whole object, unchanged.
    pub data: Box<RawValue>,
    pub channel: ChannelName,
    pub params: Params,
    /// `None` = anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    pub connection_id: ConnectionId,
    /// The id of the request that opened the connection.
    pub request_id: RequestId,
    /// The client, for bounds, of which a sender has a share, and failures that are counted by sender.
    pub sender: SenderKey,
    /// Chosen by the client, or made by the gateway.
    pub message_id: String,
    /// A new UUID; an HTTP upstream may answer with another one.
    pub task_id: String,
    pub trace: TraceContext,
    /// What is forwarded of the handshake; `None` = nothing.
    pub forwarded: Option<Arc<Forwarded>>,
}

impl Message {
    pub fn log_fields(&self) -> MessageFields<'_> {
        let connection = ConnectionFields {
            connection: self.connection_id,
            request: &self.request_id,
            user: self.user_id.as_ref(),
            channel: Some(&self.channel),
        };
        MessageFields {
            connection,
            message_id: Some(&self.message_id),
            task_id: Some(&self.task_id),
        }
    }
}

/// Why a message was not accepted. The client is told each of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayError {
    /// `max_in_flight` or the client's share of it is reached, or a queue is full.
    Busy,
    /// The upstream answered 429.
    Limited(Box<Limited>),
    /// The upstream's connection broke, or a gateway in front of it answered in its place (502, 503, 504), or its circuit
    /// is open.
    Unavailable,
    /// The same, and the answer says after how many seconds the upstream will be back.
    UnavailableFor(u64),
    /// The upstream did not answer in time.
    TimedOut,
    /// No connection to the upstream could be opened, whatever the message is.
    Unreachable,
    /// The upstream itself answered that it failed at this message, with another 5xx.
    Failed,
    /// The upstream answered with a redirect, which is not followed.
    Redirected,
    /// The head of the upstream's answer is larger than the gateway reads.
    HeadTooLarge,
    /// The upstream's answer is not HTTP/1.1.
    Malformed,
    /// The upstream answered with another 4xx, or the message cannot be sent to it. Says why, in a text of bounded length.
    Rejected(Box<Failure>),
}

impl RelayError {
    /// A rejection for which there is no code.
    pub(super) fn rejected(text: impl Into<String>) -> Self {
        Self::Rejected(Box::new(Failure { code: None, text: text.into() }))
    }
}

/// What an answer with status 429 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Its text and code, if it has a text.
    pub failure: Option<Failure>,
    /// After how many seconds to try again.
    pub retry_after: Option<u64>,
}

/// The data that an upstream socket is opened with: URL placeholders and request headers.
pub struct SocketRequest<'a> {
    /// `None` if the route has none.
    pub channel: Option<&'a ChannelName>,
    pub params: &'a Params,
    pub user_id: Option<&'a UserId>,
    pub username: Option<&'a str>,
    pub sender: &'a SenderKey,
    pub connection_id: ConnectionId,
    pub request_id: &'a RequestId,
    pub trace: &'a TraceContext,
    /// The route's `max_message_bytes`, which also limits messages of the upstream.
    pub max_message_bytes: usize,
}

impl SocketRequest<'_> {
    pub(super) fn log_fields(&self) -> MessageFields<'_> {
        let connection = ConnectionFields {
            connection: self.connection_id,
            request: self.request_id,
            user: self.user_id,
            channel: self.channel,
        };
        MessageFields { connection, message_id: None, task_id: None }
    }
}

/// What the Redis of a queue knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    pub queue: String,
    /// The number of messages in it.
    pub waiting: u64,
    /// The consumer groups of a stream, or the declarations of a Celery queue; `None` = not known.
    pub consumers: Option<u64>,
}

/// Returns the value of `{user_id}` in a template.
pub(super) fn user_in_template(user_id: Option<&UserId>) -> &dyn std::fmt::Display {
    match user_id {
        Some(id) => id,
        None => &UserId::ANONYMOUS,
    }
}
