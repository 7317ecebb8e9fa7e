//! A message on its way to an upstream, and who sent it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::history_mark::HistoryMark;
use crate::config::Route;
use crate::generations::{GenerationOrigin, Task};
use crate::limits::Lease;
use crate::protocol::{
    ChannelName, ConnectionId, Params, RequestId, SenderKey, TraceContext, UserId,
};
use crate::socket::Socket;
use crate::telemetry::log::ConnectionFields;
use crate::telemetry::replies::ReplySpans;
use crate::telemetry::route::RouteMetrics;
use crate::upstream::{Forwarded, Message, TaskPermit};

/// A message that has passed the checks of its connection.
pub struct CheckedMessage {
    pub text: String,
    /// The message id that the client chose.
    pub id: Option<String>,
    /// The client's whole object.
    pub data: Box<RawValue>,
    pub received_at: Instant,
}

/// Who sent a message, and the socket that waits for its answer. A copy made for one message, so that a
/// reload or a refresh of the credentials does not change it halfway.
pub struct Sender {
    pub socket: Rc<Socket>,
    pub route: Arc<Route>,
    pub route_metrics: Arc<RouteMetrics>,
    pub channel: ChannelName,
    pub params: Params,
    /// `None` if the client is anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    /// For bounds, of which a sender has a share, and failures that are counted by sender.
    pub key: SenderKey,
    pub connection_id: ConnectionId,
    /// The request that opened the connection.
    pub request_id: RequestId,
    /// The trace of the handshake.
    pub trace: TraceContext,
    /// What is forwarded of the handshake; `None` = nothing.
    pub forwarded: Option<Arc<Forwarded>>,
}

impl Sender {
    /// Identifies the connection in log lines.
    pub fn log_fields(&self) -> ConnectionFields<'_> {
        ConnectionFields {
            connection: self.connection_id,
            request: &self.request_id,
            user: self.user_id.as_ref(),
            channel: Some(&self.channel),
        }
    }

    pub(super) fn task(&self, id: &str) -> Task {
        Task { channel: self.channel.clone(), id: id.into() }
    }

    pub(super) fn upstream(&self) -> &str {
        self.route.upstream.as_deref().unwrap_or_default()
    }

    /// What the reply to a message that was just relayed is a reply to.
    pub(super) fn origin(&self, streams: bool) -> GenerationOrigin {
        GenerationOrigin {
            route: self.route.path.as_str().into(),
            upstream: self.upstream().into(),
            connection: Some(self.connection_id),
            user: self.user_id.clone(),
            streams,
            began: Instant::now(),
        }
    }

    /// The message as upstreams get it.
    pub(super) fn message(
        &self,
        checked: CheckedMessage,
        trace: TraceContext,
        task_id: &str,
    ) -> Message {
        let task_id = task_id.to_owned();
        Message {
            text: checked.text,
            data: checked.data,
            channel: self.channel.clone(),
            params: self.params.clone(),
            user_id: self.user_id.clone(),
            username: self.username.clone(),
            sender: self.key.clone(),
            connection_id: self.connection_id,
            request_id: self.request_id.clone(),
            message_id: checked.id.unwrap_or_else(|| task_id.clone()),
            task_id,
            trace,
            forwarded: self.forwarded.clone(),
        }
    }
}

/// A message that its upstream has accepted, with what it holds until its reply has ended.
pub(super) struct RelayedMessage {
    pub mark: HistoryMark,
    /// Counts the reply for its user.
    pub lease: Option<Lease>,
    /// The channel's turn, if its replies run one at a time.
    pub turn: Option<Lease>,
    /// Counts the worker's task for its sender.
    pub task: Option<TaskPermit>,
    pub context: MessageContext,
}

/// What is recorded about a message once its reply has ended.
#[derive(Clone)]
pub(super) struct MessageContext {
    pub received_at: Instant,
    pub spans: ReplySpans,
}
