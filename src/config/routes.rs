//! The keys of `[[route]]` and `[upstream.*]`.

use toml::Value;
use url::Url;

use super::load::{http_url, positive, positive_size, redis_url};
use super::reader::{Section, text};
use super::*;

pub(super) fn route(s: Section<'_>) -> Option<Route> {
    let path = s.required(
        "path",
        "For example \"/ws/chat/{conversation_id}/\"; matches with and without the last slash.",
        |value| PathPattern::parse(text(value)?),
        "write a path such as \"/ws/chat/{conversation_id}/\"",
    );
    let channel = s.required(
        "channel",
        "For example \"chat_{conversation_id}\"; {user_id} may be used as well.",
        |value| Template::parse(text(value)?),
        "write a name such as \"chat_{conversation_id}\"",
    );
    let upstream = s.required(
        "upstream",
        "A name of [upstream.*]; \"\" = receive-only sockets.",
        |value| Ok(Some(text(value)?.to_owned()).filter(|name| !name.is_empty())),
        "name an [upstream.*], or write \"\" for receive-only sockets",
    );
    let auth = s.texts(
        "auth",
        "[\"connection_token\", \"cookie\", \"bearer\", \"query\"]",
        "Credentials, tried in this order; \"anonymous\" may be last.",
        auth_source,
    );
    if auth.is_empty() {
        s.mistake("auth", "an empty list", "name at least one kind of credentials");
    }
    if auth
        .iter()
        .position(|source| *source == AuthSource::Anonymous)
        .is_some_and(|at| at + 1 < auth.len())
    {
        s.mistake("auth", "\"anonymous\" before others", "write it last");
    }
    let authorize = authorize(&s);
    let choose = |pairs: &'static [(&'static str, bool)]| {
        move |text: &str| {
            pairs
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("write {:?} or {:?}", pairs[0].0, pairs[1].0))
        }
    };
    let reject_close = s.text("reject", "\"close\"", "How a refused client is told: \"close\" = accepted, then 4001 or 4003, which a browser can read; \"http\" = 401 or 403.", choose(&[("close", true), ("http", false)]));
    let raw = s.text(
        "protocol",
        "\"json\"",
        "\"json\" = the envelope of the protocol page; \"raw\" = messages pass unread.",
        choose(&[("json", false), ("raw", true)]),
    );
    let relay_binary = s.text(
        "binary",
        "\"reject\"",
        "Binary messages: \"reject\" = closed with 1003; \"relay\" (raw only).",
        choose(&[("reject", false), ("relay", true)]),
    );
    if relay_binary && !raw {
        s.mistake(
            "binary",
            "\"relay\" with protocol = \"json\"",
            "write \"reject\", or protocol = \"raw\"",
        );
    }
    let queue = s.section("send_queue");
    let send_queue = SendQueue {
        messages: queue.number(
            "messages",
            "256",
            "Messages that may wait for a slow client; beyond it 4008.",
            1..=1_000_000,
        ) as usize,
        bytes: queue.value("bytes", "\"1MiB\"", "The same in bytes.", positive_size),
    };
    queue.finish();
    let limits = limits(s.section("limits"));
    let generations = s.section("generations");
    let terminal_events = generations.texts(
        "terminal_events",
        "[\"complete\", \"completed\", \"error\", \"cancelled\"]",
        "Events that end a reply.",
        |name| Ok(name.to_owned()),
    );
    generations.finish();
    let route = (
        s.value(
            "max_message_bytes",
            "\"64KiB\"",
            "The largest message, all fragments together; beyond it 1009.",
            positive_size,
        ),
        s.number(
            "max_message_chars",
            "10000",
            "The longest \"message\" in characters; beyond it an error event.",
            1..=100_000_000,
        ) as usize,
        s.text(
            "idle_ping",
            "\"25s\"",
            "A connection that has been silent this long is pinged.",
            positive,
        ),
        s.text(
            "pong_timeout",
            "\"10s\"",
            "Without a sign of life this long after a ping it is closed with 4009.",
            positive,
        ),
    );
    s.finish();
    let (max_message_bytes, max_message_chars, idle_ping, pong_timeout) = route;
    Some(Route {
        path: path?,
        channel: channel?,
        upstream: upstream?,
        auth,
        authorize,
        reject: if reject_close { Reject::Close } else { Reject::Http },
        protocol: if raw { Protocol::Raw } else { Protocol::Json },
        binary: if relay_binary { Binary::Relay } else { Binary::Reject },
        max_message_bytes,
        max_message_chars,
        idle_ping,
        pong_timeout,
        send_queue,
        limits,
        generations: Generations { terminal_events },
    })
}

/// `"claims"`, or a table with a URL to ask.
fn authorize(s: &Section<'_>) -> Authorize {
    let right = "write \"claims\" or { url = \"http://…\" }";
    let asks = s.value("authorize", "\"claims\"", "\"claims\" = the token's channel list, if it has one; { url = \"http://…\", timeout = \"2s\" } = the backend is asked as well.", |value| match value {
        Value::String(text) if text == "claims" => Ok(false),
        Value::Table(_) => Ok(true),
        _ => Err(right.to_owned()),
    });
    if !asks {
        return Authorize::Claims;
    }
    let table = s.section("authorize");
    let url = table.required(
        "url",
        "Asked by POST; only a 2xx answer lets the client in.",
        |value| http_url(text(value)?),
        "write an http or https URL",
    );
    let timeout = table.text(
        "timeout",
        "\"2s\"",
        "To its answer; without one the client stays out.",
        positive,
    );
    table.finish();
    url.map_or(Authorize::Claims, |url| Authorize::Url { url, timeout })
}

