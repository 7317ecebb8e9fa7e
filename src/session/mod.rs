//! One connection's life: from the admission to the last byte.
//!
//! A session owns its client's frames, checks, heartbeat, credentials, resume and presence; what becomes of
//! a message that has passed the checks is the business of `replies`. The HTTP phase is over and its memory
//! freed when a session begins. A silent session costs its entry here, its socket and its driving task;
//! queues and relay tasks exist only while there is work. Sessions reach the hub only through
//! `broker.subscribe`, and do not know how they were admitted.

mod bridge;
mod client;
mod commands;
mod credentials;
mod drain;
mod explain;
mod frames;
mod heartbeat;
mod inbox;
mod memory;
mod opening;
mod panics;
mod pass;
mod presence;
mod rate_buckets;
mod registry;
mod resume;
mod route_update;
mod services;

pub use client::{Arrival, Client, CredentialKind, Permits, UpstreamMode};
pub use commands::run_commands;
pub use opening::{open, send_and_close};
pub use pass::pass;
pub use presence::Presence;
pub use registry::SessionRegistry;
pub use services::Services;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::Subscription;
use crate::clock;
use crate::protocol::with_timestamp;
use crate::socket::Socket;
use crate::telemetry::log::ConnectionFields;
use crate::telemetry::route::RouteMetrics;
use bridge::Bridge;
use credentials::CredentialState;
use heartbeat::Heartbeat;
use inbox::Inbox;
use rate_buckets::RateBuckets;

/// One open connection.
pub struct Session {
    socket: Rc<Socket>,
    services: Rc<Services>,
    client: Client,
    route_metrics: Arc<RouteMetrics>,
    rates: RateBuckets,
    heartbeat: Heartbeat,
    credentials: CredentialState,
    inbox: RefCell<Inbox>,
    bridge: RefCell<Option<Rc<Bridge>>>,
    subscription: RefCell<Option<Subscription>>,
    /// How many of the client's bytes wait for the upstream of a pass route.
    waiting_bytes: Cell<usize>,
    /// The channel's history is being read and sent.
    is_replaying: Cell<bool>,
    /// When the session opened, since the thread's start.
    opened: Duration,
    /// Where the registry keeps this session.
    registry_slot: Cell<usize>,
    /// Set by the first panic. Nothing but the closing of the socket follows.
    has_panicked: Cell<bool>,
    _permits: Permits,
}

impl Session {
    fn new(services: Rc<Services>, socket: Rc<Socket>, client: Client, permits: Permits) -> Self {
        let now = services.now();
        let route_metrics = RouteMetrics::of(&client.route.borrow().path);
        Self {
            route_metrics,
            socket,
            rates: Default::default(),
            heartbeat: Heartbeat::new(now),
            credentials: CredentialState::new(now),
            inbox: RefCell::default(),
            bridge: RefCell::default(),
            waiting_bytes: Cell::new(0),
            is_replaying: Cell::new(false),
            subscription: RefCell::default(),
            opened: now,
            registry_slot: Cell::new(0),
            has_panicked: Cell::new(false),
            _permits: permits,
            services,
            client,
        }
    }

    /// Sends an event of the gateway's own, to this connection alone.
    fn send_event(&self, json: &str) {
        if self.client.route.borrow().timestamps {
            self.socket.send_text(&with_timestamp(json, &clock::now_rfc3339()));
        } else {
            self.socket.send_text(json);
        }
    }

    /// Identifies this connection in log lines.
    fn log_fields(&self) -> ConnectionFields<'_> {
        let Client { connection_id, request_id, user_id, channel, .. } = &self.client;
        let (connection, user) = (*connection_id, user_id.as_ref());
        ConnectionFields { connection, request: request_id, user, channel: channel.as_ref() }
    }
}
