//! Histories that are filled from a channel layer. Every node gets a copy of each message, so that a message is
//! appended only once; a period in which no node listened ends the epoch.

use std::time::Duration;

use bytes::Bytes;
use redis::ScriptInvocation;

use super::redis::{RedisHistory, milliseconds};
use crate::config;
use crate::protocol::ChannelName;
use crate::redis_link::{Answers, EngineUnavailable};

/// A node that has sent no heartbeat for this long counts as dead.
const HEARTBEAT_TTL: Duration = Duration::from_secs(3);

/// Messages of one channel of the layer, in order.
#[derive(Debug)]
pub struct Import {
    pub channel: ChannelName,
    pub rule: config::History,
    pub publications: Vec<Imported>,
}

#[derive(Debug)]
pub struct Imported {
    /// Identifies the message on every node. Empty for all messages of a layer that gives them no identity.
    pub id: String,
    pub json: Bytes,
}

/// What a node knows about the messages of a channel that it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// The node starts to listen, or has received everything.
    Unbroken,
    /// The node has missed messages. Other nodes may have received them.
    Missed,
    /// The node has missed messages that no other node has appended.
    Lost,
}

/// The result of registering a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The number of other nodes that listen to the channel.
    pub others: usize,
    /// Whether messages may have been lost, so that the history continues under a new epoch.
    pub new_epoch: bool,
}

impl RedisHistory {
    /// Appends `imports`. Returns how many publications of each were appended; the others had been appended before.
    /// `guard` is how long an id is remembered or, without ids, how long a node stays the only one whose copies are
    /// appended. If publications have ids, the call is safe to repeat.
    pub async fn import(
        &self,
        node: &str,
        guard: Duration,
        imports: &[Import],
    ) -> Result<Answers<usize>, EngineUnavailable> {
        let calls: Vec<_> = imports.iter().map(|one| self.import_call(node, guard, one)).collect();
        Ok(self.commands().invoke_all(&self.scripts().import, &calls).await?)
    }

    fn import_call(&self, node: &str, guard: Duration, import: &Import) -> ScriptInvocation<'_> {
        let Import { channel, rule, publications } = import;
        let by_id = publications.iter().any(|publication| !publication.id.is_empty());
        let mut call = self.scripts().import.prepare_invoke();
        for part in ["stream", "meta", if by_id { "seen" } else { "reader" }] {
            call.key(self.key(channel, part));
        }
        call.arg(channel.as_str()).arg(rule.size).arg(milliseconds(rule.ttl));
        call.arg(milliseconds(guard)).arg(node);
        for Imported { id, json } in publications {
            call.arg(id).arg(&json[..]);
        }
        call
    }

    /// Registers `node` as a listener of each channel. A registration that is not renewed expires after `ttl`.
    pub async fn register_listener(
        &self,
        node: &str,
        ttl: Duration,
        channels: &[ChannelName],
        state: ListenerState,
    ) -> Result<Answers<Registered>, EngineUnavailable> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let alive = self.node_heartbeat(node).await?;
        let state = match state {
            ListenerState::Unbroken => "",
            ListenerState::Missed => "missed",
            ListenerState::Lost => "lost",
        };
        let call = |channel| {
            let mut call = self.scripts().register_listener.prepare_invoke();
            call.key(self.key(channel, "meta")).key(self.key(channel, "nodes"));
            call.arg(node).arg(milliseconds(ttl)).arg(state).arg(&alive);
            call
        };
        let calls: Vec<_> = channels.iter().map(call).collect();
        let answers = self.commands().invoke_all(&self.scripts().register_listener, &calls).await?;
        let registered = |(others, new_epoch): (usize, bool)| Registered { others, new_epoch };
        Ok(answers.into_iter().map(|answer| answer.map(registered)).collect())
    }

    /// Removes `node` from the listeners of `channels`.
    pub async fn unregister_listener(
        &self,
        node: &str,
        channels: &[ChannelName],
    ) -> Result<(), EngineUnavailable> {
        let call = |channel| {
            let mut call = self.scripts().unregister_listener.prepare_invoke();
            call.key(self.key(channel, "nodes")).key(self.key(channel, "reader")).arg(node);
            call
        };
        let calls: Vec<_> = channels.iter().map(call).collect();
        // A registration that Redis refuses to remove expires.
        let _: Answers<i64> =
            self.commands().invoke_all(&self.scripts().unregister_listener, &calls).await?;
        Ok(())
    }

    /// Removes `node` from the list of nodes that are alive.
    pub async fn remove_node(&self, node: &str) -> Result<(), EngineUnavailable> {
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.own_key("layer:nodes")).arg(node);
        let _: i64 = self.commands().query(&remove).await?;
        Ok(())
    }

    /// Records that `node` is alive; must be called at least every second. Returns all nodes that are alive.
    pub async fn node_heartbeat(&self, node: &str) -> Result<Vec<String>, EngineUnavailable> {
        let mut call = self.scripts().node_heartbeat.prepare_invoke();
        call.key(self.own_key("layer:nodes")).arg(node).arg(milliseconds(HEARTBEAT_TTL));
        Ok(self.commands().invoke(&call).await?)
    }
}
