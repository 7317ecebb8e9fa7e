//! The config read again while the gateway runs: at SIGHUP, and when its file has changed.
//!
//! Invariants: everything that can fail is made before anything is replaced, so a bad file changes nothing;
//! what only takes effect with a start stays as it is, and is named.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::terms::RuntimeConfigBuilder;
use crate::admin::ApiKeys;
use crate::broker::Rules;
use crate::config::{self, Config};
use crate::generations::Generations;
use crate::limits::ConnectionCounts;
use crate::listener::RuntimeConfig;
use crate::proxy::Proxy;
use crate::service_manager;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::telemetry::log::{LogControl, LogThrottle};

/// How long an upstream's queue that is new may take to be reached before messages are sent to it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// How long threads may take to serve by new terms before that is said to be done.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the config; `Err` = its mistakes.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What a reload replaces.
pub(super) struct Live {
    pub log: LogControl,
    pub maker: RuntimeConfigBuilder,
    pub terms: watch::Sender<Arc<RuntimeConfig>>,
    /// A word of each thread that serves by new terms.
    pub adopted: mpsc::Receiver<()>,
    pub threads: usize,
    pub counts: ConnectionCounts,
    pub rules: Arc<Rules>,
    pub generations: Generations,
    pub api_keys: ApiKeys,
}

/// Reads the config again, as long as the gateway takes clients.
pub(super) struct Reloader {
    read: ReadConfig,
    live: Live,
    /// In force.
    config: Config,
    /// What was read when the config was last looked at in earnest.
    seen: Result<Config, String>,
    hangup: Signal,
}

impl Reloader {
    pub fn new(read: ReadConfig, live: Live, config: Config) -> std::io::Result<Self> {
        telemetry::process::config_loaded();
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { read, live, seen: Ok(config.clone()), config, hangup })
    }

    /// Until the gateway drains.
    pub async fn run(mut self, shutdown: Shutdown) {
        // What a look found that differs from `seen`. A file may be looked at while it is written, so it is
        // read once more before it counts.
        let mut found = None;
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                () = tick(self.config.reload.watch) => false,
                () = shutdown.draining() => return,
            };
            let Some(read) = self.read().await else { continue };
            if asked {
                found = None;
                self.reload(read).await;
                continue;
            }
            if read == self.seen {
                found = None;
            } else if found.as_ref() == Some(&read) {
                found = None;
                self.reload(read).await;
            } else {
                found = Some(read);
            }
        }
    }

    /// `None` = the process ends.
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
        self.seen = read;
        service_manager::ready();
    }

    async fn apply(&mut self, mut new: Config) {
        let waiting = keep_what_needs_a_restart(&self.config, &mut new);
        let changed = changed_sections(&self.config, &new);
        if changed.is_empty() {
            telemetry::process::config_unchanged();
            return telemetry::process::restart_needed(&waiting);
        }
        let before = Arc::clone(&self.live.terms.borrow());
        let terms = self
            .live
            .maker
            .make(&new, Some((&self.config, &before)))
            .and_then(|terms| Proxy::new(&new.proxy).map(|_for_each_thread| terms))
            // The last that can fail, since it is not made but done.
            .and_then(|terms| self.live.log.set_level(&new.log.level).map(|()| terms));
        let terms = match terms {
            Ok(terms) => terms,
            Err(why) => return telemetry::process::config_rejected(&why),
        };
        settle(&terms).await;
        let Live { counts, rules, generations, api_keys, .. } = &self.live;
        self.live.log.set_throttle(repeats(&new.log));
        counts.set_limits(new.server.max_connections, new.server.max_connections_per_ip);
        rules.replace(new.routes.iter().map(|route| (&route.channel, &route.history)));
        generations.replace_routes(&new.routes);
        api_keys.replace(new.admin.api_keys.clone());
        self.live.adopt(terms).await;
        self.config = new;
        telemetry::process::config_reloaded(&changed);
        telemetry::process::restart_needed(&waiting);
    }
}

