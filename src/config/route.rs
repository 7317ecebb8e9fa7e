//! Keys of `[[route]]`, `[route.history]` and `[route.generations]`.

use super::kinds::{self, Kind, Wrong, choice, kind, words};
use super::section::Section;
use super::{
    AuthSource, Authorize, Binary, Compact, DuplicateTerminal, FixedReply, Generations, History,
    Presence, Protocol, Reject, Route, SendQueue, limits,
};
use crate::protocol::{ChannelPattern, PathPattern};

const AUTH: Kind<AuthSource> =
    words(r#""connection_token", "cookie", "bearer", "query" or "anonymous""#, |value| {
        choice(
            value,
            &[
                ("connection_token", AuthSource::ConnectionToken),
                ("cookie", AuthSource::Cookie),
                ("bearer", AuthSource::Bearer),
                ("query", AuthSource::Query),
                ("anonymous", AuthSource::Anonymous),
            ],
        )
    });

const REJECT: Kind<Reject> = words(r#""close" or "http""#, |value| {
    choice(value, &[("close", Reject::Close), ("http", Reject::Http)])
});

const PROTOCOL: Kind<Protocol> = words(r#""json" or "raw""#, |value| {
    choice(value, &[("json", Protocol::Json), ("raw", Protocol::Raw)])
});

const BINARY: Kind<Binary> = words(r#""reject" or "relay""#, |value| {
    choice(value, &[("reject", Binary::Reject), ("relay", Binary::Relay)])
});

const COMPACT: Kind<Compact> = words(r#""off" or "chunks""#, |value| {
    choice(value, &[("off", Compact::Off), ("chunks", Compact::Chunks)])
});

const PRESENCE: Kind<Presence> = words(r#""off", "on" or "events""#, |value| {
    choice(value, &[("off", Presence::Off), ("on", Presence::On), ("events", Presence::Events)])
});

const DUPLICATE_TERMINAL: Kind<DuplicateTerminal> = words(r#""drop" or "pass""#, |value| {
    choice(value, &[("drop", DuplicateTerminal::Drop), ("pass", DuplicateTerminal::Pass)])
});

/// `""` is none.
const REPLY: Kind<Option<Box<str>>> =
    kind("JSON text", r#"JSON of at most 4096 bytes such as '{"status":"ok"}'"#, |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        if text.is_empty() {
            return Ok(None);
        }
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let fits = is_json && text.len() <= FixedReply::MAX_BYTES;
        fits.then(|| Some(text.into())).ok_or(Wrong::Kind)
    });

/// The plain form; the other form is a table.
const CLAIMS: Kind<Authorize> =
    words(r#""claims" or { url = "http://…", timeout = "2s" }"#, |value| match value.as_str() {
        Some("claims") => Ok(Authorize::Claims),
        _ => Err(Wrong::Kind),
    });

/// What a `[[route]]` is.
pub(super) enum Entry {
    Route(Box<Route>),
    Reply(PathPattern, Box<str>),
}

pub(super) fn entry(s: &mut Section<'_>) -> Option<Entry> {
    let path = s.required(
        "path",
        kinds::PATH_PATTERN,
        "Each segment is literal text or one {name}. The first route whose path matches takes a request.",
    );
    let is_reply = s.is_written("reply");
    let reply = s.key(
        "reply",
        REPLY,
        "",
        "A JSON text: the route answers with it and does nothing else, for monitoring. HTTP gets it with 200, \
         a WebSocket as its only message before close code 1000, without credentials. Excludes all other \
         keys but path.",
    );
    if !is_reply {
        return route(s, path).map(|route| Entry::Route(Box::new(route)));
    }
    s.no_other_keys("a route with reply has a path and nothing else");
    let (path, reply) = (path?, reply??);
    if path.names().next().is_some() {
        s.mistake("path", Some(format!("{:?}", path.as_str())), "write a path without {names}");
        return None;
    }
    Some(Entry::Reply(path, reply))
}

