//! How many new channels the clients of one address may bring into being: each takes memory in the engine for as long
//! as its history lives, even if nothing is ever published to it.
//!
//! A channel is new to this process if no client joined it lately. Whether other nodes know it is not asked: clients of
//! one channel come back to it, while a flood names ever new ones.

use std::sync::Arc;
use std::time::Duration;

use super::{NetworkRates, Verdict};
use crate::config::Rate;
use crate::expiring_map::{Expiring, ExpiringMap};
use crate::protocol::{ChannelName, ClientNetwork};

/// How long a channel is known after a client has joined it.
const KNOWN_FOR: Duration = Duration::from_secs(10 * 60);

/// The most channels that are known. Beyond this further ones count as new each time.
const MAX_KNOWN: usize = 256 * 1024;

/// The known channels and the rates of addresses, shared by all threads. Cheap to clone.
#[derive(Clone)]
pub struct NewChannels {
    known: Arc<ExpiringMap<ChannelName, Known>>,
    rates: NetworkRates,
}

/// There is one for each channel that has clients, so it is small.
struct Known {
    /// In seconds.
    expires: u32,
}

impl Expiring for Known {
    fn is_expired(&self, now: Duration) -> bool {
        u64::from(self.expires) <= now.as_secs()
    }
}

impl Default for NewChannels {
    fn default() -> Self {
        Self { known: Arc::new(ExpiringMap::new(MAX_KNOWN)), rates: NetworkRates::default() }
    }
}

impl NewChannels {
    /// Whether [`NewChannels::join`] would allow it now.
    pub fn has_room(
        &self,
        channel: &ChannelName,
        network: ClientNetwork,
        rate: Option<Rate>,
    ) -> bool {
        let Some(rate) = rate else { return true };
        let now = self.known.now();
        let is_known = {
            let known = self.known.lock(channel);
            known.get(channel).is_some_and(|entry| !entry.is_expired(now))
        };
        is_known || {
            let status = self.rates.status(network, rate);
            status.used < status.max
        }
    }

    /// Counts a client of `network` that joins `channel`, if the channel is new. Without a rate there is no limit.
    pub fn join(
        &self,
        channel: &ChannelName,
        network: ClientNetwork,
        rate: Option<Rate>,
    ) -> Verdict {
        if rate.is_none() {
            return Verdict::Allowed;
        }
        let now = self.known.now();
        let expires = now.saturating_add(KNOWN_FOR).as_secs();
        let expires = u32::try_from(expires).unwrap_or(u32::MAX);
        let mut known = self.known.lock(channel);
        if let Some(entry) = known.get_mut(channel).filter(|entry| !entry.is_expired(now)) {
            entry.expires = expires;
            return Verdict::Allowed;
        }
        let verdict = self.rates.take(network, rate);
        if verdict == Verdict::Allowed {
            // Without room it counts as new the next time.
            let _ = known.insert(channel.clone(), Known { expires }, now);
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
