//! The accept loop, and the thread's end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::http::{Connection, Front};
use crate::broker::{Broker, Publisher, Seat};
use crate::config;
use crate::control;
use crate::generations::Generations;
use crate::handshake::Handshake;
use crate::limits::{ConnectionCounts, LeaseSet, LimitName, SharedLimits};
use crate::presence::PresenceStore;
use crate::proxy::Proxy;
use crate::session::{self, Attached, Permits, Presence, Roster, Services};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tokens::Authenticator;
use crate::upstream::{Upstreams, UpstreamsShared};

/// After an accept that failed (no file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection over `max_connections` is told; nothing is read from it.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Everything a worker thread is started with.
pub struct Worker {
    /// It does what one thread of a node is enough for.
    pub is_first: bool,
    pub listener: std::net::TcpListener,
    pub server: config::Server,
    pub proxy: config::Proxy,
    pub routes: Vec<Arc<config::Route>>,
    pub upstream_kinds: Arc<BTreeMap<String, Arc<config::Upstream>>>,
    pub handshake: Arc<Handshake>,
    pub authenticator: Authenticator,
    pub seat: Seat,
    pub orders: control::Seat,
    pub publisher: Publisher,
    pub upstreams: UpstreamsShared,
    pub generations: Generations,
    pub control: control::Control,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
    pub counts: ConnectionCounts,
    pub shutdown: Shutdown,
    pub stop: config::Shutdown,
}

impl Worker {
    /// Runs until drained or killed. Blocks the thread.
    pub fn run(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(self) -> std::io::Result<()> {
        let shutdown = self.shutdown.clone();
        let drain_waits_for_it = shutdown.track();
        let stop = self.stop.clone();
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let counts = self.counts.clone();
        let (is_first, routes) = (self.is_first, self.routes.clone());
        let (front, orders) = self.front()?;
        let services = Rc::clone(&front.services);
        let sweeping = Rc::clone(&services);
        tokio::task::spawn_local(async move { sweeping.roster.sweep().await });
        tokio::task::spawn_local(Rc::clone(&services.leases).run());
        if is_first {
            tokio::task::spawn_local(session::take_over(Rc::clone(&services), routes));
        }
        tokio::task::spawn_local(session::take_orders(Rc::clone(&services), orders));
        let announcing = Rc::clone(&services);
        tokio::task::spawn_local(async move { announcing.presence.run().await });
        tokio::select! {
            () = accept_all(&listener, &front, &counts) => {}
            () = shutdown.draining() => {}
        }
        drop(listener);
        drop(front);
        tokio::select! {
            () = services.roster.drain(&stop) => {}
            () = shutdown.killed() => {}
        }
        services.leave().await;
        drop(drain_waits_for_it);
        // Replies that still stream belong to this thread's runtime.
        shutdown.killed().await;
        Ok(())
    }

    fn front(self) -> std::io::Result<(Rc<Front>, control::Seat)> {
        let (broker, deliveries) = Broker::take(self.seat);
        tokio::task::spawn_local(deliveries);
        let finest = self
            .routes
            .iter()
            .flat_map(|route| {
                let heartbeat = [route.idle_ping, route.pong_timeout];
                heartbeat.into_iter().chain(route.max_session).chain(route.expiry_notice)
            })
            .min()
            .unwrap_or(Duration::from_secs(1));
        let services = Services {
            broker,
            history: self.publisher.history(),
            presence: Presence::new(self.presence, self.publisher.clone()),
            publisher: self.publisher,
            upstreams: Upstreams::new(&self.upstreams),
            generations: self.generations,
            control: self.control,
            attached: Attached::default(),
            watches: Cell::new(0),
            leases: LeaseSet::new(self.limits.clone()),
            limits: self.limits,
            authenticator: self.authenticator,
            roster: Roster::new(finest),
            shutdown: self.shutdown,
            stop: self.stop,
            started: Instant::now(),
        };
        let proxy = Proxy::new(&self.proxy).map_err(std::io::Error::other)?;
        let front = Front::new(
            self.server,
            self.handshake,
            proxy,
            self.counts,
            self.upstream_kinds,
            Rc::new(services),
        );
        Ok((Rc::new(front), self.orders))
    }
}

async fn accept_all(listener: &TcpListener, front: &Rc<Front>, counts: &ConnectionCounts) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => accept(stream, peer, front, counts),
            Err(error) => {
                telemetry::listener::accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(stream: TcpStream, peer: SocketAddr, front: &Rc<Front>, counts: &ConnectionCounts) {
    let _latency_only = stream.set_nodelay(true);
    let Some(process) = counts.enter() else {
        telemetry::limits::local_limit_refused(LimitName::ConnectionsTotal.label());
        let _best_effort = stream.try_write(FULL);
        return;
    };
    // Behind a trusted proxy the client's address is known only with the request.
    let (ip, over_ip_limit) = if front.is_trusted(peer.ip()) {
        (None, false)
    } else {
        let ip = counts.enter_ip(peer.ip());
        let over = ip.is_none();
        (ip, over)
    };
    let permits = Permits { process, ip, lease: None };
    let connection = Connection { peer, over_ip_limit, permits };
    tokio::task::spawn_local(Rc::clone(front).serve(stream, connection));
}