fn route(s: &mut Section<'_>, path: Option<PathPattern>) -> Option<Route> {
    let channel = s.required(
        "channel",
        kinds::TEMPLATE,
        "The channel of a connection: text with {names} of the path, or {user_id}.",
    );
    let upstream = s.key(
        "upstream",
        kinds::OPTIONAL_TEXT,
        "",
        "The [upstream.NAME] that messages go to; \"\" = clients only receive.",
    );
    let auth = auth(s);
    let authorize = authorize(s);
    let reject = s.key(
        "reject",
        REJECT,
        "close",
        "\"close\": refused clients are accepted and closed with a code that a browser can read. \
         \"http\": they get an HTTP status.",
    );
    let protocol = s.key(
        "protocol",
        PROTOCOL,
        "json",
        "\"json\": the envelope of the protocol page. \"raw\": messages pass unread.",
    );
    let binary = s.key(
        "binary",
        BINARY,
        "reject",
        "Binary messages: \"reject\" closes with 1003, \"relay\" passes them on a raw route.",
    );
    let max_message_bytes = s.key(
        "max_message_bytes",
        kinds::SIZE,
        "64KiB",
        "Of a whole message, all fragments together; beyond it the socket is closed with 1009.",
    );
    let max_message_chars = s.key(
        "max_message_chars",
        kinds::POSITIVE_COUNT,
        10_000,
        "Of the \"message\" field; beyond it the client gets an error event.",
    );
    let idle_ping = s.key(
        "idle_ping",
        kinds::POSITIVE_DURATION,
        "25s",
        "A connection that has been silent this long is pinged.",
    );
    let pong_timeout = s.key(
        "pong_timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        "Without a sign of life this long after a ping it is closed with 4009.",
    );
    let max_session = s.key(
        "max_session",
        kinds::OPTIONAL_DURATION,
        "0s",
        "A connection is closed with 4001 this long after it was opened or refreshed, if its credentials \
         do not end sooner; 0s = by its credentials alone.",
    );
    let expiry_notice = s.key(
        "expiry_notice",
        kinds::OPTIONAL_DURATION,
        "120s",
        "A client is told token_expiring_soon this long before either of them; 0s = it is not told.",
    );
    let send_queue = s.inline("send_queue", send_queue);
    let presence = s.key(
        "presence",
        PRESENCE,
        "off",
        "\"on\": who is connected is known, over all nodes, to whoever asks the server API. \
         \"events\": each join and leave is published to the channel as well, on a json route.",
    );
    let timestamps = s.key(
        "timestamps",
        kinds::BOOLEAN,
        false,
        "The gateway's own events (connected, pong, task_queued, error, …) carry \"timestamp\": the time in UTC. \
         What is published passes as it is.",
    );
    let limits = s.section(
        "limits",
        "[route.limits]",
        "Shared by all nodes of one engine. \"off\" and 0 = no limit.",
        limits::limits,
    );
    let history = s.section(
        "history",
        "[route.history]",
        "What the route's channels keep for clients that were away. A raw route keeps nothing.",
        history,
    );
    let generations = s.section(
        "generations",
        "[route.generations]",
        "A generation is the reply to one message: events up to one that ends it.",
        generations,
    );
    let route = Route {
        path: path?,
        channel_pattern: ChannelPattern::of(channel.as_ref()?),
        channel: channel?,
        upstream: upstream?,
        auth: auth?,
        authorize: authorize?,
        reject: reject?,
        protocol: protocol?,
        binary: binary?,
        max_message_bytes: max_message_bytes?,
        max_message_chars: max_message_chars?,
        idle_ping: idle_ping?,
        pong_timeout: pong_timeout?,
        max_session: max_session?,
        expiry_notice: expiry_notice?,
        send_queue: send_queue?,
        presence: presence?,
        timestamps: timestamps?,
        limits: limits?,
        history: match protocol? {
            Protocol::Json => history?,
            Protocol::Raw => History { size: 0, ..history? },
        },
        generations: generations?,
    };
    Some(route)
}

