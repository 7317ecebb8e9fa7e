//! Keys of `[upstream.NAME]`.

use toml::Value;

use super::celery::celery;
use super::engine::engine_url;
use super::kinds::{self, Kind, choice, words};
use super::request::{headers, request};
use super::section::Section;
use super::{
    Balance, Circuit, Engine, HttpUpstream, Include, OnComplete, OnDisconnect, Publish, RedisQueue,
    StreamEnd, Upstream, UpstreamKind, WebSocketUpstream,
};
use crate::protocol::{Dialect, Template};

/// What `max_len_per_user` means for every queue.
pub(super) const MAX_LEN_PER_USER: &str = "Messages of one user, or of the anonymous clients of one address, whose \
    replies have not ended; beyond it clients get \"busy\". 0 = a quarter of max_len, at least 64.";

#[derive(Clone, Copy, PartialEq)]
enum KindName {
    Http,
    Celery,
    RedisStream,
    RedisList,
    WebSocket,
}

const KIND: Kind<KindName> =
    words(r#""http", "celery", "redis-stream", "redis-list" or "websocket""#, |value| {
        choice(
            value,
            &[
                ("http", KindName::Http),
                ("celery", KindName::Celery),
                ("redis-stream", KindName::RedisStream),
                ("redis-list", KindName::RedisList),
                ("websocket", KindName::WebSocket),
            ],
        )
    });

const BALANCE: Kind<Balance> = words(r#""least", "channel" or "user""#, |value| {
    choice(
        value,
        &[("least", Balance::Least), ("channel", Balance::Channel), ("user", Balance::User)],
    )
});

/// The most replicas of an upstream.
pub(super) const MAX_URLS: usize = 64;

const ON_DISCONNECT: Kind<OnDisconnect> = words(r#""continue" or "cancel""#, |value| {
    choice(value, &[("continue", OnDisconnect::Continue), ("cancel", OnDisconnect::Cancel)])
});

const DIALECT: Kind<Dialect> = words(
    r#""events", "openai-chat", "openai-responses", "anthropic", "gemini", "ollama", "ai-sdk", "ag-ui", "langgraph" or "auto""#,
    |value| {
        Dialect::ALL
            .iter()
            .find(|dialect| value.as_str() == Some(dialect.label()))
            .copied()
            .ok_or(kinds::ValueError::WrongKind)
    },
);

const STREAM_END: Kind<StreamEnd> = words(r#""body" or "event""#, |value| {
    choice(value, &[("body", StreamEnd::Body), ("event", StreamEnd::Event)])
});

const INCLUDE: Kind<Include> = words(r#""message" or "reasoning""#, |value| {
    choice(value, &[("message", Include::Message), ("reasoning", Include::Reasoning)])
});

const PUBLISH: Kind<Publish> = words(r#""events" or "native""#, |value| {
    choice(value, &[("events", Publish::Events), ("native", Publish::Native)])
});

/// A queue without a Redis URL uses that of `engine`, which is `None` if it has mistakes of its own.
pub(super) fn upstream(
    s: &mut Section<'_>,
    name: &str,
    engine: Option<&Engine>,
) -> Option<Upstream> {
    let named = is_label(name);
    if !named {
        s.mistake("", None, "name upstreams with at most 64 letters, digits, - and _");
    }
    let Some(kind_name) = s.required("kind", KIND, "The kind of upstream.") else {
        s.skip_rest();
        return None;
    };
    let circuit = s.inline("circuit", circuit);
    let kind = match kind_name {
        KindName::Http => http(s).map(UpstreamKind::Http),
        KindName::Celery => celery(s, engine).map(Box::new).map(UpstreamKind::Celery),
        KindName::RedisStream => queue(s, kind_name, engine).map(UpstreamKind::RedisStream),
        KindName::RedisList => queue(s, kind_name, engine).map(UpstreamKind::RedisList),
        KindName::WebSocket => websocket(s).map(UpstreamKind::WebSocket),
    };
    let balance = match kind_name {
        KindName::Http | KindName::WebSocket => balance(s),
        KindName::Celery | KindName::RedisStream | KindName::RedisList => Some(Balance::Least),
    };
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        match kind_name {
            KindName::Http => {
                "Time limit for the head of the response; a streamed reply may last max_reply."
            }
            KindName::Celery | KindName::RedisStream | KindName::RedisList => {
                "Time limit for Redis."
            }
            KindName::WebSocket => "Time limit for the opening handshake.",
        },
    );
    let max_in_flight = s.key(
        "max_in_flight",
        kinds::POSITIVE_COUNT,
        // A relayed message is short-lived, but a socket lives as long as its client.
        Value::from(if kind_name == KindName::WebSocket { 10_000 } else { 256 }),
        match kind_name {
            KindName::WebSocket => "Open sockets to this upstream; beyond it clients get \"busy\".",
            _ => "Messages and replies in progress; beyond it clients get \"busy\".",
        },
    );
    let max_in_flight_per_user = s.key(
        "max_in_flight_per_user",
        kinds::COUNT,
        0,
        "The same for one user, or for the anonymous clients of one address; 0 = a quarter of max_in_flight.",
    );
    Some(Upstream {
        name: named.then(|| name.to_owned())?,
        kind: kind?,
        timeout: timeout?,
        max_in_flight: max_in_flight?,
        max_in_flight_per_user: max_in_flight_per_user?,
        circuit: circuit?,
        balance: balance?,
    })
}

