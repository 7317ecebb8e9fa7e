//! Publishing, from any thread.

use std::time::Duration;

use bytes::Bytes;

use super::core::{Intake, IntakePermits};
use super::history::{
    History, MemoryHistory, PublicationGroup, PublishOnce, Published, RedisHistory, TerminalEvent,
};
use super::{Publication, PublishError};
use crate::config::{self, SharedConfig};
use crate::protocol::ChannelName;
use crate::redis_link::Commands;
use crate::telemetry::replies::{Duplicate, cancelled_event_dropped, duplicates_dropped};

/// How long a memory-engine publish waits for room in the intake.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    config: SharedConfig,
    engine: Engine,
    max_bytes: usize,
}

#[derive(Clone)]
enum Engine {
    Memory(Intake, MemoryHistory),
    Redis(RedisHistory),
}

impl Publisher {
    /// Publishes on the memory engine: straight into this node's intake.
    pub fn memory(
        intake: Intake,
        config: SharedConfig,
        history: MemoryHistory,
        max_bytes: usize,
    ) -> Self {
        Self { config, engine: Engine::Memory(intake, history), max_bytes }
    }

    /// Publishes through Redis; each node receives the publication through its subscription. `prefix` is `[engine.redis] key_prefix`.
    pub fn redis(commands: Commands, prefix: &str, config: SharedConfig, max_bytes: usize) -> Self {
        Self { config, engine: Engine::Redis(RedisHistory::new(commands, prefix)), max_bytes }
    }

    /// Declares what this node sends to the Redis of the channels: it publishes to channels such as `channels`, and
    /// keeps histories and reads a channel layer as stated.
    pub fn declare_needs(&self, channels: &[String], keeps_history: bool, has_layer: bool) {
        if let Engine::Redis(history) = &self.engine {
            history.declare_needs(channels, keeps_history, has_layer);
        }
    }

    /// The histories to which this publisher appends.
    pub fn history(&self) -> History {
        let config = self.config.clone();
        match &self.engine {
            Engine::Memory(_, history) => History::memory(config, history.clone()),
            Engine::Redis(history) => History::redis(config, history.clone()),
        }
    }

    /// Publishes `json` to every subscriber of `channel` on every node, and appends it where the channel keeps
    /// a history. The publications of two calls that are awaited one after the other arrive in that order. After
    /// [`PublishError::EngineUnavailable`] the publication may still have been published; with `once` the call
    /// can be repeated safely.
    pub async fn publish(
        &self,
        channel: &ChannelName,
        json: Bytes,
        once: Option<&PublishOnce>,
    ) -> Result<Published, PublishError> {
        self.publish_all(channel, &[json], once).await
    }

    /// Publishes several publications to one channel, without one of another publisher in between.
    pub async fn publish_all(
        &self,
        channel: &ChannelName,
        data: &[Bytes],
        once: Option<&PublishOnce>,
    ) -> Result<Published, PublishError> {
        data.iter().try_for_each(|json| self.check_size(json))?;
        let rule = self.rule(channel);
        let published = match &self.engine {
            // In a box, so that it takes no room in a reply on the memory engine.
            Engine::Redis(redis) => {
                Box::pin(redis.publish(channel, rule.as_ref(), data, once)).await?
            }
            Engine::Memory(intake, memory) => {
                let mut permits = reserve(intake, data.iter()).await?;
                let received = std::time::Instant::now();
                memory.publish(channel, rule.as_ref(), data, once, |delivery| {
                    permits.send(Publication { channel: channel.clone(), delivery, received });
                })
            }
        };
        record(published, data.len());
        Ok(published)
    }

    /// Publishes to several channels; each gets its publications like from [`Publisher::publish_all`], and has its own
    /// outcome. The channels are not in any order to each other.
    pub async fn publish_each(
        &self,
        groups: &[(ChannelName, Vec<Bytes>)],
        once: Option<&PublishOnce>,
    ) -> Vec<Result<Published, PublishError>> {
        let mut outcomes = Vec::with_capacity(groups.len());
        let is_too_large =
            |(_, data): &(_, Vec<Bytes>)| data.iter().any(|json| json.len() > self.max_bytes);
        match &self.engine {
            Engine::Redis(redis) if groups.len() > 1 && !groups.iter().any(is_too_large) => {
                let config = self.config.load();
                let groups: Vec<_> = groups
                    .iter()
                    .map(|(channel, data)| PublicationGroup {
                        channel,
                        history: config.history_of(channel),
                        data,
                    })
                    .collect();
                drop(config);
                let published = redis.publish_each(&groups, once).await;
                for (outcome, group) in published.into_iter().zip(&groups) {
                    outcome.iter().for_each(|published| record(*published, group.data.len()));
                    outcomes.push(outcome.map_err(PublishError::from));
                }
            }
            Engine::Memory(intake, memory) if !groups.iter().any(is_too_large) => {
                let all = groups.iter().flat_map(|(_, data)| data);
                let mut permits = match reserve(intake, all).await {
                    Ok(permits) => permits,
                    Err(error) => return vec![Err(error); groups.len()],
                };
                let config = self.config.load();
                let received = std::time::Instant::now();
                for (channel, data) in groups {
                    let rule = config.history_of(channel);
                    let published =
                        memory.publish(channel, rule.as_ref(), data, once, |delivery| {
                            permits.send(Publication {
                                channel: channel.clone(),
                                delivery,
                                received,
                            });
                        });
                    record(published, data.len());
                    outcomes.push(Ok(published));
                }
            }
            Engine::Redis(_) | Engine::Memory(..) => {
                for (channel, data) in groups {
                    outcomes.push(self.publish_all(channel, data, once).await);
                }
            }
        }
        outcomes
    }

