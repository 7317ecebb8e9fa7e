//! The accept loop of a worker thread, and how the thread ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::RuntimeConfig;
use super::http::{Connection, Front};
use crate::broker::{Broker, Publisher, WorkerHandle};
use crate::control;
use crate::generations::Generations;
use crate::limits::{ConnectionCounts, LeaseSet, SharedLimits};
use crate::presence::PresenceStore;
use crate::replies::{self, Replies, ReplyServices};
use crate::session::{self, Permits, Presence, Services, SessionRegistry};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::telemetry::messages::LocalLimit;

/// Pause after an accept that failed, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// At most this many queued connections are accepted after the accept loop has ended; the kernel's queue
/// is shorter.
const MAX_QUEUED: usize = 4096;

/// The answer to a connection beyond `max_connections`; nothing is read from it.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Everything a worker thread is started with.
pub struct Worker {
    /// This worker also does what only one thread of a node must do.
    pub is_first: bool,
    pub listener: std::net::TcpListener,
    /// Another process has the listener as well, and accepts the connections that this one does not.
    pub handed_over: bool,
    pub runtime_config: watch::Receiver<Arc<RuntimeConfig>>,
    /// Gets a message each time that this thread has taken a new runtime configuration into use.
    pub applied: mpsc::Sender<()>,
    pub broker: WorkerHandle,
    pub commands: control::WorkerHandle,
    pub publisher: Publisher,
    pub generations: Generations,
    pub control: control::Control,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
    pub counts: ConnectionCounts,
    pub shutdown: Shutdown,
}

impl Worker {
    /// Runs until the drain has ended or the process is stopped. Blocks the thread.
    pub fn run(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(self) -> std::io::Result<()> {
        let shutdown = self.shutdown.clone();
        let tracked = shutdown.track();
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let (is_first, handed_over) = (self.is_first, self.handed_over);
        let (runtime_config, applied) = (self.runtime_config.clone(), self.applied.clone());
        let (front, commands) = self.front()?;
        tokio::task::spawn_local(apply_reloads(Rc::clone(&front), runtime_config, applied));
        let services = Rc::clone(&front.services);
        let sweeping = Rc::clone(&services);
        tokio::task::spawn_local(async move { sweeping.registry.sweep().await });
        tokio::task::spawn_local(Rc::clone(&services.leases).run());
        if is_first {
            tokio::task::spawn_local(replies::run_failover(Rc::clone(&services.replies)));
        }
        tokio::task::spawn_local(session::run_commands(Rc::clone(&services), commands));
        let announcing = Rc::clone(&services);
        tokio::task::spawn_local(async move { announcing.presence.run().await });
        tokio::select! {
            () = accept_all(&listener, &front) => {}
            () = shutdown.draining() => {}
        }
        if !handed_over {
            accept_rest(listener, &front)?;
        }
        drop(front);
        let stop = services.config().config.shutdown;
        tokio::select! {
            () = services.registry.drain(&stop) => {}
            () = shutdown.killed() => {}
        }
        services.shut_down().await;
        drop(tracked);
        // Replies that still stream belong to this thread's runtime.
        shutdown.killed().await;
        Ok(())
    }

    fn front(self) -> std::io::Result<(Rc<Front>, control::WorkerHandle)> {
        let (broker, deliveries) = Broker::new(self.broker);
        tokio::task::spawn_local(deliveries);
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
            shutdown: self.shutdown,
            started: Instant::now(),
        };
        let front = Front::new(runtime_config, self.counts, Rc::new(services))
            .map_err(std::io::Error::other)?;
        Ok((Rc::new(front), self.commands))
    }
}

/// Takes each new runtime configuration into use, until the gateway ends.
async fn apply_reloads(
    front: Rc<Front>,
    mut runtime_config: watch::Receiver<Arc<RuntimeConfig>>,
    applied: mpsc::Sender<()>,
) {
    while runtime_config.changed().await.is_ok() {
        let new = Arc::clone(&runtime_config.borrow_and_update());
        if let Err(why) = front.apply(new).await {
            telemetry::process::config_thread_failed(&why);
        }
        // The reload may have stopped waiting; a full queue means that it has.
        let _ = applied.try_send(());
    }
}

async fn accept_all(listener: &TcpListener, front: &Rc<Front>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => accept(stream, peer, front),
            Err(error) => {
                telemetry::connections::accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts the connections that are queued already: closing the listener would reset them.
fn accept_rest(listener: TcpListener, front: &Rc<Front>) -> std::io::Result<()> {
    // The socket is asked directly, since the runtime may not know yet of the latest connections.
    let listener = listener.into_std()?;
    for _ in 0..MAX_QUEUED {
        let Ok((stream, peer)) = listener.accept() else { break };
        stream.set_nonblocking(true)?;
        accept(TcpStream::from_std(stream)?, peer, front);
    }
    Ok(())
}

fn accept(stream: TcpStream, peer: SocketAddr, front: &Rc<Front>) {
    // Without it the connection works as well, only slower.
    let _ = stream.set_nodelay(true);
    let Some(process) = front.enter() else {
        telemetry::messages::local_limit_refused(LocalLimit::ConnectionsTotal);
        // Whoever does not get the answer sees the connection closed.
        let _ = stream.try_write(FULL);
        return;
    };
    // Behind a trusted proxy, the client's address is known only with the request.
    let (ip, over_ip_limit) = if front.is_trusted(peer.ip()) {
        (None, false)
    } else {
        let ip = front.enter_ip(peer.ip());
        let over = ip.is_none();
        (ip, over)
    };
    let permits = Permits { process, ip, lease: None };
    let tracked = front.services.shutdown.track();
    let connection = Connection { peer, over_ip_limit, permits, tracked };
    tokio::task::spawn_local(Rc::clone(front).serve(stream, connection));
}
