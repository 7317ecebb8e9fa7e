//! One connection's life: from the admission to the last byte.
//!
//! The HTTP phase is over and its memory gone when a session begins. A silent session costs its entry
//! here, its socket and its driving task; queues and relay tasks exist only while there is work.
//! Sessions reach the hub only through `broker.subscribe`, and never know how they were admitted.

mod bridge;
mod cancel;
mod commands;
mod credentials;
mod deduplicate;
mod failover;
mod generation;
mod messages;
mod place;
mod presence;
mod registry;
mod relay;
mod reply_publisher;
mod resume;
#[cfg(test)]
mod resume_model;
mod terms;
mod worker_reply;

pub use cancel::Attached;
pub use commands::run_commands;
pub use failover::failover;
pub use presence::Presence;
pub use registry::SessionRegistry;
pub use terms::ThreadConfig;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::{Broker, History, Publisher, Subscription};
use crate::clock;
use crate::config::{self, Binary, Protocol, Route, UpstreamKind};
use crate::control::Control;
use crate::generations::Generations;
use crate::limits::{ConnectionPermit, IpPermit, Lease, LeaseSet, LocalBucket, SharedLimits};
use crate::protocol::{
    ChannelName, CloseReason, ConnectionId, OriginTag, Params, RequestId, ResumePoint,
    TraceContext, UserId, with_timestamp,
};
use crate::shutdown::Shutdown;
use crate::socket::{ByteStream, Ended, Event, Socket};
use crate::telemetry::about::About;
use crate::telemetry::route::RouteFacts;
use crate::tokens::Identity;
use bridge::Bridge;
use messages::Inbox;

/// A refused client's bytes are not worth keeping.
const REFUSED_MESSAGE_BYTES: usize = 1024;

/// To tell the engine of leases that ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
const LEAVE_PAUSE: Duration = Duration::from_millis(5);

/// What the sessions of one worker thread share.
pub struct Services {
    pub broker: Rc<Broker>,
    pub publisher: Publisher,
    pub history: History,
    pub generations: Generations,
    pub control: Control,
    pub attached: Attached,
    /// Generations of workers that this thread looks after.
    pub monitored_replies: Cell<usize>,
    pub limits: SharedLimits,
    pub leases: Rc<LeaseSet>,
    pub presence: Presence,
    pub registry: SessionRegistry,
    pub shutdown: Shutdown,
    pub terms: RefCell<Rc<ThreadConfig>>,
    /// The zero of this thread's clock.
    pub started: Instant,
}

impl Services {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What ends while the thread's own end is near is told to the engine before it.
    async fn flush_when_draining(&self) {
        if self.shutdown.is_draining() {
            let flush = async {
                tokio::join!(
                    self.leases.flush(),
                    self.presence.flush(),
                    self.generations.ledger.flush()
                )
            };
            let _or_it_expires = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
        }
    }

    /// The end of a drain: leaves workers' generations to other nodes, and gives back the leases of
    /// connections.
    pub async fn leave(&self) {
        let leave = async {
            while self.monitored_replies.get() > 0 {
                tokio::time::sleep(LEAVE_PAUSE).await;
            }
            self.flush_when_draining().await;
        };
        let _or_others_find_out = tokio::time::timeout(LEAVE_TIMEOUT, leave).await;
    }
}

/// Who and what a connection is; the handshake's result.
pub struct Client {
    /// A reload replaces it by one that differs in what an open connection can follow.
    pub route: RefCell<Arc<Route>>,
    /// What kind the route's upstream is of.
    pub upstream: Upstream,
    pub params: Arc<Params>,
    pub channel: ChannelName,
    /// A refresh replaces it; the user stays.
    pub identity: RefCell<Identity>,
    /// The identity's, where nothing need be borrowed for it; `None` = anonymous.
    pub user_id: Option<UserId>,
    pub connection_id: ConnectionId,
    /// That opened the connection.
    pub request_id: RequestId,
    /// Where it comes from, behind proxies that are trusted.
    pub address: IpAddr,
    /// Of the page that connected; `None` = its handshake named none.
    pub origin: Option<OriginTag>,
    pub trace: TraceContext,
}

impl Client {
    /// As it is now, for what takes a while.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.borrow())
    }
}

