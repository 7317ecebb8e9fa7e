//! Histories that are filled from a channel layer. Every node gets a copy of each message, so that a message is
//! appended only once; a period in which no node listened ends the epoch.

use std::time::Duration;

use bytes::Bytes;
use redis::ScriptInvocation;

use super::redis::{RedisHistory, milliseconds};
use crate::config;
use crate::protocol::{ChannelName, ReplyEnd};
use crate::redis_link::{Answers, EngineUnavailable};

/// Messages of one channel of the layer, in order.
#[derive(Debug)]
pub struct Import {
    pub channel: ChannelName,
    pub rule: config::History,
    /// The number of the first message, if the layer's messages have no ids.
    pub first: Option<MessageNumber>,
    pub publications: Vec<Imported>,
}

#[derive(Debug, Clone)]
pub struct Imported {
    /// Identifies the message on every node. Empty for all messages of a layer that gives them no identity.
    pub id: String,
    /// The reply that it ends.
    pub end: Option<ReplyEnd>,
    pub json: Bytes,
}

/// Identifies a message by its place among all messages of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageNumber {
    /// Identifies the message from which the nodes count.
    pub origin: String,
    /// 1 for the first message. 0 and negative numbers are messages from before the origin.
    pub number: i64,
}

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// So many of the publications were appended; the others had been appended before.
    Appended(usize),
    /// The nodes now count from another origin, so nothing was appended.
    OtherOrigin,
}

/// What a node knows about the messages of a channel that it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// The node starts to listen.
    Joining,
    /// The node is registered, and has missed nothing.
    Listening,
    /// The node has every message that other nodes have, or can number its own as they do.
    Ready,
    /// The node has missed messages. Other nodes may have received them.
    Missed,
    /// The node has missed messages that no other node has appended.
    Lost,
    /// The node is about to leave, and asks who else listens.
    Leaving,
}

/// The result of registering a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The other nodes that listen to the channel. If there are any, and the node was not registered before, it is
    /// not registered now: see [`ListenerState::Ready`].
    pub others: Vec<String>,
    /// Whether nobody listened before, so that messages are counted from this node's next one on.
    pub is_first: bool,
    /// Whether messages may have been lost, so that the history continues under a new epoch.
    pub new_epoch: bool,
}

/// Who registers, and under which conditions.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    pub node: &'a str,
    /// A registration that is not renewed expires after this time.
    pub ttl: Duration,
    pub state: ListenerState,
    /// From where the nodes count if this node is the first; empty if the layer's messages have ids.
    pub origin: &'a str,
    /// The nodes whose registrations count.
    pub valid: &'a [String],
}

/// The answer to a heartbeat.
#[derive(Debug)]
pub struct Heartbeat {
    /// Whether this node was not known: it is new, or was considered dead.
    pub was_unknown: bool,
    /// All nodes that are known, and how long ago the last heartbeat of each was.
    pub nodes: Vec<(String, Duration)>,
    /// Channels of stopping nodes that this node is to take over.
    pub offered: Vec<ChannelName>,
}

/// How long offered channels wait for a node that takes them.
const OFFER_TTL: Duration = Duration::from_secs(30);

impl RedisHistory {
    /// Waits until there is a connection to Redis, for at most `deadline`.
    pub async fn wait_up(&self, deadline: Duration) {
        self.commands().wait_up(deadline).await;
    }

    /// Appends `imports`. `memory` is how long the identity of a message is remembered. The call is safe to repeat.
    pub async fn import(
        &self,
        memory: Duration,
        imports: &[Import],
    ) -> Result<Answers<ImportOutcome>, EngineUnavailable> {
        let calls: Vec<_> = imports.iter().map(|one| self.import_call(memory, one)).collect();
        let answers = self.commands().invoke_all(&self.scripts().import, &calls).await?;
        let outcome = |(appended, _): (i64, u8)| {
            usize::try_from(appended).map_or(ImportOutcome::OtherOrigin, ImportOutcome::Appended)
        };
        Ok(answers.into_iter().map(|answer| answer.map(outcome)).collect())
    }

