//! One upstream socket for one client socket. Messages are relayed whole both ways, and close codes are passed on.
//! A slow side makes the other wait, so nothing overflows here.
//!
//! A client's message is written to the upstream by the task that read it, and the upstream's by the task of the bridge.
//! Only a message whose user has to be asked for first waits in a queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Client, Session};
use crate::config::Protocol;
use crate::protocol::{CloseReason, ErrorCode};
use crate::replies::Refusal;
use crate::socket::frame::Opcode;
use crate::socket::{ConnectionEnd, ReadPause, Socket};
use crate::telemetry;
use crate::telemetry::messages::{LimitName, TooBigFrom};
use crate::telemetry::spans::SpanStatus;
use crate::telemetry::upstreams::RequestOutcome;
use crate::upstream::{FromUpstream, PassedUpstream, SocketEnd, SocketRequest, UpstreamSocket};

/// While this much waits for the upstream, the client's socket is not read.
const QUEUE_BYTES: usize = 256 * 1024;
const QUEUE_LENGTH: usize = 64;

/// How many reads of the upstream one poll makes before other tasks of the thread run.
const READS_PER_POLL: usize = 8;

/// The most memory that a thread keeps for the frames of one read.
const KEPT_FRAMES: usize = 128 * 1024;

thread_local! {
    /// The frames for a client that one read of its upstream has completed.
    static FRAMES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The upstream's socket, and messages from the client to it.
pub(super) struct Bridge {
    upstream: UpstreamSocket,
    /// Messages that wait for the limit that all nodes share.
    queue: RefCell<VecDeque<(Opcode, Bytes)>>,
    queued_bytes: Cell<usize>,
    /// Whether a message was taken from `queue` and is being checked.
    is_checking: Cell<bool>,
    /// While the queue is full, the client's socket is not read.
    pause: RefCell<Option<ReadPause>>,
    /// The close code and the reason for the upstream, once it is to be closed.
    closing: RefCell<Option<(u16, Box<str>)>>,
    changed: Notify,
}

impl Bridge {
    fn new(upstream: UpstreamSocket) -> Self {
        Self {
            upstream,
            queue: RefCell::default(),
            queued_bytes: Cell::default(),
            is_checking: Cell::default(),
            pause: RefCell::default(),
            closing: RefCell::default(),
            changed: Notify::new(),
        }
    }

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
        if !self.has_waiting() {
            self.upstream.close(code, text);
            return self.upstream.flush();
        }
        *self.closing.borrow_mut() = Some((code, text.into()));
        self.changed.notify_one();
    }

    /// How many bytes of messages wait, or are not complete.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.get() + self.upstream.held_bytes()
    }

    /// Writes what was sent, as far as the upstream takes it.
    pub fn flush(&self, socket: &Rc<Socket>) {
        if self.upstream.waiting_bytes() > 0 {
            self.upstream.flush();
            self.limit_reading(socket);
        }
    }

    /// Whether the next message has to wait behind others.
    fn has_waiting(&self) -> bool {
        self.is_checking.get() || !self.queue.borrow().is_empty()
    }

    fn enqueue(&self, opcode: Opcode, payload: &[u8]) {
        self.queued_bytes.set(self.queued_bytes.get() + payload.len());
        self.queue.borrow_mut().push_back((opcode, Bytes::copy_from_slice(payload)));
        self.changed.notify_one();
    }

    fn pop(&self) -> Option<(Opcode, Bytes)> {
        let message = self.queue.borrow_mut().pop_front();
        self.is_checking.set(message.is_some());
        if let Some((_, payload)) = &message {
            self.queued_bytes.set(self.queued_bytes.get() - payload.len());
        }
        message
    }

    /// Stops reading the client while much waits, and reads it again once that is sent.
    fn limit_reading(&self, socket: &Rc<Socket>) {
        let bytes = self.queued_bytes.get() + self.upstream.waiting_bytes();
        let is_full = bytes >= QUEUE_BYTES || self.queue.borrow().len() >= QUEUE_LENGTH;
        let mut pause = self.pause.borrow_mut();
        match is_full {
            true => drop(pause.get_or_insert_with(|| socket.pause_reading())),
            false => *pause = None,
        }
    }

    /// Completes when the upstream takes more.
    async fn drained(&self) {
        while self.upstream.waiting_bytes() >= QUEUE_BYTES && !self.upstream.is_closing() {
            self.changed.notified().await;
        }
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

    fn bridge_to(self: &Rc<Self>, upstream: UpstreamSocket) {
        let bridge = Rc::new(Bridge::new(upstream));
        *self.work().bridge.borrow_mut() = Some(Rc::clone(&bridge));
        self.spawn(Rc::clone(self).run_bridge(bridge));
    }

    /// Sends a message to the upstream, or queues it until the limit that all nodes share has let it pass. What is sent is
    /// written when the client has been read, by [`Session::flush_bridge`].
    pub(super) fn send_to_bridge(&self, opcode: Opcode, payload: &[u8]) {
        let Some(bridge) = self.bridge() else { return };
        if bridge.has_waiting() || self.has_user_limit() {
            bridge.enqueue(opcode, payload);
        } else {
            self.send_upstream(&bridge, opcode, payload);
        }
        bridge.limit_reading(&self.socket);
    }

    fn send_upstream(&self, bridge: &Bridge, opcode: Opcode, payload: &[u8]) {
        bridge.upstream.push(opcode, payload);
        self.route_metrics.messages.queued(self.log_fields(), None);
    }

    /// Writes the messages to the upstream that one read of the client has completed.
    pub(super) fn flush_bridge(&self) {
        if let Some(bridge) = self.bridge() {
            bridge.flush(&self.socket);
        }
    }

    /// Whether the messages of this client count against a limit of its user, which all nodes share.
    pub(super) fn has_user_limit(&self) -> bool {
        self.client.user_id().is_some()
            && self.client.route.borrow().limits.messages_per_user.is_some()
    }

    /// Relays until either side has ended.
    async fn run_bridge(self: Rc<Self>, bridge: Rc<Bridge>) {
        let end = {
            let mut sending = pin!(self.send_checked(&bridge));
            let mut is_sending = true;
            poll_fn(|cx| {
                is_sending = is_sending && sending.as_mut().poll(cx).is_pending();
                self.poll_bridge(&bridge, cx)
            })
            .await
        };
        bridge.pause.take();
        // The upstream's socket ends here, even while the client still takes what came before.
        self.work().bridge.take();
        drop(bridge);
        self.socket.drained().await;
        match (self.socket.fault(), end) {
            (Some(fault), _) => self.socket.close(fault),
            (None, SocketEnd::Closed(Some((code, reason)))) => {
                self.socket.close_as(code, &reason);
            }
            (None, SocketEnd::Closed(None) | SocketEnd::Stalled) => {
                self.socket.close(CloseReason::InternalError);
            }
            // The client has ended before.
            (None, SocketEnd::Unanswered) => {}
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

    /// Sends the messages that were queued, once the limit has let them pass, and the close frame behind them.
    async fn send_checked(&self, bridge: &Bridge) {
        loop {
            while let Some((opcode, payload)) = bridge.pop() {
                bridge.drained().await;
                match self.check_user_limits().await {
                    Ok(()) => {
                        self.send_upstream(bridge, opcode, &payload);
                        bridge.flush(&self.socket);
                    }
                    Err(OverLimit::Answered) => {}
                    Err(OverLimit::Closed(reason, text)) => {
                        return bridge.upstream.close(reason.code(), text);
                    }
                }
                bridge.limit_reading(&self.socket);
            }
            let closing = bridge.closing.borrow().clone();
            if let Some((code, text)) = closing {
                return bridge.upstream.close(code, &text);
            }
            bridge.changed.notified().await;
        }
    }

    /// Writes what waits for the upstream, and sends its messages to the client as fast as the client takes them.
    fn poll_bridge(&self, bridge: &Bridge, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        let (upstream, socket) = (&bridge.upstream, &self.socket);
        for _ in 0..READS_PER_POLL {
            let was_full = bridge.pause.borrow().is_some();
            if let Poll::Ready(end) = upstream.poll_output(cx) {
                return Poll::Ready(end);
            }
            if was_full {
                bridge.limit_reading(socket);
                bridge.changed.notify_one();
            }
            if socket.is_open() {
                ready!(socket.poll_drained(cx));
            } else if !upstream.is_closing() {
                // What the upstream sends has no receiver any more. It is closed when the client's connection has ended.
                return Poll::Pending;
            }
            if !ready!(self.poll_from_upstream(upstream, cx)) {
                return Poll::Ready(SocketEnd::Closed(None));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes one read of the upstream. `Ready(false)` if its connection has ended.
    fn poll_from_upstream(&self, upstream: &UpstreamSocket, cx: &mut Context<'_>) -> Poll<bool> {
        FRAMES.with_borrow_mut(|frames| {
            frames.clear();
            let read = upstream.poll_input(cx, &mut |event| match event {
                FromUpstream::Text(text) => {
                    self.socket.append_message(frames, Opcode::Text, text.as_bytes());
                }
                FromUpstream::Binary(bytes) => {
                    self.socket.append_message(frames, Opcode::Binary, bytes);
                }
                FromUpstream::TooBig => {
                    let max = self.client.route.borrow().max_message_bytes;
                    let (from, more) = (TooBigFrom::Upstream, max as u64 + 1);
                    telemetry::messages::message_too_big(self.log_fields(), from, more, max);
                }
            });
            if self.socket.is_open() {
                self.socket.send_frames(frames);
            }
            if frames.capacity() > KEPT_FRAMES {
                *frames = Vec::new();
            }
            read
        })
    }
}
