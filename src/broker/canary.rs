//! The canary: a publication of the node's own that must return through Redis.
//!
//! A connection that answers PING may still carry no publications: the server may have paused its clients, the
//! user may not be permitted to publish or subscribe, or the host name may resolve to two servers. So the node
//! subscribes to its own channel over the connection that receives all publications, and publishes to it over
//! the connection that it publishes on. In a cluster each shard has a canary of its own. This module owns what readiness
//! reports about that. A canary is not delivered to clients and is not counted as a publication.

mod shards;

pub use shards::ShardCanaries;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::protocol::ChannelName;
use crate::redis_link::{Commands, Health, RedisFailure};
use crate::telemetry;

/// The interval between canaries.
const INTERVAL: Duration = Duration::from_secs(3);

/// The interval after a canary that did not return. It is short, so that the node becomes ready again soon.
const RETRY: Duration = Duration::from_millis(500);

/// How long a canary may take to return. It waits in the same queues as other publications.
const DEADLINE: Duration = Duration::from_secs(3);

/// After this many lost canaries in a row, the publishing and the receiving connection lead to different servers, or
/// one of them to a replica that does not follow. All connections to the address are then opened again.
const MAX_LOST: u32 = 3;

/// The outcome of the last canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// No canary was sent on the current connection.
    Unsent,
    Received,
    /// The canary did not return in time.
    Lost,
    /// Redis did not answer the PUBLISH.
    PublishFailed,
    /// Redis refused to publish the canary.
    PublishRefused,
    /// Redis refused to subscribe to the canary's channel.
    SubscribeRefused,
}

impl State {
    fn from_u8(number: u8) -> Self {
        [Self::Unsent, Self::Received, Self::Lost, Self::PublishFailed, Self::PublishRefused]
            .into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(Self::SubscribeRefused)
    }

    /// `Err` is the reason why the node is not ready.
    fn check(self) -> Result<(), &'static str> {
        match self {
            Self::Received => Ok(()),
            Self::Unsent => Err("no publication of this node's own has come back yet"),
            Self::Lost => {
                Err("a publication of this node's own did not come back from Redis in time")
            }
            Self::PublishFailed => Err("Redis does not take a publication of this node's own"),
            Self::PublishRefused => Err("Redis refuses to publish to this node's own channel"),
            Self::SubscribeRefused => Err("Redis refuses to subscribe to this node's own channel"),
        }
    }
}

/// Why connections are opened again whose canaries do not return.
const NOT_RETURNED: &str = "publications do not come back from this server";

/// One node's canary, or its canary on one connection to a shard of a cluster. Clones share their state.
#[derive(Clone)]
pub struct Canary(Arc<Shared>);

/// The shard that a canary is for, and the connection that receives it.
struct OfShard {
    /// The address of the shard.
    shard: Arc<str>,
    subscription: Health,
}

struct Shared {
    channel: ChannelName,
    /// `None` on one server.
    of_shard: Option<OfShard>,
    state: AtomicU8,
    /// The number of the connection on which the channel is subscribed; 0 if it is not subscribed.
    subscribed: watch::Sender<u64>,
    /// The number of the last canary that returned.
    received: watch::Sender<u64>,
}

impl Canary {
    /// `channel` must be one that no other node and no client uses.
    pub fn new(channel: ChannelName) -> Self {
        Self::new_for(channel, None)
    }

    fn new_for(channel: ChannelName, of_shard: Option<OfShard>) -> Self {
        let state = AtomicU8::new(State::Unsent as u8);
        let (subscribed, received) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Shared { channel, of_shard, state, subscribed, received }))
    }

    /// For readiness checks: `Err` says why the last canary did not return.
    pub fn check(&self) -> Result<(), &'static str> {
        self.state().check()
    }

    /// Publishes canaries over `commands`, for as long as it is polled.
    pub async fn run(&self, commands: &Commands) {
        let mut subscribed = self.0.subscribed.subscribe();
        let (mut number, mut lost) = (0, 0);
        loop {
            let connection = *subscribed.borrow_and_update();
            let mut pause = INTERVAL;
            if connection > 0 {
                number += 1;
                let state = self.send(commands, number).await;
                if state != State::Received {
                    pause = RETRY;
                }
                // The outcome says nothing about a connection that was opened since.
                if *self.0.subscribed.borrow() == connection {
                    self.set_state(state);
                }
                lost = if state == State::Lost { lost + 1 } else { 0 };
                if lost >= MAX_LOST {
                    lost = 0;
                    match &self.0.of_shard {
                        None => commands.reconnect_all(NOT_RETURNED),
                        Some(of_shard) => of_shard.subscription.give_up(NOT_RETURNED),
                    }
                }
            }
            tokio::select! {
                changed = subscribed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause), if connection > 0 => {}
            }
        }
    }

    async fn send(&self, commands: &Commands, number: u64) -> State {
        // At startup, the subscription may be connected before `commands` is.
        if !commands.wait_up(DEADLINE).await {
            return State::PublishFailed;
        }
        let began = Instant::now();
        let mut received = self.0.received.subscribe();
        let is_sharded = self.0.of_shard.is_some();
        let mut publish = redis::cmd(if is_sharded { "SPUBLISH" } else { "PUBLISH" });
        publish.arg(self.channel().as_bytes()).arg(number);
        match commands.query::<u64>(&publish).await {
            Err(RedisFailure::Unavailable) => return State::PublishFailed,
            Err(RedisFailure::Refused(_)) => return State::PublishRefused,
            Ok(_subscribers) => {}
        }
        let returned = received.wait_for(|last| *last == number);
        match timeout_at(began + DEADLINE, returned).await {
            Ok(Ok(_)) => {
                telemetry::engine::canary_returned(began.elapsed());
                State::Received
            }
            Ok(Err(_)) | Err(_) => State::Lost,
        }
    }

    fn state(&self) -> State {
        State::from_u8(self.0.state.load(Ordering::Acquire))
    }

    fn set_state(&self, state: State) {
        let before = State::from_u8(self.0.state.swap(state as u8, Ordering::AcqRel));
        let shard = self.0.of_shard.as_ref().map(|of_shard| &*of_shard.shard);
        match state.check() {
            Err(why) => telemetry::engine::canary_failed(shard, why, before != state),
            Ok(()) if before != State::Received && before != State::Unsent => {
                telemetry::engine::canary_recovered(shard)
            }
            Ok(()) => {}
        }
    }

    /// The channel to subscribe.
    pub(super) fn channel(&self) -> &str {
        self.0.channel.as_str()
    }

    /// Must be called when the channel is subscribed on a new connection, with that connection's number.
    pub(super) fn subscribed(&self, connection: u64) {
        self.0.subscribed.send_replace(connection);
    }

    /// Must be called when Redis has refused to subscribe to the channel.
    pub(super) fn subscribe_refused(&self) {
        self.set_state(State::SubscribeRefused);
    }

    /// Must be called when the connection is lost.
    pub(super) fn disconnected(&self) {
        self.0.subscribed.send_replace(0);
        self.0.state.store(State::Unsent as u8, Ordering::Release);
    }

    /// Takes a message of `channel` if that is the canary's channel, and returns whether it is.
    pub(super) fn accept(&self, channel: &[u8], payload: &[u8]) -> bool {
        if channel != self.channel().as_bytes() {
            return false;
        }
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        if let Some(number) = number {
            self.0.received.send_replace(number);
        }
        true
    }
}

#[cfg(test)]
mod tests;
