//! The canaries of a cluster: one on each connection that receives the publications of a shard.
//!
//! The channel of a canary is in a slot of its shard, so that it takes the way of the shard's publications. What works goes
//! on while a shard does not: the node is ready if the canary of any shard returns, and the log names the others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Canary, OfShard};
use crate::protocol::ChannelName;
use crate::redis_link::Health;

/// The canaries of all shards that are connected. Clones share their state.
#[derive(Clone)]
pub struct ShardCanaries(Arc<Shared>);

struct Shared {
    key_prefix: String,
    node: String,
    /// The canaries by the addresses of their shards.
    canaries: Mutex<BTreeMap<Arc<str>, Canary>>,
}

impl ShardCanaries {
    /// `node` identifies this node among those that run, and `key_prefix` begins the names that no client can use.
    pub fn new(key_prefix: &str, node: &str) -> Self {
        let (key_prefix, node) = (key_prefix.to_owned(), node.to_owned());
        Self(Arc::new(Shared { key_prefix, node, canaries: Mutex::default() }))
    }

    /// For readiness checks: `Err` says why the canary of the first shard did not return, if no shard's did.
    pub fn check(&self) -> Result<(), String> {
        let canaries = self.canaries();
        let mut problem = None;
        for (shard, canary) in canaries.iter() {
            match canary.check() {
                Ok(()) => return Ok(()),
                Err(why) => {
                    problem.get_or_insert_with(|| format!("{shard}: {why}"));
                }
            }
        }
        Err(problem.unwrap_or_else(|| "no shard of the cluster is subscribed".to_owned()))
    }

    /// Begins a canary on the connection `subscription` to `shard`, in the slot of `slot_tag`. It counts from here on
    /// instead of the one before. `None` if the name of its channel is not valid.
    pub(in crate::broker) fn begin(
        &self,
        shard: &Arc<str>,
        slot_tag: &str,
        subscription: &Health,
    ) -> Option<Canary> {
        let Shared { key_prefix, node, .. } = &*self.0;
        let channel =
            ChannelName::new(&format!("{key_prefix}{{{slot_tag}}}:canary:{node}")).ok()?;
        let of_shard = OfShard { shard: Arc::clone(shard), subscription: subscription.clone() };
        let canary = Canary::new_for(channel, Some(of_shard));
        // What is known of the shard is not forgotten, so that the log tells when it works again.
        if let Some(before) = self.canaries().get(shard) {
            canary.0.state.store(before.state() as u8, Ordering::Release);
        }
        self.canaries().insert(Arc::clone(shard), canary.clone());
        Some(canary)
    }

    /// Must be called when the connection to `shard` is lost, or the shard is not one any more.
    pub(in crate::broker) fn disconnected(&self, shard: &Arc<str>) {
        self.canaries().remove(shard);
    }

    fn canaries(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Canary>> {
        self.0.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
