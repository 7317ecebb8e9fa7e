//! Declares what the config makes this node send to Redis, so that readiness tells whether Redis accepts it. What no
//! setting uses is not declared, and then a user of Redis does not need the permission for it.

use crate::broker::Publisher;
use crate::config::{AuthSource, Config, EngineKind, Presence};
use crate::limits::SharedLimits;
use crate::presence::PresenceStore;
use crate::tokens::TokenStore;

/// The most channels that are tried as examples.
const MAX_EXAMPLES: usize = 32;

/// The parts whose needs depend on settings that a reload can change.
#[derive(Clone)]
pub(super) struct NeedsDeclarer {
    pub publisher: Publisher,
    pub tokens: TokenStore,
    pub limits: SharedLimits,
    pub presence: PresenceStore,
}

impl NeedsDeclarer {
    pub fn declare(&self, config: &Config) {
        let EngineKind::Redis(redis) = &config.engine.kind else { return };
        let routes = &config.routes;
        let mut channels: Vec<String> =
            routes.iter().filter_map(|route| Some(route.channel.as_ref()?.example())).collect();
        channels.sort_unstable();
        channels.dedup();
        channels.truncate(MAX_EXAMPLES);
        let keeps_history = routes.iter().any(|route| route.history.size > 0);
        self.publisher.declare_needs(&channels, keeps_history, redis.channels.is_some());

        let has_api = !config.admin.api_keys.is_empty();
        let consumes = routes.iter().any(|route| route.auth.contains(&AuthSource::ConnectionToken));
        let issues = consumes && (has_api || config.tokens.issue_path.is_some());
        let has_endpoint = config.tokens.issue_path.is_some();
        let counts = consumes && has_endpoint && config.tokens.outstanding_per_user.is_some();
        self.tokens.declare_needs(issues, consumes, counts);

        let token_limits = (consumes && has_endpoint).then_some(&config.tokens);
        self.limits.declare_needs(routes, token_limits, has_api);

        let with_presence = routes.iter().find(|route| route.presence != Presence::Off);
        let example = with_presence.and_then(|route| Some(route.channel.as_ref()?.example()));
        self.presence.declare_needs(example.as_deref());
    }
}
