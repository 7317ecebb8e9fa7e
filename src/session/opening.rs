//! How a session begins and ends, and what connections without a session are sent.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::resume::Replay;
use super::{Arrival, Client, Permits, Services, Session, UpstreamMode};
use crate::broker::Subscription;
use crate::config;
use crate::limits::RefusalDelay;
use crate::protocol::{CloseReason, Position, ResumePoint};
use crate::socket::{ByteStream, ConnectionEnd, Event, Socket};
use crate::telemetry::connections::ClientOrigin;
use crate::upstream::PassedUpstream;

/// A refused client's frames are read only to find its close frame.
const REFUSED_MESSAGE_BYTES: usize = 1024;

/// How many messages and other frames of a refused client are read before its close is due.
const REFUSED_EVENTS: usize = 32;

/// How long the 101 response may wait for `connected`.
const HEAD_DELAY: Duration = Duration::from_millis(20);

/// How long a refused client may take to close.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the session of an admitted client: subscribes, sends `connected`, then drives the socket on a
/// task of its own until the connection ends.
pub async fn open(
    services: Rc<Services>,
    stream: ByteStream,
    arrival: Arrival,
    mut client: Client,
    permits: Permits,
) {
    client.share_channel(&services.broker);
    let Arrival { mut early, head, resume, deflate, upstream } = arrival;
    let route = client.route();
    let socket = Socket::new(stream, route.max_message_bytes, route.send_queue);
    let socket = Rc::new(socket.with_deflate(deflate));
    socket.send_with_next(head);
    let session = Rc::new(Session::new(services, Rc::clone(&socket), client, permits));
    // From here on the guard gives everything back, whatever happens.
    let drive = Drive::begin(&session);
    // A drain that has begun may have closed its last session already.
    let shutdown = &session.services.shutdown;
    let late = shutdown.is_draining().then(|| shutdown.track());
    // `connected` comes before the first publication.
    let replay = Replay::begin(&session);
    let opening = session.begin(resume, replay, upstream);
    let opening = send_head_in_time(&socket, opening);
    let has_panicked = AssertUnwindSafe(opening).catch_unwind().await.is_err();
    if has_panicked {
        session.close_after_panic();
    }
    // The route may have changed since the client was admitted.
    if !session.apply_route_update() || late.is_some() {
        session.close_for_reconnect(Duration::ZERO);
    }
    session.contain(|| socket.feed(&mut early, &mut |event| session.on_event(event)));
    match late {
        None => drive.hand_over(),
        // What keeps the drain waiting would take room in every session.
        Some(tracked) => {
            tokio::task::spawn_local(async move {
                let _tracked = tracked;
                drive.await;
            });
        }
    };
}

/// Runs `opening`, which sends something at its end. What waits for that leaves by itself if it takes long.
async fn send_head_in_time(socket: &Socket, opening: impl Future<Output = ()>) {
    let mut opening = pin!(opening);
    tokio::select! {
        biased;
        () = &mut opening => {}
        () = tokio::time::sleep(HEAD_DELAY) => {
            socket.send_waiting();
            opening.await;
        }
    }
    // The opening may have ended without an event.
    socket.send_waiting();
}