fn balance(s: &mut Section<'_>) -> Option<Balance> {
    s.key(
        "balance",
        BALANCE,
        "least",
        "With several urls: \"least\": the one with the fewest messages, replies and sockets in flight on this node. \
         \"channel\", \"user\": always the same one for a channel, or for a user or the anonymous clients of one address, \
         as long as it can be reached.",
    )
}

/// Reads `url`, or `urls` in its place.
fn urls(s: &mut Section<'_>, kind: Kind<Template>, url_doc: &'static str) -> Option<Vec<Template>> {
    let replicas = replica_urls(
        s,
        kind,
        "url",
        "In place of url: the URLs of several replicas. One that cannot be reached is left out for circuit.open; each has \
         a circuit of its own.",
    );
    replicas.unwrap_or_else(|| s.required("url", kind, url_doc).map(|url| vec![url]))
}

/// Reads `urls`, which replaces the key `single`. `None` = it has no elements.
pub(super) fn replica_urls<T: PartialEq>(
    s: &mut Section<'_>,
    kind: Kind<T>,
    single: &str,
    doc: &'static str,
) -> Option<Option<Vec<T>>> {
    // A value that is no list is a mistake, and meant to be one.
    let has_list = s.has_elements("urls") || (s.is_set("urls") && !s.is_list("urls"));
    let urls = s.list("urls", kind, &[], doc);
    if !has_list {
        return None;
    }
    if s.is_set(single) {
        s.mistake(single, None, format!("write {single} or urls, not both"));
    }
    // The key is known, even if it is not used.
    s.skip(single);
    Some(urls.and_then(|urls| {
        let fix = if urls.len() > MAX_URLS {
            "write 1 to 64 URLs"
        } else if urls.iter().enumerate().any(|(index, url)| urls[..index].contains(url)) {
            "write each URL only once"
        } else {
            return Some(urls);
        };
        s.mistake("urls", None, fix);
        None
    }))
}

