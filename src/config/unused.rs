//! Keys that have no effect where they are written. Each is a mistake: who writes a key expects something of it. Limits
//! of users that a route does not have, and of messages that it does not take, are only named, because the server API
//! shows them all the same.
//!
//! A value that says what happens anyway, such as `timestamps = false` on a raw route, is neither.

use toml::Value;

use super::checks::{Routes, Upstreams, numbered};
use super::section::{Section, Written};
use super::{
    AuthSource, Concurrent, PlainRequests, Protocol, Proxy, Route, Upstream, UpstreamKind,
};
use crate::protocol::Dialect;

/// What happens to the messages of a route's clients.
#[derive(Clone, Copy, PartialEq)]
enum Messages {
    /// The route takes none.
    Refused,
    /// Each is relayed by itself, and a worker replies.
    Relayed,
    /// Each is a request, whose answer can be the reply.
    Requested,
    /// All of a connection go to a socket of its own.
    Socket,
}

/// `proxy` is `None` if it has mistakes of its own.
pub(super) fn keys(
    root: &mut Section<'_>,
    routes: &Routes,
    upstreams: &Upstreams,
    proxy: Option<&Proxy>,
) {
    // The default stands in for a value with a mistake, and so says nothing about the keys beside it.
    let written: Vec<_> =
        root.written().into_iter().filter(|one| !root.has_mistake_beside(&one.path)).collect();
    let has_proxy = proxy.is_none_or(|proxy| !proxy.urls.is_empty());
    for (index, route) in numbered(routes) {
        // An upstream with a mistake of its own says nothing about the messages.
        let messages = match route.upstream.as_ref().map(|name| upstreams.get(name)) {
            None => Some(Messages::Refused),
            Some(Some(Some(upstream))) => Some(match upstream.kind {
                UpstreamKind::WebSocket(_) => Messages::Socket,
                UpstreamKind::Http(_) => Messages::Requested,
                _ => Messages::Relayed,
            }),
            Some(_) => None,
        };
        let place = Place { route, messages, has_proxy };
        let table = format!("route[{index}]");
        for (key, reason) in reasons(&written, &table, |key| place.reason(key)) {
            root.mistake(&key, None, reason);
        }
        for (key, reason) in reasons(&written, &table, |key| place.notice(key)) {
            root.warn(&key, &reason);
        }
    }
    if let Some(proxy) = proxy {
        for (key, reason) in reasons(&written, "proxy", |key| reason_in_proxy(proxy, key)) {
            root.mistake(&key, None, reason);
        }
    }
    for upstream in upstreams.values().flatten() {
        let table = format!("upstream.{}", upstream.name);
        for (key, reason) in reasons(&written, &table, |key| reason_in_upstream(upstream, key)) {
            root.mistake(&key, None, reason);
        }
    }
}

/// Returns the keys below `table` for which there is a reason, a table of them once.
fn reasons(
    written: &[Written],
    table: &str,
    reason: impl Fn(&Key<'_>) -> Option<&'static str>,
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for Written { path, value, default } in written {
        let Some(name) = path.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let name = whole_limit(name);
        let is_default = default.as_ref() == Some(value);
        let Some(reason) = reason(&Key { name, value, is_default }) else { continue };
        let key = format!("{table}.{name}");
        if found.last().is_none_or(|(last, _)| *last != key) {
            found.push((key, format!("no effect: {reason}")));
        }
    }
    found
}

/// The name of the limit that a key of its table belongs to.
fn whole_limit(name: &str) -> &str {
    let limits = ["limits.messages_per_user", "limits.usage_per_user", "limits.connects_per_user"];
    limits.into_iter().find(|limit| name.starts_with(limit)).unwrap_or(name)
}

/// A key that is written, by its name below the table of its route or upstream.
struct Key<'a> {
    name: &'a str,
    value: &'a Value,
    is_default: bool,
}

impl Key<'_> {
    /// Whether the value turns off what the key controls.
    fn is_off(&self) -> bool {
        match self.value {
            Value::Boolean(value) => !value,
            Value::Integer(value) => *value == 0,
            Value::String(text) => matches!(&**text, "" | "off" | "0" | "0s"),
            _ => false,
        }
    }
}

struct Place<'a> {
    route: &'a Route,
    /// `None` = not known.
    messages: Option<Messages>,
    has_proxy: bool,
}

