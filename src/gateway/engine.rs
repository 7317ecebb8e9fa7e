//! Builds the parts whose state is in memory or in Redis, depending on the configured engine, and their readiness
//! checks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::StartError;
use super::needs::NeedsDeclarer;
use crate::admin::ReadyCheck;
use crate::broker::{Canary, Core, History, MemoryHistory, Publisher, ShardCanaries, Tails};
use crate::config::{Config, EngineKind, Jwt, RedisEngine, RedisUrl, SharedConfig};
use crate::control::{Control, Threads};
use crate::generations::{Disposition, Generations, Observed, RunningTasks};
use crate::limits::SharedLimits;
use crate::presence::PresenceStore;
use crate::protocol::{ChannelName, Position, ReplyEnd};
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tokens::{SessionVersions, TokenStore};
use crate::upstream::SharedUpstreams;

/// How long the start waits until everything is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval between checks during that wait.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The parts that all threads share.
pub(super) struct Engine {
    pub publisher: Publisher,
    pub tokens: TokenStore,
    pub versions: Option<SessionVersions>,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
    pub control: Control,
    pub generations: Generations,
    pub tails: Tails,
    pub ready: Vec<(&'static str, ReadyCheck)>,
    /// The connections for commands that worker threads use, which each of them opens once more for itself.
    pub commands: Vec<Commands>,
    /// The canary, with the connection that it publishes on.
    canary: Option<(Canary, Commands)>,
    /// The same for a cluster.
    shard_canaries: Option<ShardCanaries>,
}

impl Engine {
    pub fn build(
        shared: &SharedConfig,
        core: &Core,
        threads: Threads,
        running: RunningTasks,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let config = &*shared.load_full();
        let max_bytes = config.engine.max_publication_bytes;
        let mut ready = vec![("subscriptions", subscriptions_check(core))];
        let mut connections = Connections { by_url: HashMap::new(), shutdown };
        let mut engine = match &config.engine.kind {
            EngineKind::Memory => Self {
                publisher: Publisher::memory(
                    core.intake(),
                    shared.clone(),
                    MemoryHistory::new(config.engine.max_history_bytes),
                    max_bytes,
                ),
                tokens: TokenStore::memory(config.tokens.ttl),
                versions: session_versions(&config.jwt, &mut connections, &mut ready)?,
                limits: SharedLimits::memory(),
                presence: PresenceStore::memory(),
                control: Control::memory(threads),
                tails: core.tails(),
                generations: Generations::memory(running, shared.clone()),
                ready,
                commands: Vec::new(),
                canary: None,
                shard_canaries: None,
            },
            EngineKind::Redis(redis) => {
                let publisher = connections.open("engine.redis.pubsub_url", &redis.pubsub_url)?;
                let tokens = connections.open("engine.redis.tokens_url", &redis.tokens_url)?;
                let limits = connections.open("engine.redis.limits_url", &redis.limits_url)?;
                for (name, commands) in
                    [("redis", &publisher), ("redis_tokens", &tokens), ("redis_limits", &limits)]
                {
                    ready.push((name, redis_check(commands)));
                }
                let versions = session_versions(&config.jwt, &mut connections, &mut ready)?;
                let shard_canaries = publisher
                    .is_cluster()
                    .then(|| ShardCanaries::new(&redis.key_prefix, threads.node()));
                let control = Control::redis(&publisher, &redis.key_prefix, threads, shutdown)
                    .map_err(|error| format!("engine.redis: {error}"))?;
                publisher.declare("control", control.needs());
                ready.push(("control", control_check(&control)));
                let canary = control
                    .canary_channel()
                    .map(|channel| (Canary::new(channel), publisher.clone()));
                if let Some((canary, _)) = &canary {
                    ready.push(("canary", canary_check(canary)));
                }
                if let Some(canaries) = shard_canaries.clone() {
                    ready.push(("canary", Arc::new(move || canaries.check())));
                }
                if redis.channels.is_some() {
                    ready.push(("channel_layer", layer_check(core)));
                }
                Self {
                    control,
                    tails: core.tails(),
                    // Presence is stored on the same Redis as the channels.
                    presence: PresenceStore::redis(publisher.clone(), &redis.key_prefix),
                    generations: Generations::redis(
                        running,
                        &publisher,
                        &redis.key_prefix,
                        shared.clone(),
                    ),
                    publisher: Publisher::redis(
                        publisher,
                        &redis.key_prefix,
                        shared.clone(),
                        max_bytes,
                    ),
                    tokens: TokenStore::redis(
                        tokens,
                        &config.tokens.key_prefix,
                        config.tokens.ttl,
                        config.tokens.format,
                    ),
                    versions,
                    limits: SharedLimits::redis(limits, &redis.key_prefix),
                    ready,
                    commands: Vec::new(),
                    canary,
                    shard_canaries,
                }
            }
        };
        engine.commands = connections.by_url.into_values().collect();
        Ok(engine)
    }

    /// Waits for a short time until Redis and the queues are connected, so that the first clients can be served. The
    /// gateway starts even if they are not, and reports that it is not ready.
    pub async fn wait_until_ready(&self, upstreams: &SharedUpstreams) {
        let all_ready = async {
            while !self.ready.iter().all(|(_, check)| check().is_ok()) || !upstreams.queues_are_up()
            {
                tokio::time::sleep(READY_POLL_INTERVAL).await;
            }
        };
        // After the timeout, `/readyz` reports what is not ready.
        let _ = tokio::time::timeout(READY_TIMEOUT, all_ready).await;
    }

