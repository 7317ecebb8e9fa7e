//! The canary: a publication of the node's own that must come back through Redis.
//!
//! A connection that answers PING may still carry no publications: clients that were paused, a user who
//! may not publish or subscribe, a name that leads to two servers. So the node subscribes to a channel of
//! its own by the connection that hears all others, and publishes to it by the one that publishes. It
//! owns what readiness is told of that; it is no publication to anybody else, and is not counted as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::protocol::ChannelName;
use crate::redis_link::{Commands, RedisFailure};
use crate::telemetry;

/// From one canary to the next.
const INTERVAL: Duration = Duration::from_secs(3);

/// The same after one that did not come back: readiness is to return soon.
const RETRY: Duration = Duration::from_millis(500);

/// From the PUBLISH to its return. It waits its turn behind what else is published.
const DEADLINE: Duration = Duration::from_secs(3);

/// What became of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// None was sent on the present connection.
    Unsent,
    Back,
    /// It did not come back in time.
    Lost,
    /// Redis could not be asked to publish it.
    Unsendable,
    /// Redis refused to publish it.
    Refused,
    /// Redis refused to subscribe to its channel.
    Unheard,
}

impl State {
    fn of(number: u8) -> Self {
        [Self::Unsent, Self::Back, Self::Lost, Self::Unsendable, Self::Refused]
            .into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(Self::Unheard)
    }

    fn reason(self) -> Result<(), &'static str> {
        match self {
            Self::Back => Ok(()),
            Self::Unsent => Err("no publication of this node's own has come back yet"),
            Self::Lost => {
                Err("a publication of this node's own did not come back from Redis in time")
            }
            Self::Unsendable => Err("Redis does not take a publication of this node's own"),
            Self::Refused => Err("Redis refuses to publish to this node's own channel"),
            Self::Unheard => Err("Redis refuses to subscribe to this node's own channel"),
        }
    }
}

/// One node's canary. Clones are the same.
#[derive(Clone)]
pub struct Canary(Arc<Shared>);

struct Shared {
    channel: ChannelName,
    state: AtomicU8,
    /// Counts connections on which the channel is subscribed; 0 = there is none.
    subscribed: watch::Sender<u64>,
    /// The last one that came back.
    heard: watch::Sender<u64>,
}

impl Canary {
    /// `channel` is one that no other node has, and no client.
    pub fn new(channel: ChannelName) -> Self {
        let state = AtomicU8::new(State::Unsent as u8);
        let (subscribed, heard) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Shared { channel, state, subscribed, heard }))
    }

    /// For readiness: whether the last one came back, else why not.
    pub fn check(&self) -> Result<(), &'static str> {
        State::of(self.0.state.load(Ordering::Acquire)).reason()
    }

    /// Publishes by `commands`, for as long as it is polled.
    pub async fn run(self, commands: Commands) {
        let mut subscribed = self.0.subscribed.subscribe();
        let mut number = 0;
        loop {
            let connection = *subscribed.borrow_and_update();
            let mut pause = INTERVAL;
            if connection > 0 {
                number += 1;
                let state = self.send(&commands, number).await;
                if state != State::Back {
                    pause = RETRY;
                }
                // What became of it says nothing of a connection that came after it.
                if *self.0.subscribed.borrow() == connection {
                    self.became(state);
                }
            }
            tokio::select! {
                changed = subscribed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause), if connection > 0 => {}
            }
        }
    }

    async fn send(&self, commands: &Commands, number: u64) -> State {
        // At a start the one connection may be there before the other.
        if !commands.wait_up(DEADLINE).await {
            return State::Unsendable;
        }
        let began = Instant::now();
        let mut heard = self.0.heard.subscribe();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.channel().as_bytes()).arg(number);
        match commands.query::<u64>(&publish).await {
            Err(RedisFailure::Unavailable) => return State::Unsendable,
            Err(RedisFailure::Refused(_)) => return State::Refused,
            Ok(_subscribers) => {}
        }
        let back = heard.wait_for(|last| *last == number);
        match timeout_at(began + DEADLINE, back).await {
            Ok(Ok(_)) => {
                telemetry::engine::canary_returned(began.elapsed());
                State::Back
            }
            Ok(Err(_)) | Err(_) => State::Lost,
        }
    }

    fn became(&self, state: State) {
        let before = State::of(self.0.state.swap(state as u8, Ordering::AcqRel));
        match state.reason() {
            Err(why) => telemetry::engine::canary_failed(why, before != state),
            Ok(()) if before != State::Back && before != State::Unsent => {
                telemetry::engine::canary_recovered()
            }
            Ok(()) => {}
        }
    }

    /// The channel that the connection subscribes to.
    pub(super) fn channel(&self) -> &str {
        self.0.channel.as_str()
    }

    /// The channel is subscribed on a new connection.
    pub(super) fn subscribed(&self, connection: u64) {
        self.0.subscribed.send_replace(connection);
    }

    /// The connection is there, and Redis refused the channel.
    pub(super) fn refused(&self) {
        self.became(State::Unheard);
    }

    /// The connection is lost.
    pub(super) fn disconnected(&self) {
        self.0.subscribed.send_replace(0);
        self.0.state.store(State::Unsent as u8, Ordering::Release);
    }

    /// Takes what came by `channel` if that is its own.
    pub(super) fn take(&self, channel: &[u8], payload: &[u8]) -> bool {
        if channel != self.channel().as_bytes() {
            return false;
        }
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        if let Some(number) = number {
            self.0.heard.send_replace(number);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_number() {
        for state in [
            State::Unsent,
            State::Back,
            State::Lost,
            State::Unsendable,
            State::Refused,
            State::Unheard,
        ] {
            assert_eq!(State::of(state as u8), state);
            assert_eq!(state.reason().is_ok(), state == State::Back);
        }
    }

    #[test]
    fn only_its_own_channel_is_taken() {
        let canary = Canary::new(ChannelName::new("tg:control:1:canary").unwrap());
        assert!(canary.take(canary.channel().as_bytes(), b"7"));
        assert_eq!(*canary.0.heard.borrow(), 7);
        assert!(canary.take(canary.channel().as_bytes(), b"not a number"));
        assert!(!canary.take(b"chat_42", b"8"));
        assert_eq!(*canary.0.heard.borrow(), 7);
    }
}
