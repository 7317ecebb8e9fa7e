//! The members of all channels, on either engine.

use std::sync::Arc;

use super::memory::MemoryPresence;
use super::redis::RedisPresence;
use super::{Change, Member, Page, PresenceError};
use crate::leases::LEASE;
use crate::protocol::{ChannelName, ConnectionId};
use crate::redis_link::Commands;
use crate::telemetry;
use crate::telemetry::presence::PresenceStep;

/// The members of all channels. Cheap to clone, from any thread.
#[derive(Clone)]
pub struct PresenceStore(Arc<Engine>);

enum Engine {
    Memory(MemoryPresence),
    Redis(RedisPresence),
}

impl PresenceStore {
    pub fn memory() -> Self {
        Self(Arc::new(Engine::Memory(MemoryPresence::new(LEASE))))
    }

    /// `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(commands: Commands, key_prefix: &str) -> Self {
        Self(Arc::new(Engine::Redis(RedisPresence::new(commands, key_prefix, LEASE))))
    }

    /// Declares that channels such as `channel` have presence; `None` if none has it.
    pub fn declare_needs(&self, channel: Option<&str>) {
        if let Engine::Redis(redis) = &*self.0 {
            redis.declare_needs(channel);
        }
    }

    /// Renews the leases of `members`, and adds missing members. Only this caller gets the changes, and must publish
    /// them.
    pub(super) async fn renew(
        &self,
        channel: &ChannelName,
        members: &[&Member],
    ) -> Result<Vec<Change>, PresenceError> {
        let renewed = match &*self.0 {
            Engine::Memory(memory) => memory.renew(channel, members),
            Engine::Redis(redis) => redis.renew(channel, members).await,
        };
        record(PresenceStep::Renew, renewed)
    }

    /// Removes `members`. Only this caller gets the changes, and must publish them.
    pub(super) async fn leave(
        &self,
        channel: &ChannelName,
        members: &[&Member],
    ) -> Result<Vec<Change>, PresenceError> {
        let removed = match &*self.0 {
            Engine::Memory(memory) => Ok(memory.leave(channel, members)),
            Engine::Redis(redis) => redis.leave(channel, members).await,
        };
        record(PresenceStep::Leave, removed)
    }

    /// Lists at most `limit` members that follow the connection `after`. Expired members that are removed first cause
    /// changes, even if the list fails. Only this caller gets them, and must publish them.
    pub async fn list(
        &self,
        channel: &ChannelName,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> (Vec<Change>, Result<Page, PresenceError>) {
        let mut changes = Vec::new();
        loop {
            let listed = match &*self.0 {
                Engine::Memory(memory) => {
                    let (changes, page) = memory.list(channel, after, limit);
                    Ok((changes, Some(page)))
                }
                Engine::Redis(redis) => redis.list(channel, after, limit).await,
            };
            match record(PresenceStep::List, listed) {
                Ok((more, page)) => {
                    changes.extend(more);
                    if let Some(page) = page {
                        return (changes, Ok(page));
                    }
                }
                Err(failure) => return (changes, Err(failure)),
            }
        }
    }
}

fn record<T>(step: PresenceStep, result: Result<T, PresenceError>) -> Result<T, PresenceError> {
    if let Err(failure) = &result {
        telemetry::presence::failed(step, *failure == PresenceError::Unavailable);
    }
    result
}

#[cfg(test)]
impl PresenceStore {
    /// A store in memory with leases of another length.
    pub fn memory_with(lease: std::time::Duration) -> Self {
        Self(Arc::new(Engine::Memory(MemoryPresence::new(lease))))
    }

    /// A store in Redis with leases of another length.
    pub fn redis_with(commands: Commands, key_prefix: &str, lease: std::time::Duration) -> Self {
        Self(Arc::new(Engine::Redis(RedisPresence::new(commands, key_prefix, lease))))
    }
}
