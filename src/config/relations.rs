//! What must hold between settings of different places.

use super::reader::Section;
use super::{AuthSource, Config, Protocol, Route, UpstreamKind};
use crate::protocol::Template;

/// Checks `config`, whose routes are at `sections`; mistakes go to `root`.
pub fn check(config: &Config, sections: &[String], root: &Section<'_>) {
    if config.server.listen == config.admin.listen && config.server.listen.port() != 0 {
        root.mistake("admin.listen", "the public port", "write another port");
    }
    for (index, (route, section)) in config.routes.iter().zip(sections).enumerate() {
        let earlier = &config.routes[..index];
        if earlier.iter().any(|other| other.path == route.path) {
            let found = format!("found {:?} a second time", route.path.as_str());
            root.mistake(&format!("{section}.path"), found, "write each path once");
        }
        check_route(config, route, section, root);
    }
}

fn check_route(config: &Config, route: &Route, section: &str, root: &Section<'_>) {
    let key = |name: &str| format!("{section}.{name}");
    if route
        .path
        .names()
        .any(|name| matches!(name, "event" | "user_id" | "channel" | "connection_id"))
    {
        let right = "event, user_id, channel and connection_id have a meaning of their own";
        root.mistake(&key("path"), format!("found {:?}", route.path.as_str()), right);
    }
    check_names(&key("channel"), &route.channel, route, false, root);
    if let Some(binding) = &config.tokens.binding
        && route.auth.contains(&AuthSource::ConnectionToken)
    {
        check_names("tokens.binding", binding, route, false, root);
    }
    let upstream = match &route.upstream {
        None => None,
        Some(name) => match config.upstreams.get(name) {
            Some(upstream) => Some(upstream),
            None => {
                let known: Vec<String> = config.upstreams.keys().cloned().collect();
                let right = match super::reader::nearest(name, &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("write a section [upstream.{name}]"),
                };
                root.mistake(&key("upstream"), format!("there is no upstream {name:?}"), right);
                return;
            }
        },
    };
    let raw = route.protocol == Protocol::Raw;
    match upstream.map(|upstream| &upstream.kind) {
        Some(UpstreamKind::WebSocket(upstream)) => {
            check_names(&upstream_key(route, "url"), &upstream.url, route, true, root);
        }
        Some(_) if raw => {
            let right = "a raw route needs an upstream of kind \"websocket\", or none";
            root.mistake(&key("protocol"), "found \"raw\"", right);
        }
        Some(UpstreamKind::Http(upstream)) => {
            check_names(&upstream_key(route, "url"), &upstream.url, route, true, root);
        }
        Some(UpstreamKind::RedisStream(upstream) | UpstreamKind::RedisList(upstream)) => {
            check_names(&upstream_key(route, "key"), &upstream.key, route, true, root);
        }
        None => {}
    }
}

fn upstream_key(route: &Route, name: &str) -> String {
    format!("upstream.{}.{name}", route.upstream.as_deref().unwrap_or_default())
}

/// A template may only name what its place has.
fn check_names(key: &str, template: &Template, route: &Route, channel: bool, root: &Section<'_>) {
    for name in template.names() {
        let known = name == "user_id"
            || (channel && name == "channel")
            || route.path.names().any(|param| param == name);
        if !known {
            let mut names: Vec<String> = route.path.names().map(|n| format!("{{{n}}}")).collect();
            names.push("{user_id}".to_owned());
            if channel {
                names.push("{channel}".to_owned());
            }
            let right = format!("route {} has {}", route.path.as_str(), names.join(", "));
            root.mistake(key, format!("{{{name}}} in {:?}", template.as_str()), right);
        }
    }
}