    /// Publishes to every subscriber without a position, and appends nothing even where the channel keeps a history. What
    /// strangers can cause any number of must not take the places of other publications.
    pub async fn publish_unstored(
        &self,
        channel: &ChannelName,
        data: &[Bytes],
    ) -> Result<(), PublishError> {
        match &self.engine {
            Engine::Redis(redis) => redis.publish(channel, None, data, None).await?,
            Engine::Memory(intake, memory) => {
                let mut permits = reserve(intake, data.iter()).await?;
                let received = std::time::Instant::now();
                memory.publish(channel, None, data, None, |delivery| {
                    permits.send(Publication { channel: channel.clone(), delivery, received });
                })
            }
        };
        Ok(())
    }

    /// Whether [`Publisher::end_generation`] removes the mark of the generation in the same step.
    pub fn removes_marks(&self) -> bool {
        matches!(self.engine, Engine::Redis(_))
    }

    /// Publishes the event with which the gateway ends a task, and records the end in the same step, so that nobody who has
    /// seen it gets the task as a running one. After a cancellation every later event of the task is refused, on all
    /// nodes. Safe to repeat.
    pub async fn end_generation(
        &self,
        channel: &ChannelName,
        terminal: &TerminalEvent,
    ) -> Result<Published, PublishError> {
        self.check_size(&terminal.json)?;
        let rule = self.rule(channel);
        let published = match &self.engine {
            Engine::Redis(redis) => {
                Box::pin(redis.end_generation(channel, rule.as_ref(), terminal)).await?
            }
            Engine::Memory(intake, memory) => {
                let mut permits = reserve(intake, std::iter::once(&terminal.json)).await?;
                let received = std::time::Instant::now();
                memory.end_generation(channel, rule.as_ref(), terminal, |delivery| {
                    permits.send(Publication { channel: channel.clone(), delivery, received });
                })
            }
        };
        record_end(published);
        Ok(published)
    }

    /// The histories of the memory engine; `None` on another engine.
    pub(super) fn memory_history(&self) -> Option<&MemoryHistory> {
        match &self.engine {
            Engine::Memory(_, memory) => Some(memory),
            Engine::Redis(_) => None,
        }
    }

    /// The history settings of `channel`; `None` if it keeps no history.
    pub(super) fn rule(&self, channel: &ChannelName) -> Option<config::History> {
        self.config.load().history_of(channel)
    }

    pub(super) fn check_size(&self, json: &Bytes) -> Result<(), PublishError> {
        if json.len() > self.max_bytes { Err(PublishError::TooLarge) } else { Ok(()) }
    }
}

/// Waits for room for all of `data`.
async fn reserve<'a>(
    intake: &'a Intake,
    data: impl Iterator<Item = &Bytes> + Clone,
) -> Result<IntakePermits<'a>, PublishError> {
    let size = data.clone().map(Bytes::len).sum();
    let count = data.count();
    if let Some(permits) = intake.try_reserve(count, size) {
        return Ok(permits);
    }
    let reserving = intake.reserve(count, size);
    let reserved = tokio::time::timeout(PUBLISH_TIMEOUT, reserving).await;
    reserved.unwrap_or(Err(PublishError::EngineUnavailable))
}

/// Counts what `count` publications of one call did not need or were not let.
pub(super) fn record(published: Published, count: usize) {
    if published.duplicate {
        duplicates_dropped(Duplicate::Publication, count);
    }
    if published.refused {
        cancelled_event_dropped();
    }
}

/// The same for the end of a generation.
pub(super) fn record_end(published: Published) {
    if published.duplicate {
        duplicates_dropped(Duplicate::Publication, 1);
    }
}