fn auth(s: &mut Section<'_>) -> Option<Vec<AuthSource>> {
    let auth = s.list(
        "auth",
        AUTH,
        &["connection_token", "cookie", "bearer", "query"],
        "Where credentials may stand, tried in this order; \"anonymous\" may be last.",
    )?;
    let right = if auth.is_empty() {
        "write at least one; \"anonymous\" lets everybody in"
    } else if auth.iter().enumerate().any(|(index, source)| auth[..index].contains(source)) {
        "write each only once"
    } else if auth.iter().rev().skip(1).any(|source| *source == AuthSource::Anonymous) {
        "write \"anonymous\" last: what follows it would never be tried"
    } else {
        return Some(auth);
    };
    s.mistake("auth", None, right);
    None
}

fn authorize(s: &mut Section<'_>) -> Option<Authorize> {
    if !s.is_table("authorize") {
        return s.key(
            "authorize",
            CLAIMS,
            "claims",
            "\"claims\": the channel patterns of the credentials, where they have any. A table: the backend is asked as well.",
        );
    }
    s.inline("authorize", |s| {
        let url = s.required(
            "url",
            kinds::HTTP_URL,
            "Where to ask by POST, after the claims; only a 2xx answer lets the client in.",
        );
        let timeout =
            s.key("timeout", kinds::POSITIVE_DURATION, "2s", "Without an answer: refused.");
        Some(Authorize::Url { url: url?, timeout: timeout? })
    })
}

fn send_queue(s: &mut Section<'_>) -> Option<SendQueue> {
    let messages = s.key(
        "messages",
        kinds::POSITIVE_COUNT,
        256,
        "Messages that may wait for one slow client; beyond it, it is closed with 4008.",
    );
    let bytes = s.key("bytes", kinds::SIZE, "1MiB", "The same in bytes.");
    Some(SendQueue { messages: messages?, bytes: bytes? })
}

fn history(s: &mut Section<'_>) -> Option<History> {
    let size = s.key(
        "size",
        kinds::COUNT,
        1000,
        "Publications kept for each channel; 0 = no history, and no resuming.",
    );
    let ttl = s.key(
        "ttl",
        kinds::POSITIVE_DURATION,
        "5m",
        "They are kept this long after the channel's last one.",
    );
    let compact = s.key(
        "compact",
        COMPACT,
        "off",
        "\"chunks\": consecutive chunk events that a late client missed arrive as one.",
    );
    Some(History { size: size?, ttl: ttl?, compact: compact? })
}

fn generations(s: &mut Section<'_>) -> Option<Generations> {
    let dedup_ttl = s.key(
        "dedup_ttl",
        kinds::DURATION,
        "10m",
        "A message with an \"id\" is relayed once within this time, however often it is sent; \"0s\" = as often as it is sent.",
    );
    let terminal_events = s.list(
        "terminal_events",
        kinds::NAME,
        &["complete", "completed", "error", "cancelled"],
        "Names of events that end a generation.",
    );
    let reply_idle_timeout = s.key(
        "reply_idle_timeout",
        kinds::DURATION,
        "0s",
        "A queue's worker that publishes nothing for this long is reported by \"worker_lost\"; \"0s\" = never.",
    );
    let max_duration = s.key(
        "max_duration",
        kinds::POSITIVE_DURATION,
        "30m",
        "A queue's generation counts as running for at most this long.",
    );
    let duplicate_terminal = s.key(
        "duplicate_terminal",
        DUPLICATE_TERMINAL,
        "drop",
        "A second terminal event of one task: \"drop\" delivers it to nobody, \"pass\" to all.",
    );
    Some(Generations {
        dedup_ttl: dedup_ttl?,
        terminal_events: terminal_events?,
        reply_idle_timeout: reply_idle_timeout?,
        max_duration: max_duration?,
        duplicate_terminal: duplicate_terminal?,
    })
}
