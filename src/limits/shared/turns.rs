//! The turns of channels.

use super::{Engine, SharedLimits};
use crate::limits::{Holder, Turn};
use crate::protocol::ChannelName;
use crate::redis_link::EngineUnavailable;

impl SharedLimits {
    /// See [`TurnRequest::take`](crate::limits::TurnRequest::take).
    pub(in crate::limits) async fn take_turn(
        &self,
        channel: &ChannelName,
        holder: Holder,
        max_waiting: usize,
        share: usize,
    ) -> Result<Turn, EngineUnavailable> {
        let key = self.turn_key(channel);
        match &self.0.engine {
            Engine::Memory(limits) => limits.take_turn(&key, holder, max_waiting, share),
            Engine::Redis(limits) => limits.take_turn(&key, holder, max_waiting, share).await,
        }
    }

    /// Gives back the turn of a channel, or the place in the queue for it.
    pub(in crate::limits) async fn leave_turn(
        &self,
        channel: &ChannelName,
        holder: Holder,
    ) -> Result<(), EngineUnavailable> {
        let key = self.turn_key(channel);
        match &self.0.engine {
            Engine::Memory(limits) => {
                limits.leave_turn(&key, holder);
                Ok(())
            }
            Engine::Redis(limits) => limits.leave_turn(&key, holder).await,
        }
    }

    /// The key of the lease by which a channel's turn is held.
    pub(in crate::limits) fn turn_key(&self, channel: &ChannelName) -> String {
        let prefix = &self.0.prefix;
        match self.commands() {
            Some(commands) if commands.is_cluster() => {
                commands.channel_key(prefix, channel.as_str(), "turn")
            }
            _ => format!("{prefix}turn:{{{channel}}}"),
        }
    }
}