impl Live {
    /// Completes when all threads serve by `terms`. One that is busy for long takes them when it can.
    async fn adopt(&mut self, terms: RuntimeConfig) {
        while self.adopted.try_recv().is_ok() {}
        self.terms.send_replace(Arc::new(terms));
        let all = async {
            for _ in 0..self.threads {
                self.adopted.recv().await;
            }
        };
        let _busy = tokio::time::timeout(ADOPT_TIMEOUT, all).await;
    }
}

fn repeats(log: &config::Log) -> Option<LogThrottle> {
    log.repeats.map(|rate| LogThrottle { lines: rate.count.into(), interval: rate.per })
}

async fn tick(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// A queue that cannot be reached is not waited for longer: messages are refused, as ever.
async fn settle(terms: &RuntimeConfig) {
    let settled = async {
        while !terms.upstreams.queues_are_up() {
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    };
    let _or_not = tokio::time::timeout(SETTLE_TIMEOUT, settled).await;
}

/// Puts back into `new` what is in force until the process ends; the names of what differed.
fn keep_what_needs_a_restart(current: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($name:literal: $($field:ident).+),+ $(,)?) => {
            $(if new.$($field).+ != current.$($field).+ {
                new.$($field).+ = current.$($field).+.clone();
                kept.push($name);
            })+
        };
    }
    keep! {
        "server.listen": server.listen,
        "server.reuse_port": server.reuse_port,
        "server.threads": server.threads,
        "admin.listen": admin.listen,
        "engine": engine,
        "tokens.ttl": tokens.ttl,
        "tokens.key_prefix": tokens.key_prefix,
        "tokens.format": tokens.format,
        "jwt.session_version": jwt.session_version,
        "tracing": tracing,
        "log.format": log.format,
    }
    kept
}

/// The sections whose settings differ.
fn changed_sections(current: &Config, new: &Config) -> Vec<&'static str> {
    // Taken apart, so that no section is forgotten.
    let Config {
        server,
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
    } = new;
    let sections = [
        ("server", *server != current.server),
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
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let route = "[[route]]\npath = \"/\"\nchannel = \"all\"\nauth = [\"anonymous\"]\n";
        Config::from_toml(&format!("{text}\n{route}")).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Differs in everything that needs a restart, and in something that does not.
    const OTHER: &str = r#"
server = { listen = "127.0.0.1:1", reuse_port = true, threads = 1023, max_connections = 7 }
admin.listen = "127.0.0.1:2"
engine = { kind = "redis", redis.url = "redis://127.0.0.1:3" }
tokens = { ttl = "1s", key_prefix = "other:", format = "django" }
jwt.session_version = { key = "version:{user_id}" }
tracing.otlp_endpoint = "http://127.0.0.1:4"
log.format = "json"
"#;

    #[test]
    fn what_needs_a_restart_stays_and_is_documented() {
        let (current, mut new) = (config(""), config(OTHER));
        let kept = keep_what_needs_a_restart(&current, &mut new);
        assert_eq!(changed_sections(&current, &new), ["server"]);
        assert_eq!(new.server.max_connections, 7);
        assert!(keep_what_needs_a_restart(&current, &mut new).is_empty());
        let page = include_str!("../../docs/reload.md");
        let section = page.split("## What needs a restart").nth(1).unwrap().split("\n## ").next();
        let rows = section.unwrap().lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.split('|').nth(1).unwrap());
        let mut documented: Vec<&str> = cells
            .flat_map(|cell| cell.split(',').map(|key| key.trim().trim_matches('`')))
            .collect();
        let mut kept = kept;
        documented.sort_unstable();
        kept.sort_unstable();
        assert_eq!(documented, kept);
    }

    #[test]
    fn the_same_text_changes_nothing() {
        let (current, mut new) = (config(OTHER), config(OTHER));
        assert!(keep_what_needs_a_restart(&current, &mut new).is_empty());
        assert!(changed_sections(&current, &new).is_empty());
    }
}