    fn import_call(&self, memory: Duration, import: &Import) -> ScriptInvocation<'_> {
        let Import { channel, rule, first, publications } = import;
        let mut call = self.scripts().import.prepare_invoke();
        for part in ["stream", "meta", if first.is_none() { "seen" } else { "numbers" }] {
            call.key(self.key(channel, part));
        }
        call.key(self.key(channel, "running"));
        call.arg(channel.as_str()).arg(rule.size).arg(milliseconds(rule.ttl));
        call.arg(milliseconds(memory));
        match first {
            Some(MessageNumber { origin, number }) => call.arg(origin).arg(*number),
            None => call.arg("").arg(0),
        };
        for Imported { id, end, json } in publications {
            let end = match end {
                None => String::new(),
                Some(ReplyEnd::Unnamed) => "-".to_owned(),
                Some(ReplyEnd::Named(task_id)) => format!("={task_id}"),
            };
            call.arg(id).arg(end).arg(&json[..]);
        }
        call
    }

    /// Whether a message with this id was appended lately.
    pub async fn is_appended(
        &self,
        channel: &ChannelName,
        id: &str,
    ) -> Result<bool, EngineUnavailable> {
        let mut score = redis::cmd("ZSCORE");
        let score: Option<f64> =
            self.commands().query(score.arg(self.key(channel, "seen")).arg(id)).await?;
        Ok(score.is_some())
    }

    /// Registers a node as a listener of each channel.
    pub async fn register_listener(
        &self,
        channels: &[ChannelName],
        registration: Registration<'_>,
    ) -> Result<Answers<Registered>, EngineUnavailable> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let Registration { node, ttl, state, origin, valid } = registration;
        let state = match state {
            ListenerState::Joining => "joining",
            ListenerState::Listening => "listening",
            ListenerState::Ready => "ready",
            ListenerState::Missed => "missed",
            ListenerState::Lost => "lost",
            ListenerState::Leaving => "leaving",
        };
        let call = |channel: &ChannelName| {
            let mut call = self.scripts().register_listener.prepare_invoke();
            for part in ["meta", "nodes", "numbers", "stream"] {
                call.key(self.key(channel, part));
            }
            call.arg(channel.as_str()).arg(node).arg(milliseconds(ttl)).arg(state);
            call.arg(origin).arg(valid);
            call
        };
        let calls: Vec<_> = channels.iter().map(call).collect();
        let answers = self.commands().invoke_all(&self.scripts().register_listener, &calls).await?;
        let registered = |mut answer: Vec<String>| {
            let others = answer.split_off(answer.len().min(1));
            let result = answer.pop().unwrap_or_default();
            Registered { others, is_first: !result.is_empty(), new_epoch: result == "epoch" }
        };
        Ok(answers.into_iter().map(|answer| answer.map(registered)).collect())
    }

    /// Removes `node` from the listeners of `channels`, and these from its groups.
    pub async fn unregister_listener(
        &self,
        node: &str,
        channels: &[ChannelName],
    ) -> Result<(), EngineUnavailable> {
        let mut pipeline = redis::pipe();
        for channel in channels {
            pipeline.cmd("ZREM").arg(self.key(channel, "nodes")).arg(node).ignore();
        }
        let names: Vec<&str> = channels.iter().map(ChannelName::as_str).collect();
        pipeline.cmd("SREM").arg(self.groups_key(node)).arg(names).ignore();
        Ok(self.commands().pipeline(&pipeline).await?)
    }

    /// Records that `node` is in the groups of `channels`, for the node that follows it when it dies. The record lives
    /// as long as the node is known.
    pub async fn record_groups(
        &self,
        node: &str,
        channels: &[ChannelName],
    ) -> Result<(), EngineUnavailable> {
        let mut add = redis::cmd("SADD");
        add.arg(self.groups_key(node));
        channels.iter().for_each(|channel| {
            add.arg(channel.as_str());
        });
        let _: i64 = self.commands().query(&add).await?;
        Ok(())
    }

    /// The channels in whose groups `node` is, or was when it died.
    pub async fn groups_of(&self, node: &str) -> Result<Vec<ChannelName>, EngineUnavailable> {
        let mut members = redis::cmd("SMEMBERS");
        let names: Vec<String> = self.commands().query(members.arg(self.groups_key(node))).await?;
        Ok(names.iter().filter_map(|name| ChannelName::new(name).ok()).collect())
    }

    /// Claims a dead node for `node` alone, for `ttl`. Returns whether no other node has claimed it.
    pub async fn claim_node(
        &self,
        dead: &str,
        node: &str,
        ttl: Duration,
    ) -> Result<bool, EngineUnavailable> {
        let mut claim = redis::cmd("SET");
        claim.arg(self.own_key(&format!("layer:claim:{dead}"))).arg(node);
        claim.arg("NX").arg("PX").arg(milliseconds(ttl));
        let claimed: Option<String> = self.commands().query(&claim).await?;
        Ok(claimed.is_some())
    }

    /// Forgets `node` and its groups.
    pub async fn remove_node(&self, node: &str) -> Result<(), EngineUnavailable> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZREM").arg(self.own_key("layer:nodes")).arg(node).ignore();
        pipeline.cmd("DEL").arg(self.groups_key(node)).ignore();
        Ok(self.commands().pipeline(&pipeline).await?)
    }

    /// Offers `channels` to the other nodes.
    pub async fn offer_channels(&self, channels: &[ChannelName]) -> Result<(), EngineUnavailable> {
        let key = self.own_key("layer:offered");
        let names: Vec<&str> = channels.iter().map(ChannelName::as_str).collect();
        let mut pipeline = redis::pipe();
        pipeline.cmd("SADD").arg(&key).arg(names).ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(milliseconds(OFFER_TTL)).ignore();
        Ok(self.commands().pipeline(&pipeline).await?)
    }

    /// Records that `node` is alive, and takes up to `most_offered` channels that other nodes offer. A node without
    /// heartbeats is forgotten after `memory`.
    pub async fn node_heartbeat(
        &self,
        node: &str,
        memory: Duration,
        most_offered: usize,
    ) -> Result<Heartbeat, EngineUnavailable> {
        let mut call = self.scripts().node_heartbeat.prepare_invoke();
        call.key(self.own_key("layer:nodes")).key(self.groups_key(node));
        call.key(self.own_key("layer:offered"));
        call.arg(node).arg(milliseconds(memory)).arg(most_offered);
        let answer: (u8, Vec<String>, Vec<String>) = self.commands().invoke(&call).await?;
        let (is_new, nodes, offered) = answer;
        let nodes = nodes.chunks_exact(2).filter_map(|pair| match pair {
            [node, age] => Some((node.clone(), Duration::from_millis(age.parse().ok()?))),
            _ => None,
        });
        let offered = offered.iter().filter_map(|name| ChannelName::new(name).ok());
        Ok(Heartbeat {
            was_unknown: is_new == 1,
            nodes: nodes.collect(),
            offered: offered.collect(),
        })
    }

    fn groups_key(&self, node: &str) -> String {
        self.own_key(&format!("layer:groups:{node}"))
    }

    /// The channel on which the nodes agree about the numbers of messages.
    pub fn alignment_channel(&self) -> String {
        self.own_key("layer:alignment")
    }
}

#[cfg(test)]
mod tests;