    /// What a config needs of Redis is declared through this, at the start and after each reload.
    pub fn needs(&self) -> NeedsDeclarer {
        NeedsDeclarer {
            publisher: self.publisher.clone(),
            tokens: self.tokens.clone(),
            limits: self.limits.clone(),
            presence: self.presence.clone(),
        }
    }

    /// Starts the broker's core. The returned task ends soon after the process is killed, once it has left the
    /// channel layer.
    pub fn run(
        &mut self,
        mut core: Core,
        config: &Config,
        shutdown: &Shutdown,
    ) -> Result<Option<JoinHandle<()>>, StartError> {
        let ledger = self.generations.ledger.clone().run();
        tokio::task::spawn_local(shutdown.essential("ledger", ledger));
        let tracker = self.generations.tracker.clone();
        // On the memory engine the node that publishes an end records it.
        let history = matches!(config.engine.kind, EngineKind::Redis(_));
        let history = history.then(|| self.publisher.history());
        let ends = tracker.clone();
        core.set_end_reader(move |channel, json| ends.reply_end(channel, json, false));
        core.set_observer(move |channel, json, position| {
            let Observed { disposition, end } = tracker.observe(channel, json, position);
            match disposition {
                Disposition::Drop => telemetry::replies::second_terminal_event_dropped(),
                Disposition::DropCancelled => telemetry::replies::cancelled_event_dropped(),
                Disposition::Deliver | Disposition::Internal => {}
            }
            if let (Some(history), Some(end), Some(position)) = (&history, end, position) {
                settle(history, channel, end, position);
            }
            disposition == Disposition::Deliver
        });
        if let Some((canary, commands)) = self.canary.take() {
            core.set_canary(canary.clone());
            let running = async move { canary.run(&commands).await };
            tokio::task::spawn_local(shutdown.essential("canary", running));
        }
        if let Some(canaries) = self.shard_canaries.take() {
            core.set_shard_canaries(canaries);
        }
        match &config.engine.kind {
            EngineKind::Memory => {
                let broker = core.run_memory(self.publisher.history());
                tokio::task::spawn_local(shutdown.essential("broker", broker));
                Ok(None)
            }
            EngineKind::Redis(redis) => {
                let RedisEngine { pubsub_url, channels, .. } = &**redis;
                let run = core
                    .run_redis(
                        pubsub_url,
                        channels.as_ref(),
                        self.publisher.history(),
                        shutdown.clone(),
                    )
                    .map_err(|error| StartError::Setting(format!("engine.redis: {error}")))?;
                Ok(Some(tokio::task::spawn_local(shutdown.essential("broker", run))))
            }
        }
    }
}

/// Records the end of a reply in the history, whichever node tracks it.
fn settle(history: &History, channel: &ChannelName, end: ReplyEnd, position: Position) {
    let (history, channel) = (history.clone(), channel.clone());
    tokio::task::spawn_local(async move {
        // Whoever tracks the reply removes its record, or it expires.
        let _ = history.settle_generation(&channel, end.task_id(), position.offset).await;
    });
}

fn session_versions(
    settings: &Jwt,
    connections: &mut Connections<'_>,
    ready: &mut Vec<(&'static str, ReadyCheck)>,
) -> Result<Option<SessionVersions>, String> {
    let Some(settings) = &settings.session_version else { return Ok(None) };
    let commands = connections.open("jwt.session_version.redis_url", &settings.redis_url)?;
    ready.push(("redis_sessions", redis_check(&commands)));
    Ok(Some(SessionVersions::new(settings, commands)))
}

fn subscriptions_check(core: &Core) -> ReadyCheck {
    let live = core.live();
    Arc::new(move || {
        live.load(Ordering::Acquire).then_some(()).ok_or("subscriptions are not live".into())
    })
}

fn layer_check(core: &Core) -> ReadyCheck {
    let up = core.layer_up();
    Arc::new(move || {
        Commands::check_named("channel_layer")?;
        let is_up = up.load(Ordering::Acquire);
        is_up.then_some(()).ok_or("the channel layer does not reach this node".into())
    })
}

/// Checks whether this node receives its own publications.
fn canary_check(canary: &Canary) -> ReadyCheck {
    let canary = canary.clone();
    Arc::new(move || canary.check().map_err(str::to_owned))
}

fn redis_check(commands: &Commands) -> ReadyCheck {
    let commands = commands.clone();
    Arc::new(move || commands.check())
}

/// Checks whether commands of other nodes reach this node.
fn control_check(control: &Control) -> ReadyCheck {
    let control = control.clone();
    Arc::new(move || {
        control.is_live().then_some(()).ok_or("commands do not reach this node".into())
    })
}

/// Opens one command connection for each Redis URL; parts with the same URL share it.
struct Connections<'a> {
    by_url: HashMap<String, Commands>,
    shutdown: &'a Shutdown,
}

impl Connections<'_> {
    fn open(&mut self, key: &'static str, url: &RedisUrl) -> Result<Commands, String> {
        if let Some(commands) = self.by_url.get(url.text().expose()) {
            return Ok(commands.clone());
        }
        let commands =
            Commands::start(url, key, self.shutdown).map_err(|error| format!("{key}: {error}"))?;
        self.by_url.insert(url.text().expose().to_owned(), commands.clone());
        Ok(commands)
    }
}
