//! Histories that are filled from a channel layer, of which every node gets a copy: each publication is
//! appended once, and a time that no node heard is told by a new epoch.

use std::time::Duration;

use bytes::Bytes;
use redis::ScriptInvocation;

use super::redis::{RedisHistory, milliseconds};
use crate::broker::PublishError;
use crate::config;
use crate::protocol::ChannelName;
use crate::redis_link::Answers;

/// A node that has not said for this long that it is alive is gone.
const ALIVE: Duration = Duration::from_secs(3);

/// What the layer brought of one channel, in order.
#[derive(Debug)]
pub struct Import {
    pub channel: ChannelName,
    pub rule: config::History,
    pub publications: Vec<Imported>,
}

#[derive(Debug)]
pub struct Imported {
    /// The same on every node; empty where the layer tells no two messages apart, which holds for all of
    /// them.
    pub id: String,
    pub json: Bytes,
}

/// What is known of a channel whose layer this node hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// It begins to, or goes on.
    Unbroken,
    /// It has not heard everything, unlike perhaps other nodes.
    Missed,
    /// What it has not heard no other node appended.
    Lost,
}

/// Who else hears a channel's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    pub others: usize,
    /// What clients had of the channel is not all there was.
    pub new_epoch: bool,
}

impl RedisHistory {
    /// How many of each were appended; others had been before. `guard` is how long a publication is known,
    /// or the one node's word counts. Safe to repeat where publications have ids.
    pub async fn import(
        &self,
        node: &str,
        guard: Duration,
        imports: &[Import],
    ) -> Result<Answers<usize>, PublishError> {
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

    /// Says so for each channel, to be said again `within` that time.
    pub async fn register_listener(
        &self,
        node: &str,
        within: Duration,
        channels: &[(ChannelName, ListenerState)],
    ) -> Result<Answers<Registered>, PublishError> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let alive = self.node_heartbeat(node).await?;
        let call = |(channel, state): &(ChannelName, ListenerState)| {
            let mut call = self.scripts().register_listener.prepare_invoke();
            call.key(self.key(channel, "meta")).key(self.key(channel, "nodes"));
            call.arg(node).arg(milliseconds(within));
            call.arg(match state {
                ListenerState::Unbroken => "",
                ListenerState::Missed => "missed",
                ListenerState::Lost => "lost",
            });
            call.arg(&alive);
            call
        };
        let calls: Vec<_> = channels.iter().map(call).collect();
        let answers = self.commands().invoke_all(&self.scripts().register_listener, &calls).await?;
        let registered = |(others, new_epoch): (usize, bool)| Registered { others, new_epoch };
        Ok(answers.into_iter().map(|answer| answer.map(registered)).collect())
    }

    /// The node hears these no longer.
    pub async fn unregister_listener(
        &self,
        node: &str,
        channels: &[ChannelName],
    ) -> Result<(), PublishError> {
        let call = |channel| {
            let mut call = self.scripts().unregister_listener.prepare_invoke();
            call.key(self.key(channel, "nodes")).key(self.key(channel, "reader")).arg(node);
            call
        };
        let calls: Vec<_> = channels.iter().map(call).collect();
        let _each =
            self.commands().invoke_all::<i64>(&self.scripts().unregister_listener, &calls).await?;
        Ok(())
    }

    /// The node ends.
    pub async fn die(&self, node: &str) -> Result<(), PublishError> {
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.own_key("layer:nodes")).arg(node);
        let _was_there: i64 = self.commands().query(&remove).await?;
        Ok(())
    }

    /// Says that the node is alive, which it must at least every second; returns who is.
    pub async fn node_heartbeat(&self, node: &str) -> Result<Vec<String>, PublishError> {
        let mut call = self.scripts().node_heartbeat.prepare_invoke();
        call.key(self.own_key("layer:nodes")).arg(node).arg(milliseconds(ALIVE));
        Ok(self.commands().invoke(&call).await?)
    }
}
