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
        let matches = |route: &&Arc<Route>| route.channel_pattern.matches(channel.as_str());
        self.routes.iter().find(matches).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &[(&str, usize)]) -> Config {
        let route = |(index, (channel, size)): (usize, &(&str, usize))| {
            format!(
                "[[route]]\npath = \"/{index}/{{id}}/{{x}}/\"\nchannel = \"{channel}\"\n\
                 auth = [\"anonymous\"]\nhistory = {{ size = {size} }}\n"
            )
        };
        let text: String = routes.iter().enumerate().map(route).collect();
        Config::from_toml(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    #[test]
    fn the_first_matching_route_decides() {
        let shared = SharedConfig::new(config(&[("chat_{id}_{x}", 1), ("x_{id}", 0), ("{id}", 2)]));
        let size = |name: &str| {
            let history = shared.load().history_of(&ChannelName::new(name).unwrap());
            history.map(|history| history.size)
        };
        assert_eq!(size("chat_1_2"), Some(1));
        assert_eq!(size("x_1"), None);
        assert_eq!(size("chat_1"), Some(2));
        shared.replace(Arc::new(config(&[("{id}", 1)])));
        assert_eq!(size("x_1"), Some(1));
    }
}
