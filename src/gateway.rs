//! Composition root: binds everything before it serves anything, builds the parts, starts the threads,
//! and ends them in order.
//!
//! Threads: one for the engine (the broker's core, Redis connections, the admin port, signals) and
//! one a worker.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::admin::{Admin, ReadyCheck};
use crate::broker::{Core, MemoryHistory, Publisher, Rules, Seat};
use crate::config::{Config, EngineKind, RedisEngine, Secret};
use crate::control::{self, CancelHook, Control, Threads};
use crate::generations::{Generations, Heard, Running, Task};
use crate::handshake::Handshake;
use crate::limits::{ConnectionCounts, SharedLimits};
use crate::listener::Worker;
use crate::presence::PresenceStore;
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tokens::{Authenticator, TokenStore};
use crate::upstream::UpstreamsShared;

/// Connections that the kernel keeps for each worker until they are accepted.
const BACKLOG: i32 = 1024;

/// Histograms are drained this often, so that they do not grow between scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

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
    engine.run(core, &config, &shutdown)?;
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
    for thread in threads {
        let _panicked = thread.join();
    }
    Ok(outcome)
}

/// What lives in memory or in Redis, by config.
struct Engine {
    publisher: Publisher,
    tokens: TokenStore,
    limits: SharedLimits,
    presence: PresenceStore,
    control: Control,
    generations: Generations,
    ready: Vec<(&'static str, ReadyCheck)>,
}

impl Engine {
    fn build(
        config: &Config,
        core: &Core,
        threads: Threads,
        running: Running,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let max_bytes = config.engine.max_publication_bytes;
        let mut ready = vec![("subscriptions", subscriptions_check(core))];
        let histories = config.routes.iter().map(|route| (&route.channel, &route.history));
        let rules = Arc::new(Rules::new(histories));
        Ok(match &config.engine.kind {
            EngineKind::Memory => Self {
                publisher: Publisher::memory(
                    core.intake(),
                    rules,
                    MemoryHistory::new(config.engine.max_history_bytes),
                    max_bytes,
                ),
                tokens: TokenStore::memory(config.tokens.ttl),
                limits: SharedLimits::memory(),
                presence: PresenceStore::memory(),
                control: Control::memory(threads),
                generations: Generations::memory(running, &config.routes),
                ready,
            },
            EngineKind::Redis(redis) => {
                let mut connections = Connections { by_url: HashMap::new(), shutdown };
                let publisher = connections.open("engine.redis.pubsub_url", &redis.pubsub_url)?;
                let tokens = connections.open("engine.redis.tokens_url", &redis.tokens_url)?;
                let limits = connections.open("engine.redis.limits_url", &redis.limits_url)?;
                for (name, commands) in
                    [("redis", &publisher), ("redis_tokens", &tokens), ("redis_limits", &limits)]
                {
                    ready.push((name, redis_check(commands)));
                }
                let control =
                    Control::redis(&redis.pubsub_url, &redis.key_prefix, threads, shutdown)
                        .map_err(|wrong| format!("engine.redis: {wrong}"))?;
                ready.push(("control", control_check(&control)));
                Self {
                    control,
                    // Where the channels are.
                    presence: PresenceStore::redis(publisher.clone(), &redis.key_prefix),
                    generations: Generations::redis(
                        running,
                        &publisher,
                        &redis.key_prefix,
                        &config.routes,
                    ),
                    publisher: Publisher::redis(publisher, &redis.key_prefix, rules, max_bytes),
                    tokens: TokenStore::redis(tokens, &config.tokens.key_prefix, config.tokens.ttl),
                    limits: SharedLimits::redis(limits, &redis.key_prefix),
                    ready,
                }
            }
        })
    }

    /// Waits until Redis answers, so that the first clients need not race it. A Redis that stays away is
    /// not waited for: the gateway serves what it can and says that it is not ready.
    async fn settle(&self, upstreams: &UpstreamsShared) {
        let settled = async {
            while !self.ready.iter().all(|(_, check)| check().is_ok()) || !upstreams.queues_are_up()
            {
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
        };
        let _or_not = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
    }

    /// Starts the broker's core.
    fn run(
        &mut self,
        mut core: Core,
        config: &Config,
        shutdown: &Shutdown,
    ) -> Result<(), StartError> {
        tokio::task::spawn_local(self.generations.ledger.clone().run());
        let tracker = self.generations.tracker.clone();
        core.observed_by(move |channel, json, position| {
            let heard = tracker.hear(channel, json, position);
            if heard == Heard::Drop {
                telemetry::generations::second_end_dropped();
            }
            heard == Heard::Deliver
        });
        match &config.engine.kind {
            EngineKind::Memory => {
                tokio::task::spawn_local(core.run_memory(self.publisher.history()));
            }
            EngineKind::Redis(RedisEngine { pubsub_url, .. }) => {
                let run = core
                    .run_redis(pubsub_url, self.publisher.history(), shutdown.clone())
                    .map_err(|wrong| {
                        StartError::Setting(format!("engine.redis.pubsub_url: {wrong}"))
                    })?;
                tokio::task::spawn_local(run);
            }
        }
        Ok(())
    }
}

fn subscriptions_check(core: &Core) -> ReadyCheck {
    let live = core.live();
    Arc::new(move || live.load(Ordering::Acquire).then_some(()).ok_or("subscriptions are not live"))
}

fn redis_check(commands: &Commands) -> ReadyCheck {
    let commands = commands.clone();
    Arc::new(move || commands.is_up().then_some(()).ok_or("Redis cannot be reached"))
}

/// Orders of other nodes reach this one.
fn control_check(control: &Control) -> ReadyCheck {
    let control = control.clone();
    Arc::new(move || control.is_live().then_some(()).ok_or("orders do not reach this node"))
}

/// Ends what `running` knows, by order of any node.
fn cancels(running: &Running) -> CancelHook {
    let running = running.clone();
    Arc::new(move |channel, task_id| {
        u64::from(running.cancel(&Task { channel: channel.clone(), id: task_id.into() }))
    })
}

/// One command connection for each Redis that the parts live in.
struct Connections<'a> {
    by_url: HashMap<String, Commands>,
    shutdown: &'a Shutdown,
}

impl Connections<'_> {
    fn open(&mut self, key: &'static str, url: &Secret) -> Result<Commands, String> {
        if let Some(commands) = self.by_url.get(url.expose()) {
            return Ok(commands.clone());
        }
        let commands =
            Commands::start(url, key, self.shutdown).map_err(|wrong| format!("{key}: {wrong}"))?;
        self.by_url.insert(url.expose().to_owned(), commands.clone());
        Ok(commands)
    }
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
        .map_err(StartError::Setting)?;
    let handshake = Handshake::new(
        &config.routes,
        &config.origins,
        &config.tokens,
        &config.jwt,
        authenticator.clone(),
        engine.limits.clone(),
        engine.control.reserved_channels().and(engine.generations.ledger.workers_channel()),
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

/// One socket a worker on the same port. `SO_REUSEPORT` would also let a second gateway join in silence,
/// so a socket without it must be able to have the port first.
fn bind_public(
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, StartError> {
    let wrong = |error| StartError::Bind { key: "server.listen", address, error };
    if address.port() != 0 {
        listening_socket(address, false).map_err(wrong)?;
    }
    let mut listeners = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let socket = listening_socket(address, true).map_err(wrong)?;
        let listener = std::net::TcpListener::from(socket);
        address = listener.local_addr().map_err(wrong)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    listening_socket(address, false)
        .map(std::net::TcpListener::from)
        .map_err(|error| StartError::Bind { key: "admin.listen", address, error })
}

fn listening_socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
