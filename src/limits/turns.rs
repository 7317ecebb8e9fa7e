//! Turns: at most one holder at a time has a channel's turn, and others wait for it in a queue.
//!
//! A turn is a lease, which [`super::LeaseSet`] renews and releases. A place in the queue is a shorter lease, which its
//! holder renews by asking for the turn again.

use std::time::Duration;

use tokio::runtime::Handle;

use super::{Holder, SharedLimits};
use crate::protocol::{ChannelName, SenderKey};
use crate::redis_link::EngineUnavailable;

/// How long a place in the queue is kept without renewal.
pub(super) const WAITING_LEASE: Duration = Duration::from_secs(10);

/// The answer to a request for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The holder has the turn.
    Taken,
    /// The holder has a place in the queue.
    Waiting,
    /// Another holder has the turn, and the queue has no room, or none for this client.
    Full,
}

/// The turn of one channel that is asked for, or a place in the queue for it. Given back when this is dropped, unless
/// it was transferred.
pub struct TurnRequest {
    limits: SharedLimits,
    channel: ChannelName,
    holder: Holder,
    is_transferred: bool,
}

impl TurnRequest {
    /// `client` is whose share of the queue it takes.
    pub fn new(limits: &SharedLimits, channel: &ChannelName, client: &SenderKey) -> Self {
        Self {
            limits: limits.clone(),
            channel: channel.clone(),
            holder: Holder::random_of(client),
            is_transferred: false,
        }
    }

    /// Takes the turn if it is free and nobody waits longer for it. Otherwise takes or keeps a place in the queue, which
    /// holds at most `max_waiting`, and at most `share` of one client. Must be called again within 10 seconds while the holder waits.
    pub async fn take(&self, max_waiting: usize, share: usize) -> Result<Turn, EngineUnavailable> {
        self.limits.take_turn(&self.channel, self.holder, max_waiting, share).await
    }

    /// Gives up the responsibility for the turn, which was taken.
    pub fn transfer(mut self) -> Holder {
        self.is_transferred = true;
        self.holder
    }
}

impl Drop for TurnRequest {
    fn drop(&mut self) {
        if self.is_transferred {
            return;
        }
        let (limits, channel, holder) = (self.limits.clone(), self.channel.clone(), self.holder);
        // Without a runtime the process is ending; the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If this fails, the lease expires by itself.
                let _ = limits.leave_turn(&channel, holder).await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
