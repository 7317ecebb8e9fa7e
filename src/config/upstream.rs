//! Keys of `[upstream.NAME]`.

use toml::Value;

use super::celery::celery;
use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{
    Circuit, Engine, EngineKind, HttpUpstream, OnDisconnect, RedisQueue, RedisUrl, Upstream,
    UpstreamKind, WebSocketUpstream,
};

#[derive(Clone, Copy, PartialEq)]
enum Word {
    Http,
    Celery,
    RedisStream,
    RedisList,
    WebSocket,
}

const KIND: Kind<Word> =
    words(r#""http", "celery", "redis-stream", "redis-list" or "websocket""#, |value| {
        choice(
            value,
            &[
                ("http", Word::Http),
                ("celery", Word::Celery),
                ("redis-stream", Word::RedisStream),
                ("redis-list", Word::RedisList),
                ("websocket", Word::WebSocket),
            ],
        )
    });

const ON_DISCONNECT: Kind<OnDisconnect> = words(r#""continue" or "cancel""#, |value| {
    choice(value, &[("continue", OnDisconnect::Continue), ("cancel", OnDisconnect::Cancel)])
});

/// `engine` is what a queue without its own Redis uses; `None` where it has mistakes of its own.
pub(super) fn upstream(
    s: &mut Section<'_>,
    name: &str,
    engine: Option<&Engine>,
) -> Option<Upstream> {
    let named = is_label(name);
    if !named {
        s.mistake("", None, "name upstreams by letters, digits, - and _, at most 64");
    }
    let Some(word) = s.required("kind", KIND, "What takes the messages.") else {
        s.abandon();
        return None;
    };
    let kind = match word {
        Word::Http => http(s),
        Word::Celery => celery(s, engine).map(Box::new).map(UpstreamKind::Celery),
        Word::RedisStream => queue(s, word, engine).map(UpstreamKind::RedisStream),
        Word::RedisList => queue(s, word, engine).map(UpstreamKind::RedisList),
        Word::WebSocket => websocket(s),
    };
    let timeout = s.key(
        "timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        match word {
            Word::Http => "To the head of the answer; a streamed reply may last max_reply.",
            Word::Celery | Word::RedisStream | Word::RedisList => "To the answer of Redis.",
            Word::WebSocket => "To the end of the opening handshake.",
        },
    );
    let max_in_flight = s.key(
        "max_in_flight",
        kinds::POSITIVE_COUNT,
        // A relay ends soon, but a socket lives as long as its client.
        Value::from(if word == Word::WebSocket { 10_000 } else { 256 }),
        match word {
            Word::WebSocket => {
                "Sockets to this upstream open at once; beyond it clients get \"busy\"."
            }
            _ => "Messages and replies under way at once; beyond it clients get \"busy\".",
        },
    );
    let circuit = s.inline("circuit", circuit);
    Some(Upstream {
        name: named.then(|| name.to_owned())?,
        kind: kind?,
        timeout: timeout?,
        max_in_flight: max_in_flight?,
        circuit: circuit?,
    })
}

/// Names become metric labels and parts of override variables.
fn is_label(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn http(s: &mut Section<'_>) -> Option<UpstreamKind> {
    s.continue_under(
        r#"[upstream.NAME] kind = "http""#.to_owned(),
        "An HTTP endpoint: answers at once, or streams its reply.",
    );
    let url = s.required(
        "url",
        kinds::HTTP_TEMPLATE,
        "Where messages are posted; {names} of the route's path, {user_id} and {channel} are filled, after the host.",
    );
    let max_reply = s.key(
        "max_reply",
        kinds::POSITIVE_DURATION,
        "10m",
        "The longest a streamed reply may last.",
    );
    let on_disconnect = s.key(
        "on_disconnect",
        ON_DISCONNECT,
        "continue",
        "When the client that asked has gone, a streaming reply goes on, or is cancelled.",
    );
    let retries = s.key(
        "retries",
        kinds::RETRIES,
        2,
        "More attempts after a failed connect, 502, 503 or 504, with the same Idempotency-Key.",
    );
    let signing_secret = s.secret(
        "signing_secret",
        kinds::OPTIONAL_SECRET,
        "",
        "Requests are signed with it: HMAC-SHA256 of time and body; \"\" = not signed.",
    );
    Some(UpstreamKind::Http(HttpUpstream {
        url: url?,
        max_reply: max_reply?,
        on_disconnect: on_disconnect?,
        retries: retries?,
        signing_secret: signing_secret?,
    }))
}

fn queue(s: &mut Section<'_>, word: Word, engine: Option<&Engine>) -> Option<RedisQueue> {
    let (kind, doc) = match word {
        Word::RedisStream => ("redis-stream", "A Redis stream; workers read it by XREADGROUP."),
        _ => ("redis-list", "A Redis list, pushed by LPUSH; workers read it by BRPOP."),
    };
    s.continue_under(format!("[upstream.NAME] kind = \"{kind}\""), doc);
    let own_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The Redis server; \"\" = url of [engine.redis].",
    );
    let key = s.required(
        "key",
        kinds::TEMPLATE,
        "The stream or list; {names} of the route's path, {user_id} and {channel} are filled.",
    );
    let max_len = s.key(
        "max_len",
        kinds::LENGTH,
        100_000,
        match word {
            Word::RedisStream => "Entries to keep, about; older ones are trimmed. 0 = no bound.",
            _ => "Entries that may wait; beyond it messages are refused. 0 = no bound.",
        },
    );
    let redis_url = match own_url? {
        Some(url) => Some(url),
        None => engine_url(s, "redis_url", engine),
    };
    Some(RedisQueue { redis_url: redis_url?, key: key?, max_len: max_len? })
}

/// The engine's own Redis, where the key `name` says no other.
pub(super) fn engine_url(
    s: &mut Section<'_>,
    name: &str,
    engine: Option<&Engine>,
) -> Option<RedisUrl> {
    match &engine?.kind {
        EngineKind::Redis(redis) => Some(redis.url.clone()),
        EngineKind::Memory => {
            let right =
                format!("missing, and the engine is \"memory\"; write {}", kinds::REDIS_URL.right);
            s.mistake(name, None, right);
            None
        }
    }
}

fn websocket(s: &mut Section<'_>) -> Option<UpstreamKind> {
    s.continue_under(
        r#"[upstream.NAME] kind = "websocket""#.to_owned(),
        "A WebSocket server: one socket to it for each client, both directions.",
    );
    let url = s.required(
        "url",
        kinds::WEBSOCKET_TEMPLATE,
        "ws:// or wss://; {names} of the route's path, {user_id} and {channel} are filled, after the host.",
    );
    Some(UpstreamKind::WebSocket(WebSocketUpstream { url: url? }))
}

fn circuit(s: &mut Section<'_>) -> Option<Circuit> {
    let failures = s.key("failures", kinds::FAILURES, 10, "After this many failures …");
    let window = s.key("window", kinds::POSITIVE_DURATION, "10s", "… within this time …");
    let open =
        s.key("open", kinds::POSITIVE_DURATION, "5s", "… the upstream is not asked for this long.");
    Some(Circuit { failures: failures?, window: window?, open: open? })
}