/// What a client brings besides: used once, when its session opens.
pub struct Arrival {
    /// What it sent right behind its handshake.
    pub early: Vec<u8>,
    /// Where it was when it was lost.
    pub resume: Option<ResumePoint>,
}

/// How a route's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// Receive-only.
    None,
    /// One relay a message.
    Relay,
    /// One upstream socket a connection.
    Socket,
}

impl Upstream {
    pub fn of(kind: Option<&UpstreamKind>) -> Self {
        match kind {
            None => Self::None,
            Some(UpstreamKind::WebSocket(_)) => Self::Socket,
            Some(_) => Self::Relay,
        }
    }
}

/// What a connection gives back when it ends: held, never read.
#[expect(dead_code, reason = "a guard does its work when it is dropped")]
pub struct Permits {
    pub process: ConnectionPermit,
    pub ip: Option<IpPermit>,
    /// Of `connections_per_user`.
    pub lease: Option<Lease>,
}

/// One open connection.
pub struct Session {
    socket: Rc<Socket>,
    services: Rc<Services>,
    client: Client,
    /// Of its route.
    route_facts: Arc<RouteFacts>,
    message_bucket: Cell<LocalBucket>,
    ping_bucket: Cell<LocalBucket>,
    refusal_bucket: Cell<LocalBucket>,
    inbox: RefCell<Inbox>,
    bridge: RefCell<Option<Rc<Bridge>>>,
    /// More of its channel's history is on its way to it.
    replaying: Cell<bool>,
    subscription: RefCell<Option<Subscription>>,
    /// Since the thread's start.
    opened: Duration,
    /// `max_session` counts from here, since the thread's start.
    renewed: Cell<Duration>,
    /// `connected` was said, and the notice of the credentials' end was not yet.
    notice_due: Cell<bool>,
    /// Other credentials are being judged.
    refreshing: Cell<bool>,
    /// Since the thread's start.
    last_seen: Cell<Duration>,
    /// A ping is unanswered since then.
    pinged: Cell<Option<Duration>>,
    /// Where the registry keeps this session.
    registry_slot: Cell<usize>,
    _permits: Permits,
}

/// Opens the session of an admitted client on its own task: subscribes, says `connected`, then drives
/// the socket until it ends.
pub async fn open(
    services: Rc<Services>,
    stream: ByteStream,
    arrival: Arrival,
    client: Client,
    permits: Permits,
) {
    let Arrival { mut early, resume } = arrival;
    let route = client.route();
    let socket = Rc::new(Socket::new(stream, route.max_message_bytes, route.send_queue));
    let session = Rc::new(Session {
        socket: Rc::clone(&socket),
        message_bucket: Cell::default(),
        ping_bucket: Cell::default(),
        refusal_bucket: Cell::default(),
        inbox: RefCell::default(),
        bridge: RefCell::default(),
        replaying: Cell::new(false),
        subscription: RefCell::default(),
        opened: services.now(),
        renewed: Cell::new(services.now()),
        notice_due: Cell::new(false),
        refreshing: Cell::new(false),
        last_seen: Cell::new(services.now()),
        pinged: Cell::new(None),
        registry_slot: Cell::new(0),
        _permits: permits,
        route_facts: RouteFacts::of(&route.path),
        services,
        client,
    });
    // From here on, whatever happens: the guard gives everything back.
    let drive = Drive::begin(&session);
    // A drain that has begun may have seen its last session already.
    let shutdown = &session.services.shutdown;
    let late = shutdown.is_draining().then(|| shutdown.track());
    match session.services.broker.subscribe(&session.client.channel, &socket).await {
        Ok(subscription) => {
            *session.subscription.borrow_mut() = Some(subscription);
            if session.client.upstream == Upstream::Socket {
                session.open_bridge().await;
            }
            session.begin(resume).await;
            session.enter_channel();
        }
        Err(_) => socket.close(CloseReason::Overloaded),
    }
    // Its admission may be older than the last reload.
    if !session.apply_route_update() {
        session.send_away(Duration::ZERO);
    }
    if late.is_some() {
        session.send_away(Duration::ZERO);
    }
    socket.feed(&mut early, &mut |event| session.on_event(event));
    // A task of its own, so that nothing of the opening stays in memory with it.
    match late {
        None => tokio::task::spawn_local(drive),
        Some(tracked) => tokio::task::spawn_local(async move {
            let _drain_waits_for_it = tracked;
            drive.await;
        }),
    };
}

