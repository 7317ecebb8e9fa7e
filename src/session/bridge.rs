//! One upstream socket for one client socket. Messages are relayed whole both ways, and close codes are passed on.
//! A slow side makes the other wait, so nothing overflows here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Client, Session};
use crate::config::Protocol;
use crate::protocol::{CloseReason, ErrorCode};
use crate::replies::Refusal;
use crate::socket::frame::{self, Opcode};
use crate::socket::{ConnectionEnd, ReadPause, Socket};
use crate::telemetry;
use crate::telemetry::messages::{LimitName, TooBigFrom};
use crate::telemetry::spans::SpanStatus;
use crate::telemetry::upstreams::RequestOutcome;
use crate::upstream::{
    FromUpstream, PassedUpstream, SocketMessage, SocketRequest, UpstreamReceiver, UpstreamSender,
    UpstreamSocket,
};

/// While this much waits for the upstream, the client's socket is not read.
const QUEUE_BYTES: usize = 256 * 1024;
const QUEUE_LENGTH: usize = 64;

/// How long the upstream may take to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages from the client to the upstream.
#[derive(Default)]
pub(super) struct Bridge {
    queue: RefCell<VecDeque<SocketMessage>>,
    bytes: Cell<usize>,
    /// While the queue is full, the client's socket is not read.
    pause: RefCell<Option<ReadPause>>,
    /// The close code and the reason for the upstream, once it is to be closed.
    closing: RefCell<Option<(u16, Box<str>)>>,
    changed: Notify,
}

impl Bridge {
    /// The client's connection has ended; the upstream's is closed with the corresponding code and `text`.
    pub fn client_ended(&self, end: Option<ConnectionEnd>, text: &str) {
        let code = match end {
            Some(ConnectionEnd::ByGateway(reason)) => reason.code(),
            Some(ConnectionEnd::ByServer(code) | ConnectionEnd::ByPeer(Some(code))) => code,
            Some(ConnectionEnd::ByPeer(None)) => 1000,
            // Only the end of a socket that forwards, which has no bridge.
            Some(ConnectionEnd::ByUpstream(_) | ConnectionEnd::UpstreamLost) => 1000,
            // 1006 is never sent (RFC 6455 section 7.4.1); going away is what happened.
            Some(ConnectionEnd::Lost) | None => 1001,
        };
        self.finish(code, text);
    }

    /// Closes the upstream's socket with this code and reason once everything queued is sent.
    pub fn finish(&self, code: u16, text: &str) {
        *self.closing.borrow_mut() = Some((code, text.into()));
        self.changed.notify_one();
    }

    /// How many bytes of the client's messages wait.
    pub fn queued_bytes(&self) -> usize {
        self.bytes.get()
    }

    fn push(&self, message: SocketMessage, socket: &Rc<Socket>) {
        self.bytes.set(self.bytes.get() + size(&message));
        self.queue.borrow_mut().push_back(message);
        if self.is_full() {
            self.pause.borrow_mut().get_or_insert_with(|| socket.pause_reading());
        }
        self.changed.notify_one();
    }

    fn pop(&self) -> Option<SocketMessage> {
        let message = self.queue.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - size(&message));
        if !self.is_full() {
            self.pause.take();
        }
        Some(message)
    }

    fn is_full(&self) -> bool {
        self.bytes.get() >= QUEUE_BYTES || self.queue.borrow().len() >= QUEUE_LENGTH
    }
}

fn size(message: &SocketMessage) -> usize {
    match message {
        SocketMessage::Text(bytes) | SocketMessage::Binary(bytes) => bytes.len(),
    }
}

/// What became of a message that is over a limit.
pub(super) enum OverLimit {
    /// Its sender got an error, and it is left out.
    Answered,
    /// Where messages pass unread, nothing can be answered and nothing may be left out: the client is closed.
    Closed(CloseReason, &'static str),
}

impl Session {
    /// Opens the upstream's socket. If that fails, closes the client's.
    pub(super) async fn open_bridge(self: &Rc<Self>) {
        let route = self.client.route();
        let Client { params, channel, connection_id, request_id, .. } = &self.client;
        let (Some(upstream), Some(channel)) = (route.upstream.as_deref(), channel) else { return };
        let (trace, sender, username) =
            (self.client.trace(), self.client.sender(), self.client.username());
        let config = self.services.config();
        let mut span = config.upstreams.span(upstream, &trace);
        let trace = &span.context().unwrap_or(trace);
        let request = SocketRequest {
            channel: Some(channel),
            params,
            user_id: self.client.user_id(),
            sender: &sender,
            username: username.as_deref(),
            connection_id: *connection_id,
            request_id,
            trace,
            max_message_bytes: route.max_message_bytes,
        };
        match config.upstreams.open_socket(upstream, &request).await {
            Ok(opened) => {
                span.set_outcome(RequestOutcome::Taken.label(), SpanStatus::Ok);
                span.end();
                self.bridge_to(opened);
            }
            Err(_) => {
                span.set_outcome(RequestOutcome::Unavailable.label(), SpanStatus::Error);
                self.route_metrics.messages.refused(
                    self.log_fields(),
                    ErrorCode::UpstreamUnavailable,
                    None,
                );
                self.wait_to_refuse().await;
                self.socket.close(CloseReason::Overloaded);
            }
        }
    }

