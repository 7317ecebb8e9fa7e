//! The composition root: binds all sockets before it serves anything, builds the parts, starts the
//! threads, and stops them in order.
//!
//! The engine thread runs the broker's core, the Redis connections, the admin port and the signals. Each
//! worker has a thread of its own, unless there is only one.

mod certificates;
mod descriptors;
mod engine;
mod hooks;
mod listen;
mod memory;
mod needs;
mod reload;
mod runtime_config;
mod workers;

pub use listen::Inherited;
pub use reload::ReadConfig;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::acme::{self, Wakers};
use crate::admin::{self, Admin, AdminHandshakes, Listings};
use crate::broker::{Core, WorkerHandle};
use crate::config::{Config, SharedConfig};
use crate::control::{self, Control, Threads};
use crate::generations::RunningTasks;
use crate::http_client;
use crate::limits::{MemoryBudget, NetworkRates, RefusalDelays};
use crate::listener::{ClientLimits, Worker, redirect_all};
use crate::service_manager;
use crate::shutdown::Shutdown;
use crate::socket::TlsHandshakes;
use crate::telemetry;
use crate::telemetry::log::LogControl;
use descriptors::Descriptors;
use engine::Engine;
use listen::Sockets;
use reload::{ConfigPublisher, Reloader};
use runtime_config::RuntimeConfigBuilder;
use workers::Workers;

/// The interval of the histograms' upkeep, which keeps them from growing between scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// How long the process waits at its end until this node has left the channel layer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The addresses that were bound.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// Where plain requests are redirected to https.
    pub redirect: Option<SocketAddr>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All connections and replies ended within the deadline.
    Drained,
    /// A second signal or the deadline ended the remaining connections and replies.
    Forced,
}

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    Bind {
        key: &'static str,
        address: SocketAddr,
        error: std::io::Error,
    },
    /// A setting whose mistake is only detected when it is used.
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

/// What a run of the gateway needs besides its config.
pub struct Process {
    /// Listening sockets that the parent process passed on.
    pub inherited: Inherited,
    /// Controls the log level, the throttle and debug lines.
    pub log: LogControl,
    /// Reads the config again; `None` turns reloads off.
    pub read: Option<ReadConfig>,
}