/// Whether a name can become a metric label and a part of an override variable.
fn is_label(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn http(s: &mut Section<'_>) -> Option<HttpUpstream> {
    s.set_heading(
        r#"[upstream.NAME] kind = "http""#.to_owned(),
        "An HTTP endpoint, which replies at once or streams its reply.",
    );
    let urls = urls(
        s,
        kinds::HTTP_TEMPLATE,
        "Where messages are sent. {names} of the route's path, {user_id}, {channel}, {message}, {message_id}, {task_id}, \
         {username} and {connection_id} are filled percent-encoded, after the host.",
    );
    let request = request(s, urls.as_deref().unwrap_or_default());
    let max_reply = s.key(
        "max_reply",
        kinds::POSITIVE_DURATION,
        "10m",
        "The longest a streamed reply may last.",
    );
    let stream_idle_timeout = s.key(
        "stream_idle_timeout",
        kinds::DURATION,
        "2m",
        "How long nothing may come of a streamed reply, not even a comment, before it counts as broken; \"0s\" = no limit.",
    );
    let end = s.key(
        "end",
        STREAM_END,
        "body",
        "What completes a streamed reply of the upstream's own events: \"body\": the end of the body. \"event\": only one of \
         terminal_events or [DONE], for proxies in front of the upstream that hide that it has died.",
    );
    let on_disconnect = s.key(
        "on_disconnect",
        ON_DISCONNECT,
        "continue",
        "What happens to a streamed reply when its client disconnects.",
    );
    let dialect = s.key(
        "dialect",
        DIALECT,
        "events",
        "The API whose format streamed replies have. \"events\": events of the upstream's own, published as they are. \
         \"auto\": found out for each reply.",
    );
    let publish = s.key(
        "publish",
        PUBLISH,
        "events",
        "What is published of a dialect's stream. \"events\": chunk, reasoning, tool_call, tool_result, usage. \
         \"native\": each object of the API as it is.",
    );
    let retries = s.key(
        "retries",
        kinds::RETRIES,
        2,
        "Retries after a failed connect, 502, 503 or 504, with the same Idempotency-Key.",
    );
    let signing_secret = s.secret(
        "signing_secret",
        kinds::OPTIONAL_SECRET,
        "",
        "Signs requests: HMAC-SHA256 of time and body; \"\" = not signed.",
    );
    let on_complete = s.inline("on_complete", on_complete);
    Some(HttpUpstream {
        urls: urls?,
        request: request?,
        max_reply: max_reply?,
        stream_idle_timeout: Some(stream_idle_timeout?).filter(|timeout| !timeout.is_zero()),
        end: end?,
        on_disconnect: on_disconnect?,
        dialect: dialect?,
        publish: publish?,
        retries: retries?,
        signing_secret: signing_secret?,
        on_complete: on_complete?,
    })
}

fn on_complete(s: &mut Section<'_>) -> Option<Option<Box<OnComplete>>> {
    let url = s.key(
        "url",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "Where each streamed reply is posted as JSON when it has ended in any way, until an answer decides. See \
         [ai-apis.md](ai-apis.md#the-whole-reply). \"\" = nowhere.",
    );
    let timeout = s.key("timeout", kinds::POSITIVE_DURATION, "10s", "Time limit of each attempt.");
    let headers = headers(s, "Headers of these requests, written as in headers.");
    let signing_secret = s.secret(
        "signing_secret",
        kinds::OPTIONAL_SECRET,
        "",
        "Signs these requests as messages are signed: HMAC-SHA256 of time and body; \"\" = not signed.",
    );
    let include = s.list(
        "include",
        INCLUDE,
        &[],
        "What is posted besides the usual: \"message\" (the client's object), \"reasoning\" (the model's thoughts).",
    );
    let (url, timeout, headers) = (url?, timeout?, headers?);
    let (signing_secret, include) = (signing_secret?, include?);
    Some(url.map(|url| Box::new(OnComplete { url, timeout, headers, signing_secret, include })))
}

fn queue(s: &mut Section<'_>, kind_name: KindName, engine: Option<&Engine>) -> Option<RedisQueue> {
    let (kind, doc) = match kind_name {
        KindName::RedisStream => {
            ("redis-stream", "A Redis stream, which workers read with XREADGROUP.")
        }
        _ => ("redis-list", "A Redis list, written with LPUSH, which workers read with BRPOP."),
    };
    s.set_heading(format!("[upstream.NAME] kind = \"{kind}\""), doc);
    let own_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The Redis server; \"\" = url of [engine.redis].",
    );
    let key = s.required(
        "key",
        kinds::TEMPLATE,
        "Key of the stream or list; {names} of the route's path, {user_id} and {channel} are filled.",
    );
    let max_len = s.key(
        "max_len",
        kinds::LENGTH,
        100_000,
        match kind_name {
            KindName::RedisStream => {
                "Approximate number of entries to keep; older ones are trimmed. 0 = no limit."
            }
            _ => "Entries that may wait; beyond it messages are refused. 0 = no limit.",
        },
    );
    let max_len_per_user = s.key("max_len_per_user", kinds::LENGTH, 0, MAX_LEN_PER_USER);
    let redis_url = match own_url? {
        Some(url) => Some(url),
        None => engine_url(s, "redis_url", engine, |redis| &redis.url),
    };
    Some(RedisQueue {
        redis_url: redis_url?,
        key: key?,
        max_len: max_len?,
        max_len_per_user: max_len_per_user?,
    })
}

fn websocket(s: &mut Section<'_>) -> Option<WebSocketUpstream> {
    s.set_heading(
        r#"[upstream.NAME] kind = "websocket""#.to_owned(),
        "A WebSocket server, with one socket to it per client, in both directions.",
    );
    let urls = urls(
        s,
        kinds::WEBSOCKET_TEMPLATE,
        "ws:// or wss://; {names} of the route's path, {user_id} and {channel} are filled, after the host.",
    );
    Some(WebSocketUpstream { urls: urls? })
}

pub(super) fn circuit(s: &mut Section<'_>) -> Option<Circuit> {
    let failures = s.key("failures", kinds::FAILURES, 10, "After this many failures …");
    let window = s.key("window", kinds::POSITIVE_DURATION, "10s", "… within this time …");
    let open =
        s.key("open", kinds::POSITIVE_DURATION, "5s", "… no requests are sent for this long.");
    Some(Circuit { failures: failures?, window: window?, open: open? })
}
