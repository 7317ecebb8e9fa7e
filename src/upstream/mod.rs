//! Where client messages go. An upstream returns a reply value or a stream of events; it never
//! touches a client's socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::config;
use crate::protocol::{ChannelName, ConnectionId, Params, TraceContext, UserId};

/// One client message with the facts that every upstream gets.
#[derive(Debug, Clone)]
pub struct Message {
    /// Trimmed, not empty.
    pub text: String,
    /// The client's whole object, untouched.
    pub data: Box<RawValue>,
    pub channel: ChannelName,
    pub params: Arc<Params>,
    /// `None` = anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    pub connection_id: ConnectionId,
    /// Chosen by the client, or made by the gateway.
    pub message_id: String,
    /// A fresh UUID; an HTTP upstream may answer with another.
    pub task_id: String,
    pub trace: TraceContext,
}

/// The upstream has the message.
#[derive(Debug)]
pub struct Taken {
    pub task_id: String,
    /// The reply, where the upstream streams it in its answer.
    pub reply: Option<Reply>,
}

/// A reply that streams. Dropping it gives up the request and its place in flight.
#[derive(Debug)]
pub struct Reply {}

/// Why a streaming reply ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBroken {
    /// The connection broke, or the body ended inside an event.
    Lost,
    /// An event over the bound, or longer than `max_reply`.
    Refused(&'static str),
}

impl Reply {
    /// The next event as one JSON object: an object with a string `event` as it is, anything else
    /// wrapped as `{"event":"chunk","chunk":…}`. `None` at the regular end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReplyBroken>> {
        todo!()
    }
}

/// Why a message was not taken; each is told to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayError {
    /// `max_in_flight` reached.
    Busy,
    /// Not reachable, no answer in time, 5xx, or the circuit is open.
    Unavailable,
    /// A 4xx; the text is the body's `error`, bounded.
    Rejected(String),
}

/// The upstreams of one worker thread: connection pools of its own, bounds and circuits shared.
#[derive(Clone)]
pub struct Upstreams {}

/// What the threads share: in-flight bounds, circuits, metrics handles, queue connections.
#[derive(Clone)]
pub struct UpstreamsShared {}

impl UpstreamsShared {
    /// `Err` names the upstream and what is wrong. Starts queue connections on the current runtime.
    pub fn new(
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        shutdown: &crate::shutdown::Shutdown,
    ) -> Result<Self, String> {
        let _ = (upstreams, shutdown);
        todo!()
    }
}

impl Upstreams {
    /// Called once on each worker thread, inside its runtime.
    pub fn new(shared: &UpstreamsShared) -> Self {
        let _ = shared;
        todo!()
    }

    /// Hands `message` to the upstream called `name`, which config has checked to exist and not to be
    /// a `websocket`.
    pub async fn relay(&self, name: &str, message: &Message) -> Result<Taken, RelayError> {
        let _ = (name, message);
        todo!()
    }

    /// Opens the upstream socket of one client (`kind = "websocket"`).
    pub async fn open_socket(
        &self,
        name: &str,
        opening: &Opening<'_>,
    ) -> Result<UpstreamSocket, RelayError> {
        let _ = (name, opening);
        todo!()
    }
}

/// The facts an upstream socket is opened with: URL placeholders and request headers.
pub struct Opening<'a> {
    pub channel: &'a ChannelName,
    pub params: &'a Params,
    pub user_id: Option<&'a UserId>,
    pub username: Option<&'a str>,
    pub connection_id: ConnectionId,
    pub trace: &'a TraceContext,
    /// `max_message_bytes` of the route: bounds upstream messages too.
    pub max_message_bytes: usize,
}

/// Both halves of an upstream socket; each may live in a task of its own on this thread.
pub struct UpstreamSocket {
    pub sender: UpstreamSender,
    pub receiver: UpstreamReceiver,
}

pub struct UpstreamSender {}

pub struct UpstreamReceiver {}

/// A whole message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(Bytes),
    Binary(Bytes),
}

/// What an upstream socket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromUpstream {
    Message(SocketMessage),
    /// The close frame's code and reason; `None` = it broke without one.
    Closed(Option<(u16, String)>),
}

impl UpstreamSender {
    /// Within a deadline; `Err` = the upstream is gone.
    pub async fn send(&mut self, message: SocketMessage) -> Result<(), ()> {
        let _ = message;
        todo!()
    }

    /// Says goodbye with the client's close code.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let _ = (code, reason);
        todo!()
    }
}

impl UpstreamReceiver {
    pub async fn recv(&mut self) -> FromUpstream {
        todo!()
    }
}
