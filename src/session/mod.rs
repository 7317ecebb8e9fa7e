//! One connection's life: from the admission to the last byte.
//!
//! A session owns its client's frames, checks, heartbeat, credentials, resume and presence; what becomes of
//! a message that has passed the checks is the business of `replies`. The HTTP phase is over and its memory
//! freed when a session begins. A silent session costs itself, its socket and its place in the thread's driver;
//! queues and tasks exist only while there is work. Sessions reach the hub only through
//! `broker.subscribe`, and do not know how they were admitted.

mod bridge;
mod client;
mod commands;
mod credentials;
mod drain;
mod driver;
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
mod tick;

pub use client::{Arrival, Client, CredentialKind, NewClient, Permits, UpstreamMode};
pub use commands::run_commands;
pub use driver::drive_sessions;
pub use opening::{open, send_and_close};
pub use pass::pass;
pub use presence::Presence;
pub use registry::SessionRegistry;
pub use services::Services;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

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
use tick::Tick;

/// One open connection. `tests.rs` bounds its size.
pub struct Session {
    socket: Rc<Socket>,
    services: Rc<Services>,
    client: Client,
    route_metrics: Arc<RouteMetrics>,
    /// What the client may send per time. `None` until it has sent something.
    rates: OnceCell<Box<RateBuckets>>,
    heartbeat: Heartbeat,
    credentials: CredentialState,
    /// What goes to an upstream. `None` until something has.
    work: OnceCell<Box<Work>>,
    /// Whether the socket is subscribed to the client's channel. [`Session::finish`] ends the subscription.
    is_subscribed: Cell<bool>,
    /// The channel's history is being read and sent.
    is_replaying: Cell<bool>,
    opened: Tick,
    /// Where the registry keeps this session.
    registry_slot: Cell<u32>,
    /// Whether the driver of the thread polls the socket and ends the session, and no task of its own.
    is_driven: Cell<bool>,
    /// Set by the first panic. Nothing but the closing of the socket follows.
    has_panicked: Cell<bool>,
    _permits: Permits,
}

/// What a session keeps of messages on their way to an upstream.
#[derive(Default)]
struct Work {
    inbox: RefCell<Inbox>,
    bridge: RefCell<Option<Rc<Bridge>>>,
    /// How many of the client's bytes wait for the upstream of a pass route.
    waiting_bytes: Cell<usize>,
}

impl Session {
    fn new(services: Rc<Services>, socket: Rc<Socket>, client: Client, permits: Permits) -> Self {
        let now = Tick::at(services.now());
        let route_metrics = RouteMetrics::of(&client.route.borrow().path);
        Self {
            route_metrics,
            socket,
            rates: OnceCell::new(),
            heartbeat: Heartbeat::new(now),
            credentials: CredentialState::new(now),
            work: OnceCell::new(),
            is_replaying: Cell::new(false),
            is_subscribed: Cell::new(false),
            opened: now,
            registry_slot: Cell::new(0),
            is_driven: Cell::new(false),
            has_panicked: Cell::new(false),
            _permits: permits,
            services,
            client,
        }
    }

    /// What there is once something has gone to the upstream.
    fn work(&self) -> &Work {
        self.work.get_or_init(Box::default)
    }

    /// The client's connection to an upstream socket, if it has one.
    fn bridge(&self) -> Option<Rc<Bridge>> {
        self.work.get()?.bridge.borrow().clone()
    }

    /// How many of the client's bytes wait for the upstream of a pass route.
    fn set_waiting_bytes(&self, bytes: usize) {
        if bytes > 0 || self.work.get().is_some() {
            self.work().waiting_bytes.set(bytes);
        }
    }

    /// Sends an event of the gateway's own, to this connection alone.
    fn send_event(&self, json: &str) {
        self.socket.send_text(&self.stamp(json));
    }

    /// Sends an event together with what is published to this client in the same moment.
    fn send_event_with_next(&self, json: &str) {
        if self.socket.send_text_with_next(&self.stamp(json)) {
            self.services.broker.write_soon(&self.socket);
        }
    }

    /// Adds the time to an event, on a route whose events have it.
    fn stamp<'a>(&self, json: &'a str) -> Cow<'a, str> {
        match self.client.route.borrow().timestamps {
            true => with_timestamp(json, &clock::now_rfc3339()).into(),
            false => json.into(),
        }
    }

    /// Identifies this connection in log lines.
    fn log_fields(&self) -> ConnectionFields<'_> {
        let Client { connection_id, request_id, channel, .. } = &self.client;
        let (connection, user) = (*connection_id, self.client.user_id());
        ConnectionFields { connection, request: request_id, user, channel: channel.as_ref() }
    }
}

#[cfg(test)]
mod tests;