fn limits(s: Section<'_>) -> RouteLimits {
    let limits = RouteLimits {
        messages_per_user: s.text(
            "messages_per_user",
            "\"50/1h\"",
            "Shared by all connections and nodes; \"\" = none.",
            values::rate,
        ),
        messages_per_connection: s.text(
            "messages_per_connection",
            "\"10/1s burst 20\"",
            "Of one connection.",
            values::rate,
        ),
        connects_per_user: s.text(
            "connects_per_user",
            "\"30/1m\"",
            "Handshakes that succeed otherwise.",
            values::rate,
        ),
        connections_per_user: Some(s.number(
            "connections_per_user",
            "20",
            "Open at once, over all nodes; 0 = no limit.",
            0..=1_000_000,
        ) as u32)
        .filter(|max| *max > 0),
    };
    s.finish();
    limits
}

pub(super) fn upstream(
    name: String,
    s: Section<'_>,
    default_redis: Option<&Secret>,
) -> Option<Upstream> {
    let right = "write \"http\", \"redis-stream\", \"redis-list\" or \"websocket\"";
    let kind = s.required(
        "kind",
        "\"http\", \"redis-stream\", \"redis-list\" or \"websocket\".",
        |value| match text(value)? {
            kind @ ("http" | "redis-stream" | "redis-list" | "websocket") => Ok(kind.to_owned()),
            _ => Err(right.to_owned()),
        },
        right,
    );
    let kind = match kind.as_deref() {
        Some("http") => http_upstream(&s).map(UpstreamKind::Http),
        Some("websocket") => template_url(&s, &["ws", "wss"])
            .map(|url| UpstreamKind::WebSocket(WebSocketUpstream { url })),
        Some(queue) => redis_queue(&s, default_redis).map(if queue == "redis-list" {
            UpstreamKind::RedisList
        } else {
            UpstreamKind::RedisStream
        }),
        None => return None,
    };
    let timeout = s.text(
        "timeout",
        "\"10s\"",
        "To the response's head, the queue's answer or the socket's handshake.",
        positive,
    );
    let max_in_flight = s.number(
        "max_in_flight",
        "256",
        "Messages, streaming replies or sockets at once; beyond it the client gets \"busy\".",
        1..=1_000_000,
    ) as usize;
    let c = s.section("circuit");
    let circuit = Circuit {
        failures: c.number("failures", "10", "So many failures …", 1..=1_000_000) as u32,
        window: c.text("window", "\"10s\"", "… within this time …", positive),
        open: c.text("open", "\"5s\"", "… and the upstream is not asked for this long.", positive),
    };
    c.finish();
    s.finish();
    Some(Upstream { name, kind: kind?, timeout, max_in_flight, circuit })
}

fn http_upstream(s: &Section<'_>) -> Option<HttpUpstream> {
    let url = template_url(s, &["http", "https"]);
    let max_reply =
        s.text("max_reply", "\"10m\"", "http: the longest a streamed reply may last.", positive);
    let retries = s.number("retries", "2", "http: attempts after the first, on connect errors, 502, 503 and 504, with the same Idempotency-Key.", 0..=10) as u32;
    let signing_secret = s.secret(
        "signing_secret",
        "signing_secret_file",
        "http: requests are signed with it (HMAC-SHA256); \"\" = not signed.",
    );
    Some(HttpUpstream { url: url?, max_reply, retries, signing_secret })
}

fn redis_queue(s: &Section<'_>, default_redis: Option<&Secret>) -> Option<RedisQueue> {
    let key = s.required(
        "key",
        "redis-stream, redis-list: the key; placeholders are filled in.",
        |value| Template::parse(text(value)?),
        "write the name of the stream or list",
    );
    let max_len = s.number(
        "max_len",
        "100000",
        "redis-stream: trimmed to about this; redis-list: refuses beyond it; 0 = no bound.",
        0..=u64::from(u32::MAX),
    );
    let given = redis_url(
        s,
        "redis_url",
        "redis_url_file",
        "redis-stream, redis-list: where; \"\" = [engine.redis] url.",
    );
    if given.is_none() && default_redis.is_none() {
        s.mistake("redis_url", "missing", "write a redis:// URL, since the engine is not Redis");
    }
    Some(RedisQueue { redis_url: given.or_else(|| default_redis.cloned())?, key: key?, max_len })
}

fn auth_source(text: &str) -> Result<AuthSource, String> {
    Ok(match text {
        "connection_token" => AuthSource::ConnectionToken,
        "cookie" => AuthSource::Cookie,
        "bearer" => AuthSource::Bearer,
        "query" => AuthSource::Query,
        "anonymous" => AuthSource::Anonymous,
        _ => return Err("write connection_token, cookie, bearer, query or anonymous".to_owned()),
    })
}

/// The `url` of an upstream: its placeholders may be in the path and the query only.
fn template_url(s: &Section<'_>, schemes: &'static [&'static str]) -> Option<Template> {
    let right =
        format!("write a URL such as \"{}://127.0.0.1:8001/chat/{{conversation_id}}\"", schemes[0]);
    s.required(
        "url",
        "http, websocket: where messages go; placeholders are filled in, percent-encoded.",
        |value| {
            let text = text(value)?;
            let origin = text
                .split_once("://")
                .map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
            Url::parse(text)
                .ok()
                .filter(|url| {
                    schemes.contains(&url.scheme()) && url.has_host() && !origin.contains('{')
                })
                .ok_or_else(|| right.clone())?;
            Template::parse(text)
        },
        &right,
    )
}
