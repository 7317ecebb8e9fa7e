//! Settings that are valid but fit badly together: nothing fails, and clients do not get what they should.

mod risks;

use super::{
    AuthSource, Config, EngineKind, Protocol, Route, TokenFormat, TrackFormat, UpstreamKind,
};
use crate::protocol::{EventName, Template};

impl Config {
    /// One line per notice: the key, then what to look at.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.load_notices.clone();
        notices.extend(risks::of(self));
        let mut add = |key: &str, text: &str| notices.push(format!("{key}: {text}"));
        let has_layer =
            matches!(&self.engine.kind, EngineKind::Redis(redis) if redis.channels.is_some());
        if self.tokens.format == TokenFormat::Django && !has_version(&self.tokens.key_prefix) {
            add(
                "tokens.key_prefix",
                "keys of Django's cache begin with KEY_PREFIX:VERSION:, such as \":1:ws_conn_token:\"",
            );
        }
        let max_memory = self.server.max_memory;
        if matches!(self.engine.kind, EngineKind::Memory)
            && max_memory > 0
            && self.engine.max_history_bytes >= max_memory
        {
            let text = "not more than engine.max_history_bytes: once the histories are full, no client can connect";
            add("server.max_memory", text);
        }
        let (per_ip, total) = (self.server.max_connections_per_ip, self.server.max_connections);
        if per_ip >= total {
            let text = format!("{per_ip} of {total} in all: one address can take every connection");
            add("server.max_connections_per_ip", &text);
        }
        for route in &self.routes {
            if is_closed_to_all(self, route) {
                let text = "no client can connect, because [jwt] has neither keys nor jwks_url, and nothing issues connection tokens \
                            ([admin] api_keys); for clients without credentials write [\"anonymous\"]";
                add(&format!("route {}: auth", route.path.as_str()), text);
            }
            if let Some(name) = upstream_of_one_path(self, route) {
                let text = format!(
                    "every path of route {} becomes the one of this URL; leave it out, with its slash, for the client's \
                     own, or write {{names}} of the route into it",
                    route.path.as_str()
                );
                add(&format!("upstream.{name}.url"), &text);
            }
            let kind = route.upstream.as_ref().and_then(|name| self.upstreams.get(name));
            let ends_replies = kind.is_some_and(|upstream| match &upstream.kind {
                UpstreamKind::Http(_) => true,
                UpstreamKind::Celery(celery) => celery.results.is_some(),
                UpstreamKind::RedisStream(_)
                | UpstreamKind::RedisList(_)
                | UpstreamKind::WebSocket(_) => false,
            });
            let complete = EventName::Complete.label();
            if ends_replies
                && !route.generations.terminal_events.iter().any(|event| event == complete)
            {
                let key = format!("route {}: generations.terminal_events", route.path.as_str());
                add(&key, "without \"complete\", by which the gateway itself ends replies");
            }
        }
        for (name, upstream) in &self.upstreams {
            let UpstreamKind::Celery(celery) = &upstream.kind else {
                continue;
            };
            if !has_layer {
                let text = "group_send of its tasks is not heard: that needs [engine.redis] wire = \"channels-core\" or \
                            \"channels-pubsub\"";
                add(&format!("upstream.{name}"), text);
            }
            let is_json = self.tokens.format == TokenFormat::Json;
            if is_json
                && celery.track.as_ref().is_some_and(|track| track.format == TrackFormat::Pickle)
            {
                let text = "a cache that stores JSON (tokens.format) cannot read a pickled set; write \"json\"";
                add(&format!("upstream.{name}.track.format"), text);
            }
        }
        notices
    }
}

/// Whether no source of credentials of a route can have valid ones.
fn is_closed_to_all(config: &Config, route: &Route) -> bool {
    let has_jwts = !config.jwt.keys.is_empty() || config.jwt.jwks_url.is_some();
    // Who has a JWT gets tokens, the server API issues them, and a backend may write them into Redis.
    let has_tokens = has_jwts
        || !config.admin.api_keys.is_empty()
        || matches!(config.engine.kind, EngineKind::Redis(_));
    route.auth.iter().all(|source| match source {
        AuthSource::Anonymous => false,
        AuthSource::ConnectionToken => !has_tokens,
        AuthSource::Cookie | AuthSource::Bearer | AuthSource::Query => !has_jwts,
    })
}

/// The upstream of a pass route for many paths whose URL has one, which may be no more than a last slash.
fn upstream_of_one_path<'a>(config: &Config, route: &'a Route) -> Option<&'a str> {
    let name = route.upstream.as_deref().filter(|_| route.protocol == Protocol::Pass)?;
    let has_one_path = |url: &Template| {
        let path = url.as_str().split_once("://")?.1.split_once('/')?.1;
        let is_filled = route.path.names().any(|name| url.names().any(|used| used == name));
        Some(!is_filled && (path.is_empty() || route.path.has_rest()))
    };
    let is_for_many = route.path.names().next().is_some();
    let mut urls = config.upstreams.get(name)?.urls().iter();
    (is_for_many && urls.any(|url| has_one_path(url) == Some(true))).then_some(name)
}

/// Whether a part between two colons is a number, as the version in the keys of Django's cache is.
fn has_version(prefix: &str) -> bool {
    // What precedes the first colon, and what follows the last one, is not between two.
    let parts = prefix.split_once(':').and_then(|(_, rest)| rest.rsplit_once(':'));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(between, _)| between.split(':').any(is_number))
}

#[cfg(test)]
mod tests;
