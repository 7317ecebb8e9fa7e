//! Rules across several keys. They cover the values that could be read; the others have mistakes of their
//! own.

mod cluster;
mod upstreams;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use cluster::cluster;
pub(super) use upstreams::placeholders;

use super::mistakes::nearest;
use super::section::Section;
use super::{
    Admin, Binary, ChannelsWire, Engine, EngineKind, FixedReply, FixedWindow, Presence, Protocol,
    ProxyProtocol, Route, RouteLimits, Server, Upstream, UpstreamKind, UserRate,
};
use crate::protocol::{ChannelName, PathPattern, ReservedChannels, Template};

/// A fixed reply and its index in the file.
pub(super) type Numbered = (usize, Arc<FixedReply>);
pub(super) type Routes = [Option<Arc<Route>>];
pub(super) type Upstreams = BTreeMap<String, Option<Arc<Upstream>>>;

pub(super) fn ports(root: &mut Section<'_>, server: Option<&Server>, admin: Option<&Admin>) {
    if let (Some(server), Some(admin)) = (server, admin)
        && server.listen == admin.listen
        && server.listen.port() != 0
    {
        let fix = "write an address that differs from server.listen";
        root.mistake("admin.listen", Some(format!("\"{}\"", admin.listen)), fix);
    }
    if let (Some(server), Some(admin)) = (server, admin)
        && let Some(redirect) = server.tls.as_ref().and_then(|tls| tls.redirect)
        && [server.listen, admin.listen].contains(&redirect.listen)
        && redirect.listen.port() != 0
    {
        let fix = "write an address that differs from server.listen and admin.listen";
        root.mistake("server.tls.redirect", Some(format!("\"{}\"", redirect.listen)), fix);
    }
}

/// Who names clients must be trusted, and is not to be everybody by default.
pub(super) fn proxy_protocol(root: &mut Section<'_>, server: Option<&Server>) {
    if let Some(server) = server
        && server.proxy_protocol == ProxyProtocol::Required
        && server.trusted_proxies.is_empty()
    {
        let fix = "write the addresses of your load balancers in server.trusted_proxies as well: nobody else can connect";
        root.mistake("server.proxy_protocol", Some(quoted("required")), fix);
    }
}

pub(super) fn routes(root: &mut Section<'_>, routes: &Routes, upstreams: &Upstreams) {
    if routes.is_empty() {
        root.mistake("route", None, "missing; write at least one [[route]] with path and channel");
    }
    for (index, route) in numbered(routes) {
        let key = |name: &str| format!("route[{index}].{name}");
        if let Some((earlier, other)) =
            numbered(&routes[..index]).find(|(_, other)| hides(&other.path, &route.path))
        {
            hidden_path(root, (index, &route.path), (earlier, &other.path));
        }
        if let Some(name @ ("user_id" | "channel")) = route.path.rest_name() {
            let fix = format!("write another name: {{{name}}} is filled with something else");
            root.mistake(&key("path"), Some(quoted(route.path.as_str())), fix);
        }
        if route.binary == Binary::Relay && route.protocol != Protocol::Raw {
            let fix = "write protocol = \"raw\" as well, or binary = \"reject\"";
            root.mistake(&key("binary"), Some(quoted("relay")), fix);
        }
        if route.presence == Presence::Events && route.protocol != Protocol::Json {
            let fix = "write presence = \"on\": raw and pass routes have no events of the gateway";
            root.mistake(&key("presence"), Some(quoted("events")), fix);
        }
        if route.timestamps && route.path.names().any(|name| name == "timestamp") {
            let fix = "the path has a {timestamp}, which is already a field of connected";
            root.mistake(&key("timestamps"), Some("true".to_owned()), fix);
        }
        if route.channel.is_none() && route.presence != Presence::Off {
            let fix =
                "write a channel as well, or presence = \"off\": presence is that of a channel";
            root.mistake(&key("presence"), None, fix);
        }
        if route.max_message_bytes == usize::MAX && route.protocol != Protocol::Pass {
            let fix =
                "write a size such as \"1MiB\": only a pass route does not hold whole messages";
            root.mistake(&key("max_message_bytes"), Some("0".to_owned()), fix);
        }
        channel(root, &key("channel"), route);
        limits(root, index, route);
        history(root, index, route, routes);
        upstream(root, index, route, upstreams);
    }
}