/// Runs the gateway until a signal ends it, and blocks until then. `ready` is called once everything is
/// served.
pub fn run(
    config: Config,
    process: Process,
    ready: impl FnOnce(Addresses),
) -> Result<Outcome, StartError> {
    let Process { inherited, log, read } = process;
    let sockets = Sockets::bind(&config, inherited)?;
    let metrics = telemetry::recorder::install()
        .map_err(|error| StartError::Setting(format!("metrics: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System { what: "runtime", error })?;
    LocalSet::new().block_on(&runtime, serve(config, read, log, sockets, metrics, ready))
}

async fn serve(
    config: Config,
    read: Option<ReadConfig>,
    log: LogControl,
    sockets: Sockets,
    metrics: PrometheusHandle,
    ready: impl FnOnce(Addresses),
) -> Result<Outcome, StartError> {
    let system = |what| move |error| StartError::System { what, error };
    let signals = Signals::new().map_err(system("signals"))?;
    let addresses = sockets.addresses().map_err(system("listening sockets"))?;
    for key in &config.unchecked_redis {
        telemetry::engine::redis_certificate_unchecked(key);
    }
    let descriptors = Descriptors::raise();
    descriptors.check(&config);
    http_client::reserve_descriptors(descriptors.reserved_from_upstreams());
    let shutdown = Shutdown::new();
    let shared = SharedConfig::new(config);
    let config = shared.load_full();
    let Sockets { public, admin, redirect, is_inherited } = sockets;
    let (core, broker_handles) = Core::new(public.len(), config.engine.max_publication_bytes);
    let running = RunningTasks::default();
    let (threads, command_handles) = Threads::new(public.len(), hooks::cancel(&running));
    let threads =
        threads.with_debug(hooks::debug(&log)).with_generations(hooks::generations(&running));
    let mut engine =
        Engine::build(&shared, &core, threads, running, &shutdown).map_err(StartError::Setting)?;
    let builder = RuntimeConfigBuilder::new(&engine, &config.engine, &shutdown)
        .map_err(StartError::Setting)?;
    let runtime_config =
        Arc::new(builder.build(Arc::clone(&config), None).map_err(StartError::Setting)?);
    telemetry::connections::client_sockets_limited(config.server.max_connections);
    let upstreams = runtime_config.upstreams.clone();
    let (confirm_applied, applied) = mpsc::channel(public.len());
    let publisher = ConfigPublisher {
        shared,
        needs: engine.needs(),
        threads: public.len(),
        descriptors,
        memory: MemoryBudget::new(public.len(), config.server.max_memory),
        runtime: watch::Sender::new(runtime_config),
        applied,
    };
    let handles = broker_handles.into_iter().zip(command_handles);
    let tls = match config.server.tls.is_some() || config.admin.tls.is_some() {
        true => Some(
            TlsHandshakes::start(config.server.threads, &shutdown).map_err(system("TLS thread"))?,
        ),
        false => None,
    };
    certificates::report(None, &config);
    let parts =
        WorkerParts { engine: &engine, publisher: &publisher, confirm_applied, tls: tls.clone() };
    let workers = parts.workers((public, is_inherited), handles, &shutdown);
    let intake_bytes = core.intake().queued_bytes();
    let broker = engine.run(core, &config, &shutdown)?;
    publisher.needs.declare(&config);
    serve_admin((&publisher, tls), admin, &metrics, &engine, &log, &shutdown)
        .map_err(system("admin port"))?;
    if let Some(listener) = redirect {
        let runtime = publisher.runtime.subscribe();
        let redirecting = async move {
            if let Err(error) = redirect_all(listener, runtime).await {
                telemetry::connections::accept_failed(&error);
            }
        };
        tokio::task::spawn_local(shutdown.essential("redirects", redirecting));
    }
    let upkeep = async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            metrics.run_upkeep();
        }
    };
    tokio::task::spawn_local(shutdown.essential("metrics", upkeep));
    let histories = engine.publisher.history();
    let memory = memory::check(publisher.memory.clone(), histories, intake_bytes);
    tokio::task::spawn_local(shutdown.essential("memory budget", memory));
    engine.wait_until_ready(&upstreams).await;
    drop(upstreams);
    let mut workers = Workers::start(workers)?;
    let shared = publisher.shared.clone();
    if let Some(read) = read {
        let wakers = Wakers::default();
        let ordering = acme::run(shared.clone(), wakers.clone(), shutdown.clone());
        let reloader =
            Reloader::new(read, log, builder, publisher, wakers).map_err(system("signals"))?;
        tokio::task::spawn_local(shutdown.essential("reload", reloader.run(shutdown.clone())));
        tokio::task::spawn_local(shutdown.essential("ACME", ordering));
    }
    ready(addresses);
    service_manager::ready();
    let outcome =
        stop_when_requested(signals, &mut workers.ended, &shutdown, &shared, &engine.control).await;
    if let Some(broker) = broker {
        // What is not removed in time expires in Redis.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, broker).await;
    }
    workers.join().await;
    Ok(outcome)
}

/// The parts from which all workers are built.
struct WorkerParts<'a> {
    engine: &'a Engine,
    publisher: &'a ConfigPublisher,
    confirm_applied: mpsc::Sender<()>,
    tls: Option<TlsHandshakes>,
}