/// Says one thing at most and closes, in a way that a browser's script can read: to refused clients, and
/// where a route has nothing more to say. The client has five seconds to take its leave.
pub async fn say_and_close(
    stream: ByteStream,
    text: Option<String>,
    reason: CloseReason,
    permits: Permits,
) {
    let _held_until_the_end = permits;
    let queue = config::SendQueue { messages: 4, bytes: 2 * config::FixedReply::MAX_BYTES };
    let socket = Socket::new(stream, REFUSED_MESSAGE_BYTES, queue);
    if let Some(text) = text {
        socket.send_text(&text);
    }
    socket.close(reason);
    let drive = std::future::poll_fn(|cx| {
        socket.poll_drive(cx, &mut |event| {
            if let Event::Fault(reason) = event {
                socket.close(reason);
            }
        })
    });
    let _over_or_cut = tokio::time::timeout(Duration::from_secs(5), drive).await;
}

/// The task of a session.
struct Drive {
    session: Rc<Session>,
}

impl Drive {
    fn begin(session: &Rc<Session>) -> Self {
        session.services.registry.enter(session);
        session.route_facts.opened(session.about());
        Self { session: Rc::clone(session) }
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = &self.session;
        session.socket.poll_drive(cx, &mut |event| session.on_event(event))
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.session.finish();
    }
}

impl Session {
    fn on_event(self: &Rc<Self>, event: Event<'_>) {
        match event {
            Event::Text(text) => match self.client.route.borrow().protocol {
                Protocol::Json => self.on_json(text),
                Protocol::Raw => self.on_raw_text(text),
            },
            Event::Binary(bytes) => match self.client.route.borrow().binary {
                Binary::Reject => self.socket.close(CloseReason::BinaryRefused),
                Binary::Relay => self.on_raw_binary(bytes),
            },
            Event::Ping => self.on_protocol_ping(),
            Event::Fault(reason) => match &*self.bridge.borrow() {
                // What the upstream still answers to earlier messages goes out first.
                Some(bridge) => bridge.finish(reason.code()),
                None => self.socket.close(reason),
            },
        }
    }

    /// Looks after the heartbeat and the patience of the closing handshake.
    fn check(&self, now: Instant) {
        self.socket.cut_if_overdue(now);
        if !self.socket.is_open() {
            return;
        }
        let elapsed = now.duration_since(self.services.started);
        let route = self.client.route.borrow();
        if self.socket.take_activity() {
            self.last_seen.set(elapsed);
            self.pinged.set(None);
        } else if let Some(pinged) = self.pinged.get() {
            if elapsed >= pinged + route.pong_timeout {
                self.socket.close(CloseReason::PongTimeout);
            }
        } else if elapsed >= self.last_seen.get() + route.idle_ping {
            self.pinged.set(Some(elapsed));
            self.socket.ping();
        }
    }

    /// Sends an event of the gateway's own, to this connection alone.
    fn say(&self, json: &str) {
        if self.client.route.borrow().timestamps {
            self.socket.send_text(&with_timestamp(json, &clock::now_rfc3339()));
        } else {
            self.socket.send_text(json);
        }
    }

    /// For lines about this connection.
    fn about(&self) -> About<'_> {
        let Client { connection_id, request_id, user_id, channel, .. } = &self.client;
        let (connection, user) = (*connection_id, user_id.as_ref());
        About { connection, request: request_id, user, channel }
    }

    /// A message of this client is on its way upstream.
    fn is_relaying(&self) -> bool {
        self.inbox.borrow().is_busy()
    }

    fn finish(&self) {
        self.socket.cut();
        self.subscription.borrow_mut().take();
        self.leave_channel();
        self.services.registry.leave(self);
        self.services.attached.cancel_all(self.client.connection_id);
        if let Some(bridge) = self.bridge.borrow_mut().take() {
            bridge.client_left(self.socket.ended());
        }
        let ended = self.socket.ended().unwrap_or(Ended::Lost);
        let (by, code, reason) = ended.describe();
        self.route_facts.closed(self.about(), by, code, reason);
    }
}

/// A text frame's payload as something that lives on.
fn own(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