impl Place<'_> {
    /// Says why a key has no effect on this route, and what to do; `None` = it has one.
    fn reason(&self, key: &Key<'_>) -> Option<&'static str> {
        self.without_requests(key)
            .or_else(|| self.without_events(key))
            .or_else(|| self.without_replies(key))
            .or_else(|| self.without_another_key(key))
    }

    /// The same for keys that may be meant for later.
    fn notice(&self, key: &Key<'_>) -> Option<&'static str> {
        let notice = self.without_users(key).or_else(|| self.without_messages(key));
        notice.filter(|_| self.reason(key).is_none())
    }

    fn is_json(&self) -> bool {
        self.route.protocol == Protocol::Json
    }

    /// Anonymous clients have the limits of their connection and address.
    fn without_users(&self, key: &Key<'_>) -> Option<&'static str> {
        let is_per_user = matches!(
            key.name,
            "limits.messages_per_user"
                | "limits.connects_per_user"
                | "limits.connections_per_user"
                | "limits.generations_per_user"
        );
        let is_anonymous = self.route.auth == [AuthSource::Anonymous];
        (is_per_user && is_anonymous && !key.is_off()).then_some(
            "all clients of this route are anonymous and belong to no user; remove it, or add credentials to auth",
        )
    }

    /// Requests that are no handshakes go somewhere if there is a proxy, or a socket's upstream that speaks HTTP as well.
    fn without_requests(&self, key: &Key<'_>) -> Option<&'static str> {
        let to_upstream = self.route.plain_requests == PlainRequests::Upstream;
        let has_socket = !self.is_json() && self.messages != Some(Messages::Refused);
        let is_passed = match self.route.plain_requests {
            PlainRequests::Upstream => true,
            PlainRequests::Proxy => self.has_proxy,
            PlainRequests::Refused => false,
        };
        match key.name {
            "http" if to_upstream && !has_socket => Some(
                "only raw and pass routes with a WebSocket upstream send requests there; write \"proxy\" or \"off\"",
            ),
            "http"
                if self.route.plain_requests == PlainRequests::Proxy
                    && !self.has_proxy
                    && !key.is_default =>
            {
                Some("[proxy] has no upstream; write one, or \"upstream\" or \"off\"")
            }
            "host" if !has_socket && !key.is_default => Some(
                "only the WebSocket upstream of a raw or pass route gets the client's handshake; remove it",
            ),
            "methods" if !is_passed && !key.is_default => Some(
                "no requests of this route are passed on; remove it, or write http or [proxy] upstream",
            ),
            _ => None,
        }
    }

    /// Where messages pass as they are, the gateway writes and reads none of its own.
    fn without_events(&self, key: &Key<'_>) -> Option<&'static str> {
        if self.is_json() {
            return None;
        }
        Some(match key.name {
            "binary" if self.route.protocol == Protocol::Pass => {
                "messages of both kinds pass on a pass route; remove it"
            }
            "compression" if self.route.protocol == Protocol::Pass && !key.is_off() => {
                "frames of a pass route pass as they are, and extensions are not offered to its upstream; remove it"
            }
            "max_message_chars" => {
                "messages of this route are not read; remove it, max_message_bytes limits their size"
            }
            "timestamps" if !key.is_off() => {
                "this route has no events of the gateway; remove it, or write protocol = \"json\""
            }
            "expiry_notice" if !key.is_off() => {
                "this route has no events of the gateway, so that its clients get no notice; remove it"
            }
            "history.size" | "history.ttl" | "history.compact" if !key.is_off() => {
                "only json routes have a history, because nothing tells other clients their position; remove it"
            }
            name if name.starts_with("generations.") && key.name != "generations.dedup_ttl" => {
                "messages of this route are not read, so that they have no replies that end; remove it"
            }
            "generations.dedup_ttl" if !key.is_off() => {
                "messages of this route are not read, so that they have no id; remove it"
            }
            _ => return None,
        })
    }

    fn without_messages(&self, key: &Key<'_>) -> Option<&'static str> {
        if self.messages != Some(Messages::Refused) {
            return None;
        }
        let is_of_messages = match key.name {
            "max_message_chars" => true,
            "limits.messages_per_user" => !key.is_off(),
            // On json routes it counts other frames as well.
            "limits.messages_per_connection" => !self.is_json() && !key.is_off(),
            "binary" => !self.is_json() && key.value.as_str() == Some("relay"),
            _ => false,
        };
        is_of_messages
            .then_some("this route has no upstream, so that it takes no messages; remove it, or write upstream")
    }

    /// Replies exist where each message is relayed by itself.
    fn without_replies(&self, key: &Key<'_>) -> Option<&'static str> {
        if self.messages.is_none_or(|messages| messages == Messages::Requested) {
            return None;
        }
        if key.name == "limits.usage_per_user" && !key.is_off() {
            return Some(
                "only HTTP upstreams say in their replies what these took; remove it, or write an upstream of kind \"http\"",
            );
        }
        if self.messages == Some(Messages::Relayed) {
            return None;
        }
        let is_of_replies = match key.name {
            "limits.generations_per_user"
            | "generations.dedup_ttl"
            | "generations.reply_idle_timeout"
            | "generations.first_event_warning" => !key.is_off(),
            "generations.concurrent" => key.value.as_str() != Some("parallel"),
            "generations.max_waiting" | "generations.max_waiting_per_user" => true,
            _ => false,
        };
        is_of_replies.then_some(
            "messages of this route are not relayed one by one, so that the gateway follows no replies; remove it, or \
             write an upstream of another kind",
        )
    }

    /// Keys that say more about another one. Their defaults are written in files that show every key.
    fn without_another_key(&self, key: &Key<'_>) -> Option<&'static str> {
        if key.is_default {
            return None;
        }
        let Route { history, generations, .. } = self.route;
        match key.name {
            "history.ttl" | "history.compact" if history.size == 0 && !key.is_off() => {
                Some("history.size is 0, so that nothing is kept; remove it, or write a size")
            }
            "generations.max_waiting" | "generations.max_waiting_per_user"
                if generations.concurrent != Concurrent::Queue =>
            {
                Some("no message waits; remove it, or write concurrent = \"queue\"")
            }
            _ => None,
        }
    }
}

/// Says why a key has no effect in `[proxy]`, and what to do.
fn reason_in_proxy(proxy: &Proxy, key: &Key<'_>) -> Option<&'static str> {
    let is_of_replicas = key.name == "balance" || key.name.starts_with("circuit.");
    (is_of_replicas && !key.is_default && proxy.urls.len() < 2)
        .then_some("there are no replicas; remove it, or write several urls in place of upstream")
}

/// Says why a key has no effect in this upstream, and what to do. Keys of other kinds are unknown there.
fn reason_in_upstream(upstream: &Upstream, key: &Key<'_>) -> Option<&'static str> {
    if key.is_default {
        return None;
    }
    let max_len = match &upstream.kind {
        UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => Some(queue.max_len),
        UpstreamKind::Celery(celery) => Some(celery.max_len),
        UpstreamKind::Http(_) | UpstreamKind::WebSocket(_) => None,
    };
    match (key.name, &upstream.kind) {
        ("max_len_per_user", _) if max_len == Some(0) && !key.is_off() => {
            Some("max_len is 0, so that no one has a share of it; remove it, or write max_len")
        }
        ("balance", _) if upstream.urls().len() == 1 => {
            Some("there is one URL only; remove it, or write several urls")
        }
        ("end", UpstreamKind::Http(http))
            if !matches!(http.dialect, Dialect::Events | Dialect::Auto) =>
        {
            Some("the dialect says what ends a reply; remove it, or remove dialect")
        }
        ("publish", UpstreamKind::Http(http)) if http.dialect == Dialect::Events => Some(
            "the events of this upstream are published as they are; remove it, or write dialect",
        ),
        (name, UpstreamKind::Http(http))
            if name.starts_with("on_complete.") && http.on_complete.is_none() && !key.is_off() =>
        {
            Some("replies are not posted; remove it, or write on_complete.url")
        }
        ("result_keyprefix", UpstreamKind::Celery(celery)) if celery.results.is_none() => {
            Some("results are not read; remove it, or write result_backend_url")
        }
        (name, UpstreamKind::Celery(celery))
            if name.starts_with("track.") && celery.track.is_none() =>
        {
            Some("ids of tasks are not stored; remove it, or write track.key")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
