//! Reloads the config at SIGHUP and when its file has changed.
//!
//! Invariants: everything that can fail is built before anything is replaced, so a bad file changes nothing;
//! settings that need a restart keep their value, and the log names them.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::certificates;
use super::descriptors::Descriptors;
use super::needs::NeedsDeclarer;
use super::runtime_config::RuntimeConfigBuilder;
use crate::acme::Wakers;
use crate::config::{self, Config, Engine, SharedConfig};
use crate::limits::MemoryBudget;
use crate::listener::RuntimeConfig;
use crate::proxy::Proxy;
use crate::service_manager;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::telemetry::log::{LogControl, LogThrottle};

/// How long a reload waits until new queues are connected.
const QUEUES_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval between checks during that wait.
const QUEUES_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long a reload waits until all threads have applied the new configuration. It completes even if some have not.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the config. The error is a text that lists all mistakes.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Where a new configuration is published, and how its use is confirmed.
pub(super) struct ConfigPublisher {
    /// Declares what the config needs of Redis.
    pub needs: NeedsDeclarer,
    /// Read at each use by parts that live as long as the process.
    pub shared: SharedConfig,
    /// Applied by each worker thread.
    pub runtime: watch::Sender<Arc<RuntimeConfig>>,
    /// Receives a message from each thread that has applied a new runtime configuration.
    pub applied: mpsc::Receiver<()>,
    pub threads: usize,
    pub descriptors: Descriptors,
    pub memory: MemoryBudget,
}

/// Reads the config again, until the gateway drains.
pub(super) struct Reloader {
    read: ReadConfig,
    log: LogControl,
    builder: RuntimeConfigBuilder,
    publisher: ConfigPublisher,
    /// What was read when the config was last applied or rejected.
    last_read: Result<Config, String>,
    hangup: Signal,
    wakers: Wakers,
}

impl Reloader {
    pub fn new(
        read: ReadConfig,
        log: LogControl,
        builder: RuntimeConfigBuilder,
        publisher: ConfigPublisher,
        wakers: Wakers,
    ) -> std::io::Result<Self> {
        telemetry::process::config_loaded();
        let hangup = signal(SignalKind::hangup())?;
        let last_read = Ok(Config::clone(&publisher.shared.load()));
        Ok(Self { read, log, builder, publisher, last_read, hangup, wakers })
    }

    /// Runs until the gateway drains.
    pub async fn run(mut self, shutdown: Shutdown) {
        // A file may be read while it is being written, so a change counts once two reads agree.
        let mut changed = None;
        loop {
            let is_certain = tokio::select! {
                _ = self.hangup.recv() => true,
                () = self.wakers.ordered.notified() => {
                    self.apply_certificate().await;
                    continue;
                }
                () = tick(self.publisher.shared.load().reload.watch) => false,
                () = shutdown.draining() => return,
            };
            let Some(read) = self.read().await else { continue };
            if is_certain || changed.as_ref() == Some(&read) {
                changed = None;
                self.reload(read).await;
                self.wakers.reloaded.notify_one();
            } else {
                changed = (read != self.last_read).then_some(read);
            }
        }
    }

    /// Reads the config on a thread for blocking calls; `None` if the process ends.
    async fn read(&self) -> Option<Result<Config, String>> {
        let read = Arc::clone(&self.read);
        tokio::task::spawn_blocking(move || read()).await.ok()
    }

    async fn reload(&mut self, read: Result<Config, String>) {
        service_manager::reloading();
        match &read {
            Err(mistakes) => telemetry::process::config_rejected(mistakes),
            Ok(config) => self.apply(config.clone()).await,
        }
        self.last_read = read;
        service_manager::ready();
    }

    /// Takes over a certificate that was ordered, and nothing else: the file may be in the middle of a change, or broken.
    async fn apply_certificate(&mut self) {
        let mut new = Config::clone(&self.publisher.shared.load());
        let Some(tls) = &mut new.server.tls else { return };
        let Some(acme) = tls.acme.clone() else { return };
        let Ok(ordered) = tokio::task::spawn_blocking(move || acme.ordered()).await else { return };
        if let Ok(read) = &mut self.last_read
            && let Some(read) = &mut read.server.tls
        {
            read.replace_ordered(ordered.clone());
        }
        tls.replace_ordered(ordered);
        self.apply(new).await;
    }

    async fn apply(&mut self, mut new: Config) {
        let current = Arc::clone(&self.publisher.runtime.borrow());
        let needs_restart = keep_what_needs_a_restart(&current.config, &mut new);
        let changed = changed_sections(&current.config, &new);
        if changed.is_empty() {
            telemetry::process::config_unchanged();
            return telemetry::process::restart_needed(&needs_restart);
        }
        match self.prepare(new, &current) {
            Err(error) => return telemetry::process::config_rejected(&error),
            Ok(runtime_config) => {
                wait_for_queues(&runtime_config).await;
                self.log.set_throttle(log_throttle(&runtime_config.config.log));
                self.publisher.publish(runtime_config).await;
            }
        }
        telemetry::process::config_reloaded(&changed);
        telemetry::process::restart_needed(&needs_restart);
    }