impl WorkerParts<'_> {
    fn workers(
        &self,
        (listeners, is_inherited): (Vec<std::net::TcpListener>, bool),
        handles: impl Iterator<Item = (WorkerHandle, control::WorkerHandle)>,
        shutdown: &Shutdown,
    ) -> Vec<Worker> {
        let refusals = RefusalDelays::default();
        let reserved_from = self.publisher.descriptors.reserved_from();
        let client_limits = ClientLimits::new(reserved_from, self.publisher.memory.clone());
        // The only worker runs on the thread of the shared connections.
        let redis = if listeners.len() > 1 { &self.engine.commands[..] } else { &[] };
        let worker = |(number, (listener, (broker, commands)))| Worker {
            is_first: number == 0,
            listener,
            is_inherited,
            runtime_config: self.publisher.runtime.subscribe(),
            applied: self.confirm_applied.clone(),
            broker,
            commands,
            redis: redis.to_vec(),
            publisher: self.engine.publisher.clone(),
            limits: self.engine.limits.clone(),
            presence: self.engine.presence.clone(),
            generations: self.engine.generations.clone(),
            control: self.engine.control.clone(),
            client_limits: client_limits.clone(),
            tls: self.tls.clone(),
            memory: self.publisher.memory.thread(number),
            refusals: refusals.clone(),
            shutdown: shutdown.clone(),
            tracked: shutdown.track(),
        };
        listeners.into_iter().zip(handles).enumerate().map(worker).collect()
    }
}

fn serve_admin(
    (publisher, tls): (&ConfigPublisher, Option<TlsHandshakes>),
    listener: std::net::TcpListener,
    metrics: &PrometheusHandle,
    engine: &Engine,
    log: &LogControl,
    shutdown: &Shutdown,
) -> std::io::Result<()> {
    let shared = &publisher.shared;
    let config = shared.load();
    let runtime = publisher.runtime.subscribe();
    let check_queues = move || {
        let upstreams = runtime.borrow().upstreams.clone();
        let checked = upstreams.check_queues();
        checked.map(|(name, checked)| (format!("upstream.{name}"), checked)).collect()
    };
    let runtime = publisher.runtime.subscribe();
    let tls = tls.map(|handshakes| -> AdminHandshakes {
        let acceptor = move || runtime.borrow().admin_tls.clone();
        (handshakes, Arc::new(acceptor))
    });
    let admin = Admin {
        tls,
        config: shared.clone(),
        // These two only change with a restart, like the token store and the broker that use them.
        token_ttl: config.tokens.ttl,
        max_publication_bytes: config.engine.max_publication_bytes,
        publisher: engine.publisher.clone(),
        history: engine.publisher.history(),
        tails: engine.tails.clone(),
        limits: engine.limits.clone(),
        listings: Listings::default(),
        tokens: engine.tokens.clone(),
        control: engine.control.clone(),
        presence: engine.presence.clone(),
        log: log.clone(),
        ready: engine.ready.clone(),
        ready_queues: Arc::new(check_queues),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        max_connections: publisher.descriptors.for_admin(admin::MAX_CONNECTIONS),
        failed_keys: NetworkRates::default(),
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::task::spawn_local(shutdown.essential("admin port", admin.serve(listener)));
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

async fn stop_when_requested(
    mut signals: Signals,
    worker_ended: &mut mpsc::Receiver<()>,
    shutdown: &Shutdown,
    shared: &SharedConfig,
    control: &Control,
) -> Outcome {
    let (failed, by_api) = tokio::select! {
        () = signals.next() => (false, false),
        () = shutdown.draining() => (false, true),
        _ = worker_ended.recv() => (true, false),
        part = shutdown.failed() => {
            telemetry::process::part_failed(part);
            (true, false)
        }
    };
    let settings = shared.load().shutdown;
    service_manager::stopping();
    shutdown.begin();
    telemetry::process::draining(settings.drain);
    let drained = tokio::select! {
        drained = shutdown.wait(settings.drain + settings.grace) => drained,
        () = async {
            // If the server API started the drain, the first signal only requests the same drain.
            if by_api {
                signals.next().await;
            }
            signals.next().await;
        } => false,
    };
    control.leave().await;
    shutdown.force();
    telemetry::process::stopped(drained);
    if drained && !failed { Outcome::Drained } else { Outcome::Forced }
}
