//! The configuration in force, for the parts of the gateway that outlive a reload.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::{Config, Generations, History, Route};
use crate::protocol::ChannelName;

/// The configuration in force. Cheap to clone; every clone sees a new configuration at once.
///
/// A part that outlives a reload holds this handle and reads its settings at each use, so that a reload
/// has one value to replace and nothing to pass on.
#[derive(Debug, Clone)]
pub struct SharedConfig(Arc<ArcSwap<Config>>);

impl SharedConfig {
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The configuration for one short use. A guard must not live across an `.await`; see
    /// [`SharedConfig::load_full`].
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// The configuration for a task that goes on with the settings that it started with.
    pub fn load_full(&self) -> Arc<Config> {
        self.0.load_full()
    }

    pub fn replace(&self, config: Arc<Config>) {
        self.0.store(config);
    }
}

impl Config {
    /// The history settings of `channel`; `None` if the channel keeps no history.
    pub fn history_of(&self, channel: &ChannelName) -> Option<History> {
        let history = self.route_of(channel)?.history;
        (history.size > 0).then_some(history)
    }

    /// The rules for replies on `channel`; `None` if no route has such a channel.
    pub fn generations_of(&self, channel: &ChannelName) -> Option<&Generations> {
        self.route_of(channel).map(|route| &route.generations)
    }

    /// The first route whose channel template matches the name.
    fn route_of(&self, channel: &ChannelName) -> Option<&Route> {
        let matches = |route: &&Arc<Route>| {
            route.channel_pattern.as_ref().is_some_and(|pattern| pattern.matches(channel.as_str()))
        };
        self.routes.iter().find(matches).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests;