    /// Builds everything that can fail. The log level comes last, since it takes effect at once.
    fn prepare(&self, new: Config, current: &RuntimeConfig) -> Result<RuntimeConfig, String> {
        let runtime_config = self.builder.build(Arc::new(new), Some(current))?;
        let config = &runtime_config.config;
        // Each thread builds its own proxy. This one is only built to detect errors.
        Proxy::new(config, &runtime_config.proxied)?;
        self.log.set_level(&config.log.level)?;
        Ok(runtime_config)
    }
}

impl ConfigPublisher {
    /// Publishes `new` and waits until all threads have applied it, but not longer than [`APPLY_TIMEOUT`].
    async fn publish(&mut self, new: RuntimeConfig) {
        while self.applied.try_recv().is_ok() {}
        telemetry::connections::client_sockets_limited(new.config.server.max_connections);
        self.descriptors.check(&new.config);
        self.memory.set_max(new.config.server.max_memory);
        certificates::report(Some(&self.shared.load_full()), &new.config);
        self.shared.replace(Arc::clone(&new.config));
        self.needs.declare(&new.config);
        self.runtime.send_replace(Arc::new(new));
        let all_applied = async {
            for _ in 0..self.threads {
                self.applied.recv().await;
            }
        };
        // A thread that is too busy applies it later.
        let _ = tokio::time::timeout(APPLY_TIMEOUT, all_applied).await;
    }
}

fn log_throttle(log: &config::Log) -> Option<LogThrottle> {
    log.repeats.map(|rate| LogThrottle { lines: rate.count.into(), interval: rate.per })
}

async fn tick(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// Waits for a short time until new queues are connected.
async fn wait_for_queues(runtime_config: &RuntimeConfig) {
    let ready = async {
        while !runtime_config.upstreams.queues_are_up() {
            tokio::time::sleep(QUEUES_POLL_INTERVAL).await;
        }
    };
    // Messages to a queue that is not connected are refused, as always.
    let _ = tokio::time::timeout(QUEUES_TIMEOUT, ready).await;
}

/// Resets the settings in `new` that need a restart to their current values. Returns the keys that differed.
fn keep_what_needs_a_restart(current: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut needs_restart = Vec::new();
    macro_rules! keep {
        ($($name:literal: $($field:ident).+),+ $(,)?) => {
            $(if new.$($field).+ != current.$($field).+ {
                new.$($field).+ = current.$($field).+.clone();
                needs_restart.push($name);
            })+
        };
    }
    keep! {
        "server.listen": server.listen,
        "server.reuse_port": server.reuse_port,
        "server.threads": server.threads,
        "admin.listen": admin.listen,
        "tokens.ttl": tokens.ttl,
        "tokens.key_prefix": tokens.key_prefix,
        "tokens.format": tokens.format,
        "jwt.session_version": jwt.session_version,
        "tracing": tracing,
        "log.format": log.format,
    }
    if new.server.tls.is_some() != current.server.tls.is_some() {
        new.server.tls = current.server.tls.clone();
        needs_restart.push("server.tls");
    }
    if let (Some(new), Some(current)) = (&mut new.server.tls, &current.server.tls)
        && new.redirect.map(|it| it.listen) != current.redirect.map(|it| it.listen)
    {
        new.redirect = current.redirect;
        needs_restart.push("server.tls.redirect");
    }
    if new.admin.tls.is_some() != current.admin.tls.is_some() {
        new.admin.tls = current.admin.tls.clone();
        needs_restart.push("admin.tls");
    }
    // The prefix of channels is part of the routes.
    let channel_prefix = new.engine.channel_prefix.clone();
    let engine = Engine { channel_prefix, ..current.engine.clone() };
    if new.engine != engine {
        new.engine = engine;
        needs_restart.push("engine");
    }
    new.update_reserved();
    needs_restart
}

/// The sections whose settings differ.
fn changed_sections(current: &Config, new: &Config) -> Vec<&'static str> {
    // Destructured, so that the compiler reports a section that is missing here.
    let Config {
        server,
        limits,
        admin,
        shutdown,
        reload,
        engine,
        tokens,
        jwt,
        origins,
        proxy,
        routes,
        replies,
        upstreams,
        tracing,
        log,
        unchecked_redis: _,
        reserved: _,
        load_notices: _,
    } = new;
    let sections = [
        ("server", *server != current.server),
        ("limits", *limits != current.limits),
        ("admin", *admin != current.admin),
        ("shutdown", *shutdown != current.shutdown),
        ("reload", *reload != current.reload),
        ("engine", *engine != current.engine),
        ("tokens", *tokens != current.tokens),
        ("jwt", *jwt != current.jwt),
        ("origins", *origins != current.origins),
        ("proxy", *proxy != current.proxy),
        ("route", *routes != current.routes || *replies != current.replies),
        ("upstream", *upstreams != current.upstreams),
        ("tracing", *tracing != current.tracing),
        ("log", *log != current.log),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests;