/// Sends at most one event and closes, in a way that a browser's script can read: for refused clients, and
/// for routes with a fixed reply. The event is sent at once; the close waits for `delay`, if there is one.
/// `held` is dropped when the connection has ended.
pub async fn send_and_close(
    services: Rc<Services>,
    stream: ByteStream,
    text: Option<String>,
    reason: CloseReason,
    held: impl Sized,
    delay: Option<RefusalDelay>,
) {
    let _held = held;
    let queue = config::SendQueue { messages: 4, bytes: 2 * config::FixedReply::MAX_BYTES };
    let socket = Rc::new(Socket::new(stream, REFUSED_MESSAGE_BYTES, queue));
    if let Some(text) = text {
        socket.send_text(&text);
    }
    let (received, pause) = (Cell::new(0), Cell::new(None));
    let mut drive = std::future::poll_fn(|cx| {
        socket.poll_drive(cx, &mut |event| {
            if let Event::Fault(reason) = event {
                socket.close(reason);
            }
            received.set(received.get() + 1);
            if received.get() == REFUSED_EVENTS {
                pause.set(Some(socket.pause_reading()));
            }
        })
    });
    if let Some(delay) = delay {
        tokio::select! {
            () = &mut drive => return,
            () = services.wait_to_close(delay) => {}
        }
    }
    socket.close(reason);
    // A client that takes longer is cut off.
    let _ = tokio::time::timeout(REFUSED_TIMEOUT, drive).await;
}

/// Drives a session, unless it is handed over to the thread's driver. Ends it when dropped.
struct Drive {
    session: Rc<Session>,
}

impl Drive {
    fn begin(session: &Rc<Session>) -> Self {
        session.services.registry.insert(session);
        session.route_metrics.connections.opened(session.log_fields());
        Self { session: Rc::clone(session) }
    }

    fn hand_over(self) {
        self.session.services.registry.drive(&self.session);
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.session.poll(cx)
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if !self.session.is_driven.get() {
            self.session.finish();
        }
    }
}

impl Session {
    /// Subscribes, opens the upstream's socket where there is one and it is not open yet, and sends `connected`.
    async fn begin(
        self: &Rc<Self>,
        resume: Option<ResumePoint>,
        replay: Replay,
        upstream: Option<Box<PassedUpstream>>,
    ) {
        // Only pass routes have no channel, and their connections begin otherwise.
        let Some(channel) = &self.client.channel else { return };
        match self.services.broker.subscribe(channel, &self.socket).await {
            Ok(subscription) => {
                self.keep_subscription(subscription);
                match upstream {
                    Some(opened) => self.start_bridge(*opened),
                    None if self.client.upstream == UpstreamMode::Socket => {
                        self.open_bridge().await;
                    }
                    None => {}
                }
                self.start_channel(resume, replay).await;
                self.join_presence();
            }
            Err(_) => {
                self.wait_to_refuse().await;
                self.socket.close(CloseReason::Overloaded);
            }
        }
    }

    /// The subscription lasts until [`Session::finish`].
    pub(super) fn keep_subscription(&self, subscription: Subscription) {
        subscription.leave();
        self.is_subscribed.set(true);
    }

    /// The last publication with a position that was handed to the socket, or to the others of its channel before it
    /// came.
    pub(super) fn last_position(&self) -> Option<Position> {
        let channel = self.client.channel.as_ref().filter(|_| self.is_subscribed.get())?;
        self.services.broker.last_position(channel, &self.socket)
    }

    /// Waits before the close of a client that was admitted and still cannot be served. A page may take the open
    /// socket for a success.
    pub(super) async fn wait_to_refuse(&self) {
        if let Some(delay) = self.services.delay_refusal(self.client.address) {
            self.services.wait_to_close(delay).await;
        }
    }

    pub(super) fn finish(&self) {
        self.socket.abort();
        if self.is_subscribed.replace(false)
            && let Some(channel) = &self.client.channel
        {
            self.services.broker.unsubscribe(channel, &self.socket);
        }
        self.leave_presence();
        self.services.registry.remove(self);
        self.services.replies.cancel_attached(self.client.connection_id);
        if let Some(bridge) = self.work.get().and_then(|work| work.bridge.take()) {
            bridge.client_ended(self.socket.end(), self.socket.end_text());
        }
        let end = self.socket.end().unwrap_or(ConnectionEnd::Lost);
        let (by, code, cause) = end.describe();
        let from = ClientOrigin { address: self.client.address, origin: self.client.origin() };
        self.route_metrics.connections.closed(self.log_fields(), from, by, code, cause);
    }
}