pub(super) fn replies(root: &mut Section<'_>, routes: &Routes, replies: &[Numbered]) {
    for (index, reply) in replies {
        let of_routes = numbered(routes).map(|(other, route)| (other, &route.path));
        let of_replies = replies.iter().map(|(other, reply)| (*other, &reply.path));
        for (other, path) in of_routes.chain(of_replies) {
            if other < *index && hides(path, &reply.path) {
                hidden_path(root, (*index, &reply.path), (other, path));
                break;
            }
        }
        for (other, route) in numbered(routes).filter(|(other, _)| other > index) {
            if hides(&reply.path, &route.path) {
                hidden_path(root, (other, &route.path), (*index, &reply.path));
            }
        }
    }
}

/// Whether no request gets to the path `later` because of `earlier`. Of the paths that end with a rest the most specific
/// one is used, after all others; of the others the first in the file.
fn hides(earlier: &PathPattern, later: &PathPattern) -> bool {
    match (earlier.has_rest(), later.has_rest()) {
        (false, false) => earlier.covers(later),
        (true, true) => earlier.covers(later) && later.covers(earlier),
        _ => false,
    }
}

/// Two routes for the same paths are a mistake. A path that is written behind one that takes more may be meant for later.
fn hidden_path(
    root: &mut Section<'_>,
    (index, path): (usize, &PathPattern),
    (earlier, other): (usize, &PathPattern),
) {
    let key = format!("route[{index}].path");
    let text = format!("route[{earlier}] already matches every request for this path");
    if path.covers(other) {
        root.mistake(&key, Some(quoted(path.as_str())), text);
    } else {
        root.warn(&key, &format!("not used: {text}; write it before that one"));
    }
}

/// With the core wire a channel is a group, whose name must be valid for channels_redis.
pub(super) fn groups(root: &mut Section<'_>, engine: Option<&Engine>, routes: &Routes) {
    let wire = engine.and_then(|engine| match &engine.kind {
        EngineKind::Redis(redis) => redis.channels.as_ref().map(|layer| layer.wire),
        EngineKind::Memory => None,
    });
    if wire != Some(ChannelsWire::Core) {
        return;
    }
    for (index, route) in numbered(routes) {
        let Some(channel) = &route.channel else { continue };
        let texts = texts(channel).concat();
        if ChannelName::new(&texts).is_ok_and(|texts| !texts.is_group_name()) {
            let fix = "write fewer than 100 ASCII letters, digits, - _ . only: with wire = \"channels-core\" it is the name of a group";
            let found = Some(quoted(channel.as_str()));
            root.mistake(&format!("route[{index}].channel"), found, fix);
        }
    }
}

fn channel(root: &mut Section<'_>, key: &str, route: &Route) {
    let Some(channel) = &route.channel else { return };
    names_among(root, key, channel, &route.path, &["user_id"], "the route's path");
    // The values of placeholders are checked at the handshake, the text between them now.
    let text = channel.as_str().replace(['{', '}'], "_");
    if let Err(invalid) = ChannelName::new(&text) {
        root.mistake(key, Some(quoted(channel.as_str())), invalid.to_string());
    }
}

/// A channel must not have a name that another system on the same Redis uses, nor one that its clients choose whole.
pub(super) fn reserved_channels(
    root: &mut Section<'_>,
    routes: &Routes,
    reserved: &ReservedChannels,
) {
    for (index, route) in numbered(routes) {
        let Some(channel) = &route.channel else { continue };
        let key = format!("route[{index}].channel");
        let found = || Some(quoted(channel.as_str()));
        if channel.begins_with_placeholder() {
            let fix = "write text in front of the first placeholder, such as \"room_{room}\", or set \
                       engine.channel_prefix: clients could join channels of any name";
            root.mistake(&key, found(), fix);
        } else if reserved.is_reserved(channel.literal_start()) {
            let fix = "write a name that begins otherwise: this one is reserved for the gateway, Redis, Celery or a \
                       channel layer";
            root.mistake(&key, found(), fix);
        }
    }
}

/// A Redis key must not be one that clients choose whole. A channel's name is none of those.
fn key_start(root: &mut Section<'_>, key: &str, template: &Template) {
    let starts_with_channel = template.names().next() == Some("channel");
    if template.begins_with_placeholder() && !starts_with_channel {
        let fix = "write text in front of the first placeholder: clients could choose any key of this Redis";
        root.mistake(key, Some(quoted(template.as_str())), fix);
    }
}