    /// Relays the messages of an upstream's socket that was opened before the client got its 101.
    pub(super) fn start_bridge(self: &Rc<Self>, upstream: PassedUpstream) {
        let route = self.client.route();
        let Some(name) = route.upstream.as_deref() else { return };
        let upstreams = &self.services.config().upstreams;
        self.bridge_to(upstreams.relay_messages(name, upstream, route.max_message_bytes));
    }

    fn bridge_to(self: &Rc<Self>, opened: UpstreamSocket) {
        let bridge = Rc::new(Bridge::default());
        *self.work().bridge.borrow_mut() = Some(Rc::clone(&bridge));
        let receiving = self.spawn(Rc::clone(self).receive_all(opened.receiver));
        self.spawn(Rc::clone(self).run_bridge(bridge, opened.sender, receiving));
    }

    pub(super) fn send_to_bridge(&self, message: SocketMessage) {
        if let Some(bridge) = self.bridge() {
            bridge.push(message, &self.socket);
        }
    }

    async fn run_bridge(
        self: Rc<Self>,
        bridge: Rc<Bridge>,
        sender: UpstreamSender,
        mut receiving: JoinHandle<()>,
    ) {
        self.send_all(&bridge, sender).await;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut receiving).await;
        receiving.abort();
        if let Some(reason) = self.socket.fault() {
            self.socket.close(reason);
        }
    }

    /// Counts a message against the limit that all nodes share.
    pub(super) async fn check_user_limits(&self) -> Result<(), OverLimit> {
        let (route, client) = (self.client.route(), &self.client);
        let replies = &self.services.replies;
        let taken = replies.take_user_rate(&route, &client.params, client.user_id()).await;
        taken.map_err(|refusal| {
            if route.protocol == Protocol::Json {
                self.refuse(&refusal.event());
                return OverLimit::Answered;
            }
            let (reason, text) = match refusal {
                Refusal::RateLimited { .. } => {
                    let limit = LimitName::Messages.label();
                    telemetry::messages::closed_over_limit(self.log_fields(), limit);
                    (CloseReason::Flooding, "over messages_per_user")
                }
                _ => (CloseReason::Overloaded, CloseReason::Overloaded.text()),
            };
            self.socket.close_over(reason, text);
            OverLimit::Closed(reason, text)
        })
    }

    /// Sends messages from the client to the upstream until either has ended.
    async fn send_all(&self, bridge: &Bridge, mut sender: UpstreamSender) {
        loop {
            while let Some(message) = bridge.pop() {
                match self.check_user_limits().await {
                    Ok(()) => {}
                    Err(OverLimit::Answered) => continue,
                    Err(OverLimit::Closed(reason, text)) => {
                        return sender.close(reason.code(), text).await;
                    }
                }
                if sender.send(message).await.is_err() {
                    self.socket.close(CloseReason::InternalError);
                    return;
                }
                self.route_metrics.messages.queued(self.log_fields(), None);
            }
            let closing = bridge.closing.borrow().clone();
            if let Some((code, text)) = closing {
                return sender.close(code, &text).await;
            }
            bridge.changed.notified().await;
        }
    }

    /// Sends messages from the upstream to the client until either has ended.
    async fn receive_all(self: Rc<Self>, mut receiver: UpstreamReceiver) {
        let socket = &self.socket;
        while socket.is_open() {
            match receiver.recv().await {
                FromUpstream::Message(message) => {
                    socket.send(match &message {
                        SocketMessage::Text(text) => frame::encode(Opcode::Text, text),
                        SocketMessage::Binary(bytes) => frame::encode(Opcode::Binary, bytes),
                    });
                    socket.drained().await;
                }
                FromUpstream::TooBig => {
                    let max = self.client.route.borrow().max_message_bytes;
                    let (from, more) = (TooBigFrom::Upstream, max as u64 + 1);
                    telemetry::messages::message_too_big(self.log_fields(), from, more, max);
                }
                FromUpstream::Closed(closed) => {
                    return match (socket.fault(), closed) {
                        (Some(fault), _) => socket.close(fault),
                        (None, Some((code, reason))) => socket.close_as(code, &reason),
                        (None, None) => socket.close(CloseReason::InternalError),
                    };
                }
            }
        }
    }
}
