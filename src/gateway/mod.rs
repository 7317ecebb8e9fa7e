//! Composition root: binds everything before it serves anything, builds the parts, starts the threads,
//! and ends them in order.
//!
//! Threads: one for the engine (the broker's core, Redis connections, the admin port, signals) and
//! one a worker.

mod engine;
mod listen;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::admin::{Admin, Listings};
use crate::broker::{Core, Seat};
use crate::config::{ChannelsWire, Config, EngineKind};
use crate::control::{self, CancelHook, Threads};
use crate::generations::{Running, Task};
use crate::handshake::{Handshake, Routes};
use crate::limits::ConnectionCounts;
use crate::listener::Worker;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tokens::Authenticator;
use crate::upstream::UpstreamsShared;
use engine::Engine;
use listen::{bind_admin, bind_public};

/// Histograms are drained this often, so that they do not grow between scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// At the end, for what other processes are to be told.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What was bound.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything ended by itself.
    Drained,
    /// A second signal or the deadline ended what was left.
    Cut,
}

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    Bind {
        key: &'static str,
        address: SocketAddr,
        error: std::io::Error,
    },
    /// A setting that only shows to be wrong when it is used.
    Setting(String),
    System {
        what: &'static str,
        error: std::io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { key, address, error } => {
                write!(f, "{key}: cannot listen on {address}: {error}")
            }
            Self::Setting(what) => f.write_str(what),
            Self::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the gateway until a signal ends it. Blocks; `ready` is called once everything is served.
pub fn run(config: Config, ready: impl FnOnce(Addresses)) -> Result<Outcome, StartError> {
    let listeners = bind_public(config.server.listen, config.server.threads)?;
    let admin = bind_admin(config.admin.listen)?;
    let metrics = telemetry::recorder::install()
        .map_err(|error| StartError::Setting(format!("metrics: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System { what: "runtime", error })?;
    LocalSet::new().block_on(&runtime, serve(config, listeners, admin, metrics, ready))
}

async fn serve(
    config: Config,
    listeners: Vec<std::net::TcpListener>,
    admin: std::net::TcpListener,
    metrics: PrometheusHandle,
    ready: impl FnOnce(Addresses),
) -> Result<Outcome, StartError> {
    let system = |what| move |error| StartError::System { what, error };
    let signals = Signals::new().map_err(system("signals"))?;
    let addresses = Addresses {
        public: listeners[0].local_addr().map_err(system("public port"))?,
        admin: admin.local_addr().map_err(system("admin port"))?,
    };
    for key in &config.unchecked_redis {
        telemetry::engine::redis_certificate_unchecked(key);
    }
    let shutdown = Shutdown::new();
    let (core, broker_seats) = Core::new(listeners.len(), config.engine.max_publication_bytes);
    let running = Running::default();
    let (threads, order_seats) = Threads::new(listeners.len(), cancels(&running));
    let mut engine =
        Engine::build(&config, &core, threads, running, &shutdown).map_err(StartError::Setting)?;
    let upstreams = UpstreamsShared::new(&config.upstreams, &config.engine, &shutdown)
        .map_err(StartError::Setting)?;
    let seats = broker_seats.into_iter().zip(order_seats);
    let workers = workers(&config, listeners, seats, &engine, &upstreams, &shutdown)?;
    let broker = engine.run(core, &config, &shutdown)?;
    serve_admin(&config, admin, &metrics, &engine, &shutdown).map_err(system("admin port"))?;
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            metrics.run_upkeep();
        }
    });
    engine.settle(&upstreams).await;
    let (threads, worker_ended) = start(workers)?;
    ready(addresses);
    let outcome = stop_when_asked(signals, worker_ended, &shutdown, &config.shutdown).await;
    if let Some(broker) = broker {
        let _or_forgotten_in_time = tokio::time::timeout(LEAVE_TIMEOUT, broker).await;
    }
    for thread in threads {
        let _panicked = thread.join();
    }
    Ok(outcome)
}

/// Ends what `running` knows, by order of any node.
fn cancels(running: &Running) -> CancelHook {
    let running = running.clone();
    Arc::new(move |channel, task_id| {
        u64::from(running.cancel(&Task { channel: channel.clone(), id: task_id.into() }))
    })
}

fn workers(
    config: &Config,
    listeners: Vec<std::net::TcpListener>,
    seats: impl Iterator<Item = (Seat, control::Seat)>,
    engine: &Engine,
    upstreams: &UpstreamsShared,
    shutdown: &Shutdown,
) -> Result<Vec<Worker>, StartError> {
    let authenticator = Authenticator::new(&config.tokens, &config.jwt, engine.tokens.clone())
        .map_err(StartError::Setting)?
        .with_session_versions(engine.versions.clone());
    let handshake = Handshake::new(
        Routes::new(&config.routes, &config.replies),
        &config.origins,
        &config.tokens,
        &config.jwt,
        authenticator.clone(),
        engine.limits.clone(),
        engine
            .control
            .reserved_channels()
            .and(engine.generations.ledger.workers_channel())
            .and_no_groups(has_groups(&config.engine)),
    )
    .map_err(StartError::Setting)?;
    let handshake = Arc::new(handshake);
    let upstream_kinds = Arc::new(config.upstreams.clone());
    let counts =
        ConnectionCounts::new(config.server.max_connections, config.server.max_connections_per_ip);
    let worker = |(number, (listener, (seat, orders)))| Worker {
        is_first: number == 0,
        listener,
        seat,
        orders,
        server: config.server.clone(),
        proxy: config.proxy.clone(),
        routes: config.routes.clone(),
        upstream_kinds: Arc::clone(&upstream_kinds),
        handshake: Arc::clone(&handshake),
        authenticator: authenticator.clone(),
        publisher: engine.publisher.clone(),
        upstreams: upstreams.clone(),
        limits: engine.limits.clone(),
        presence: engine.presence.clone(),
        generations: engine.generations.clone(),
        control: engine.control.clone(),
        counts: counts.clone(),
        shutdown: shutdown.clone(),
        stop: config.shutdown.clone(),
    };
    Ok(listeners.into_iter().zip(seats).enumerate().map(worker).collect())
}

/// Whether every channel is a group of a channel layer that takes some names only.
fn has_groups(engine: &crate::config::Engine) -> bool {
    let EngineKind::Redis(redis) = &engine.kind else { return false };
    redis.channels.as_ref().is_some_and(|layer| layer.wire == ChannelsWire::Core)
}

/// The worker threads, and a channel that closes when the first of them has ended.
type Started = (Vec<JoinHandle<()>>, mpsc::Receiver<()>);

fn start(workers: Vec<Worker>) -> Result<Started, StartError> {
    let (ended, worker_ended) = mpsc::channel(1);
    let threads = workers
        .into_iter()
        .enumerate()
        .map(|(number, worker)| {
            let ended = ended.clone();
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                if let Err(error) = worker.run() {
                    tracing::error!(event = "worker_failed", %error, "a worker thread failed");
                }
                let _told_already = ended.try_send(());
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| StartError::System { what: "worker thread", error })?;
    Ok((threads, worker_ended))
}

fn serve_admin(
    config: &Config,
    listener: std::net::TcpListener,
    metrics: &PrometheusHandle,
    engine: &Engine,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let admin = Admin {
        settings: config.admin.clone(),
        token_ttl: config.tokens.ttl,
        max_publication_bytes: config.engine.max_publication_bytes,
        publisher: engine.publisher.clone(),
        history: engine.publisher.history(),
        tails: engine.tails.clone(),
        limits: engine.limits.clone(),
        routes: config.routes.clone(),
        stop: config.shutdown.clone(),
        listings: Listings::default(),
        tokens: engine.tokens.clone(),
        control: engine.control.clone(),
        presence: engine.presence.clone(),
        ready: engine.ready.clone(),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::task::spawn_local(admin.serve(listener));
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn stop_when_asked(
    mut signals: Signals,
    mut worker_ended: mpsc::Receiver<()>,
    shutdown: &Shutdown,
    settings: &crate::config::Shutdown,
) -> Outcome {
    let failed = tokio::select! {
        () = signals.next() => false,
        () = shutdown.draining() => false,
        _ = worker_ended.recv() => true,
    };
    telemetry::lifecycle::draining(settings.drain);
    shutdown.begin();
    let drained = tokio::select! {
        drained = shutdown.wait(settings.drain + settings.grace) => drained,
        () = signals.next() => false,
    };
    shutdown.force();
    telemetry::lifecycle::stopped(drained);
    if drained && !failed { Outcome::Drained } else { Outcome::Cut }
}