fn limits(root: &mut Section<'_>, index: usize, route: &Route) {
    let RouteLimits { messages_per_user, usage_per_user, connects_per_user, .. } = &route.limits;
    for (name, rate) in [
        ("messages_per_user", messages_per_user),
        ("usage_per_user", usage_per_user),
        ("connects_per_user", connects_per_user),
    ] {
        let Some(UserRate::Window(FixedWindow { key: Some(template), .. })) = rate else {
            continue;
        };
        let key = format!("route[{index}].limits.{name}.key");
        names_among(root, &key, template, &route.path, &["user_id"], "the route's path");
        key_start(root, &key, template);
        if !template.names().any(|name| name == "user_id") {
            let fix = "write {user_id} in it, so that each user has a separate count";
            root.mistake(&key, Some(quoted(template.as_str())), fix);
        }
    }
}

/// The history of a channel cannot depend on the route that a client connects through.
fn history(root: &mut Section<'_>, index: usize, route: &Route, routes: &Routes) {
    let kept = |route: &Route| (route.history.size, route.history.ttl);
    let Some(channel) = &route.channel else { return };
    let conflict = numbered(&routes[..index]).find(|(_, other)| {
        other.channel.as_ref().is_some_and(|other| texts(other) == texts(channel))
            && kept(other) != kept(route)
    });
    if let Some((earlier, _)) = conflict {
        let fix = format!(
            "route[{earlier}] has the same channels; write the same history size and ttl in both"
        );
        root.mistake(&format!("route[{index}].history"), None, fix);
    }
}

/// The texts between the placeholders of a template.
fn texts(template: &Template) -> Vec<&str> {
    template
        .as_str()
        .split('{')
        .map(|part| part.split_once('}').map_or(part, |(_, after)| after))
        .collect()
}

fn upstream(root: &mut Section<'_>, index: usize, route: &Route, upstreams: &Upstreams) {
    let Some(name) = &route.upstream else {
        if route.protocol == Protocol::Pass {
            let fix = "missing; write the NAME of an [upstream.NAME] of kind \"websocket\"";
            root.mistake(&format!("route[{index}].upstream"), None, fix);
        }
        return;
    };
    match upstreams.get(name) {
        None => {
            let fix = match nearest(name, upstreams.keys().map(String::as_str)) {
                Some(nearest) => {
                    format!("there is no [upstream.{name}]; did you mean {nearest:?}?")
                }
                None => format!(
                    "there is no [upstream.{name}]; write one, or \"\" for receive-only clients"
                ),
            };
            root.mistake(&format!("route[{index}].upstream"), Some(quoted(name)), fix);
        }
        Some(Some(upstream))
            if route.protocol != Protocol::Json
                && !matches!(upstream.kind, UpstreamKind::WebSocket(_)) =>
        {
            let (protocol, or_none) = match route.protocol {
                Protocol::Pass => ("pass", ""),
                _ => ("raw", " or none"),
            };
            let fix = format!(
                "a {protocol} route needs an upstream of kind \"websocket\"{or_none}, and {name:?} is of another kind"
            );
            root.mistake(&format!("route[{index}].protocol"), Some(quoted(protocol)), fix);
        }
        Some(_) => {}
    }
}

fn filled_by_all(
    root: &mut Section<'_>,
    key: &str,
    template: &Template,
    routes: &Routes,
    uses: impl Fn(&Route) -> bool,
    always: &[&str],
) {
    for (index, route) in numbered(routes).filter(|(_, route)| uses(route)) {
        let place = format!("the path of route[{index}]");
        let has_channel = route.channel.is_some();
        let always = always.iter().copied().filter(|name| *name != "channel" || has_channel);
        let always: Vec<&str> = always.collect();
        names_among(root, key, template, &route.path, &always, &place);
    }
}

fn names_among(
    root: &mut Section<'_>,
    key: &str,
    template: &Template,
    path: &PathPattern,
    always: &[&str],
    place: &str,
) {
    let allowed: Vec<&str> = path.names().chain(always.iter().copied()).collect();
    for name in template.names().filter(|name| template.has_star(name)) {
        if path.rest_name() != Some(name) {
            let fix = format!("{place} does not end with {{{name}*}}, so that it has no such rest");
            root.mistake(key, Some(format!("{{{name}*}}")), fix);
        }
    }
    for name in template.names().filter(|name| !allowed.contains(name) && !template.has_star(name))
    {
        let list: Vec<String> = allowed.iter().map(|name| format!("{{{name}}}")).collect();
        let fix = format!("{place} has no such name; write one of {}", list.join(", "));
        root.mistake(key, Some(format!("{{{name}}}")), fix);
    }
}

pub(super) fn numbered(routes: &Routes) -> impl Iterator<Item = (usize, &Arc<Route>)> {
    routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.as_ref()?)))
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
