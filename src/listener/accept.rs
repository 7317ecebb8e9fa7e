//! The accept loop of a worker thread, and how the thread ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::RuntimeConfig;
use super::http::{Connection, HttpFrontend};
use crate::broker::{Broker, Publisher, WorkerHandle};
use crate::control;
use crate::generations::Generations;
use crate::limits::{ConnectionCounts, LeaseSet, RefusalDelays, SharedLimits};
use crate::presence::PresenceStore;
use crate::replies::{self, Replies, ReplyServices};
use crate::session::{self, Permits, Presence, Services, SessionRegistry};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::telemetry::messages::LocalLimit;

/// The pause after an accept that failed, for example because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The most queued connections that are accepted after the accept loop has ended. The kernel's queue is shorter.
const MAX_QUEUED: usize = 4096;

/// The response to a connection beyond `max_connections`. Its request is not read.
const OVER_LIMIT_RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Everything that a worker thread needs to start.
pub struct Worker {
    /// Whether this worker also runs the tasks that only one thread of a node must run.
    pub is_first: bool,
    pub listener: std::net::TcpListener,
    /// Whether the listener was inherited. Another process may have it as well, and accepts the connections that this
    /// process does not.
    pub is_inherited: bool,
    pub runtime_config: watch::Receiver<Arc<RuntimeConfig>>,
    /// Receives a message each time this thread has applied a new runtime configuration.
    pub applied: mpsc::Sender<()>,
    pub broker: WorkerHandle,
    pub commands: control::WorkerHandle,
    pub publisher: Publisher,
    pub generations: Generations,
    pub control: control::Control,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
    pub counts: ConnectionCounts,
    pub refusals: RefusalDelays,
    pub shutdown: Shutdown,
}

impl Worker {
    /// Serves connections until the process is killed. Blocks the thread.
    pub fn run(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(self) -> std::io::Result<()> {
        let shutdown = self.shutdown.clone();
        let tracked = shutdown.track();
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let (is_first, is_inherited) = (self.is_first, self.is_inherited);
        let (runtime_config, applied) = (self.runtime_config.clone(), self.applied.clone());
        let (frontend, commands) = self.build_frontend()?;
        let part = shutdown
            .essential("reloads", apply_reloads(Rc::clone(&frontend), runtime_config, applied));
        tokio::task::spawn_local(part);
        let services = Rc::clone(&frontend.services);
        let sweeping = Rc::clone(&services);
        let part = shutdown.essential("timers", async move { sweeping.registry.sweep().await });
        tokio::task::spawn_local(part);
        let part = shutdown.essential("leases", Rc::clone(&services.leases).run());
        tokio::task::spawn_local(part);
        if is_first {
            let part =
                shutdown.essential("failover", replies::run_failover(Rc::clone(&services.replies)));
            tokio::task::spawn_local(part);
        }
        let part =
            shutdown.essential("commands", session::run_commands(Rc::clone(&services), commands));
        tokio::task::spawn_local(part);
        let announcing = Rc::clone(&services);
        let part = shutdown.essential("presence", async move { announcing.presence.run().await });
        tokio::task::spawn_local(part);
        tokio::select! {
            () = accept_all(&listener, &frontend) => {}
            () = shutdown.draining() => {}
        }
        if !is_inherited {
            accept_queued(listener, &frontend)?;
        }
        drop(frontend);
        let stop = services.config().config.shutdown;
        tokio::select! {
            () = services.registry.drain(&stop) => {}
            () = shutdown.killed() => {}
        }
        services.shut_down().await;
        drop(tracked);
        // Replies that are still being streamed need this thread's runtime.
        shutdown.killed().await;
        Ok(())
    }

    fn build_frontend(self) -> std::io::Result<(Rc<HttpFrontend>, control::WorkerHandle)> {
        let (broker, deliveries) = Broker::new(self.broker);
        let part = self.shutdown.essential("deliveries", deliveries);
        tokio::task::spawn_local(part);
        let runtime_config = Arc::clone(&self.runtime_config.borrow());
        let leases = LeaseSet::new(self.limits.clone());
        let reply_services = ReplyServices {
            broker: Rc::clone(&broker),
            publisher: self.publisher.clone(),
            generations: self.generations,
            control: self.control.clone(),
            limits: self.limits,
            leases: Rc::clone(&leases),
            shutdown: self.shutdown.clone(),
        };
        let services = Services {
            replies: Replies::new(reply_services, runtime_config.for_thread(None)),
            broker,
            history: self.publisher.history(),
            presence: Presence::new(self.presence, self.publisher),
            registry: SessionRegistry::new(&runtime_config.config.routes),
            leases,
            control: self.control,
            refusals: self.refusals,
            shutdown: self.shutdown,
            started: Instant::now(),
        };
        let frontend = HttpFrontend::new(runtime_config, self.counts, Rc::new(services))
            .map_err(std::io::Error::other)?;
        Ok((Rc::new(frontend), self.commands))
    }
}

/// Applies each new runtime configuration, until the gateway ends.
async fn apply_reloads(
    frontend: Rc<HttpFrontend>,
    mut runtime_config: watch::Receiver<Arc<RuntimeConfig>>,
    applied: mpsc::Sender<()>,
) {
    while runtime_config.changed().await.is_ok() {
        let new = Arc::clone(&runtime_config.borrow_and_update());
        if let Err(error) = frontend.apply(new).await {
            telemetry::process::config_thread_failed(&error);
        }
        // If the queue is full, the reload has stopped waiting.
        let _ = applied.try_send(());
    }
}

async fn accept_all(listener: &TcpListener, frontend: &Rc<HttpFrontend>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => accept(stream, peer, frontend),
            Err(error) => {
                telemetry::connections::accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts the connections in the kernel's queue, which closing the listener would reset.
fn accept_queued(listener: TcpListener, frontend: &Rc<HttpFrontend>) -> std::io::Result<()> {
    // The socket is used directly, since the runtime may not have seen the latest connections yet.
    let listener = listener.into_std()?;
    for _ in 0..MAX_QUEUED {
        let Ok((stream, peer)) = listener.accept() else { break };
        stream.set_nonblocking(true)?;
        accept(TcpStream::from_std(stream)?, peer, frontend);
    }
    Ok(())
}

fn accept(stream: TcpStream, peer: SocketAddr, frontend: &Rc<HttpFrontend>) {
    // If this fails, the connection still works, only slower.
    let _ = stream.set_nodelay(true);
    let Some(process) = frontend.acquire_permit() else {
        telemetry::messages::local_limit_refused(LocalLimit::ConnectionsTotal);
        // A client that does not get the response sees that the connection was closed.
        let _ = stream.try_write(OVER_LIMIT_RESPONSE);
        return;
    };
    // Behind a trusted proxy, the client's address is only known from the request.
    let (ip, over_ip_limit) = if frontend.is_trusted(peer.ip()) {
        (None, false)
    } else {
        let ip = frontend.acquire_ip_permit(peer.ip());
        let over_ip_limit = ip.is_none();
        (ip, over_ip_limit)
    };
    let permits = Permits { process, ip, lease: None };
    let tracked = frontend.services.shutdown.track();
    let connection = Connection { peer, over_ip_limit, permits, tracked };
    tokio::task::spawn_local(Rc::clone(frontend).serve(stream, connection));
}
