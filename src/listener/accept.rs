//! The accept loop of a worker thread, and how the thread ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::RuntimeConfig;
use super::client_limits::ClientLimits;
use super::http::HttpFrontend;
use crate::broker::{Broker, Publisher, ThreadPublisher, WorkerHandle};
use crate::control;
use crate::generations::Generations;
use crate::limits::{LeaseSet, RefusalDelays, SharedLimits, ThreadBudget};
use crate::presence::PresenceStore;
use crate::redis_link::Commands;
use crate::replies::{self, Replies, ReplyServices};
use crate::session::{self, Presence, Services, SessionRegistry};
use crate::shutdown::Shutdown;
use crate::socket::{
    ClientListener, ClientTcp, TlsHandshakes, is_failed_connection, watch_connections,
};
use crate::telemetry;

/// The pause after an accept that failed, for example because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections are accepted before other tasks of the thread run. In one turn the runtime runs 61 of them, so
/// that connections are served and closed as fast as they come, and those that are open do not wait for a flood of them.
const ACCEPTS_PER_TURN: usize = 8;

/// The most queued connections that are accepted after the accept loop has ended, which is more than the kernel queues.
const MAX_QUEUED: usize = 32 * 1024;

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
    /// The connections to Redis of which this thread opens one for itself.
    pub redis: Vec<Commands>,
    pub publisher: Publisher,
    pub generations: Generations,
    pub control: control::Control,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
    pub client_limits: ClientLimits,
    /// `None` = the public port speaks plain HTTP.
    pub tls: Option<TlsHandshakes>,
    pub memory: ThreadBudget,
    pub refusals: RefusalDelays,
    pub shutdown: Shutdown,
    /// Makes a drain wait for this thread, also one that begins before the thread runs: clients may have connected.
    pub tracked: TaskTrackerToken,
}

impl Worker {
    /// Serves connections until the process is killed. Blocks the thread.
    pub fn run(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    /// Serves connections until the process is killed. Must run within a `LocalSet`.
    pub async fn serve(self) -> std::io::Result<()> {
        let shutdown = self.shutdown.clone();
        let tracked = self.tracked.clone();
        let (watching, failing) = (watch_connections()?, shutdown.clone());
        let part = shutdown.essential("connections", async move {
            let Err(error) = watching.await;
            telemetry::connections::accept_failed(&error);
            failing.fail("connections");
        });
        tokio::task::spawn_local(part);
        let listener = ClientListener::new(self.listener.try_clone()?)?;
        let (is_first, is_inherited) = (self.is_first, self.is_inherited);
        let (runtime_config, applied) = (self.runtime_config.clone(), self.applied.clone());
        let memory = self.memory.clone();
        for commands in &self.redis {
            let part = shutdown.essential("redis connection", commands.serve_thread(&shutdown));
            tokio::task::spawn_local(part);
        }
        let (frontend, commands) = self.build_frontend()?;
        let part = shutdown
            .essential("reloads", apply_reloads(Rc::clone(&frontend), runtime_config, applied));
        tokio::task::spawn_local(part);
        let services = Rc::clone(&frontend.services);
        let sweeping = Rc::clone(&services);
        let timers = async move { sweeping.registry.sweep(&memory).await };
        let part = shutdown.essential("timers", timers);
        tokio::task::spawn_local(part);
        let part = shutdown.essential("sessions", session::drive_sessions(Rc::clone(&services)));
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
            accept_queued(&listener, &frontend);
            drop(listener);
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
            publisher: ThreadPublisher::new(&self.publisher, &broker),
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
            addresses: self.client_limits.addresses(),
            refusals: self.refusals,
            shutdown: self.shutdown,
            started: Instant::now(),
        };
        let frontend =
            HttpFrontend::new(runtime_config, self.client_limits, self.tls, Rc::new(services))
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

async fn accept_all(listener: &ClientListener, frontend: &Rc<HttpFrontend>) {
    let mut accepted = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                accept(stream, peer, frontend);
                accepted += 1;
                if accepted % ACCEPTS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_failed_connection(&error) => {}
            Err(error) => {
                telemetry::connections::accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts the connections in the kernel's queue, which closing the listener would reset.
fn accept_queued(listener: &ClientListener, frontend: &Rc<HttpFrontend>) {
    for _ in 0..MAX_QUEUED {
        // The kernel may not have reported the latest ones yet.
        let Some((stream, peer)) = listener.try_accept() else { break };
        accept(stream, peer, frontend);
    }
}

fn accept(stream: ClientTcp, peer: SocketAddr, frontend: &Rc<HttpFrontend>) {
    // On Linux it is inherited from the listener. If this fails, the connection still works, only slower.
    #[cfg(not(target_os = "linux"))]
    let _ = socket2::SockRef::from(&stream).set_tcp_nodelay(true);
    frontend.accept(stream, peer);
}
