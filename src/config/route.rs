//! Keys of `[[route]]`, `[route.history]` and `[route.generations]`.

use hyper::Method;

use super::kinds::{self, Kind, ValueError, choice, kind, words};
use super::section::Section;
use super::{
    AuthSource, Authorize, AuthorizeUrl, Binary, Compact, Concurrent, DuplicateTerminal,
    FixedReply, Generations, History, HostHeader, PlainRequests, Presence, Protocol, Reject, Route,
    SendQueue, limits,
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

const PLAIN_REQUESTS: Kind<PlainRequests> = words(r#""proxy", "upstream" or "off""#, |value| {
    choice(
        value,
        &[
            ("proxy", PlainRequests::Proxy),
            ("upstream", PlainRequests::Upstream),
            ("off", PlainRequests::Refused),
        ],
    )
});

const METHOD: Kind<Method> = kind("method", r#"a method such as "GET""#, |value| {
    let text = value.as_str().ok_or(ValueError::WrongKind)?;
    let is_upper = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_upper);
    method.filter(|method| *method != Method::CONNECT).ok_or(ValueError::WrongKind)
});

const PROTOCOL: Kind<Protocol> = words(r#""json", "raw" or "pass""#, |value| {
    choice(value, &[("json", Protocol::Json), ("raw", Protocol::Raw), ("pass", Protocol::Pass)])
});

const HOST: Kind<HostHeader> = words(r#""client" or "upstream""#, |value| {
    choice(value, &[("client", HostHeader::Client), ("upstream", HostHeader::Upstream)])
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

const CONCURRENT: Kind<Concurrent> = words(r#""parallel", "queue" or "reject""#, |value| {
    choice(
        value,
        &[
            ("parallel", Concurrent::Parallel),
            ("queue", Concurrent::Queue),
            ("reject", Concurrent::Reject),
        ],
    )
});

/// `""` stands for `None`.
const REPLY: Kind<Option<Box<str>>> =
    kind("JSON text", r#"JSON of at most 4096 bytes such as '{"status":"ok"}'"#, |value| {
        let text = value.as_str().ok_or(ValueError::WrongKind)?;
        if text.is_empty() {
            return Ok(None);
        }
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let fits = is_json && text.len() <= FixedReply::MAX_BYTES;
        fits.then(|| Some(text.into())).ok_or(ValueError::WrongKind)
    });

/// The plain forms. The other form is a table.
const CLAIMS: Kind<Authorize> =
    words(r#""claims", "none" or { url = "http://…", timeout = "2s" }"#, |value| {
        match value.as_str() {
            Some("claims") => Ok(Authorize::Claims),
            Some("none") => Ok(Authorize::None),
            _ => Err(ValueError::WrongKind),
        }
    });

/// The defaults of the limits that depend on the protocol: those of a chat suit no other application.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub max_message_bytes: &'static str,
    pub messages_per_user: &'static str,
    pub messages_per_connection: &'static str,
    pub connects_per_user: &'static str,
    pub frames_per_connection: &'static str,
}

impl Defaults {
    const JSON: Self = Self {
        max_message_bytes: "64KiB",
        messages_per_user: "50/1h",
        messages_per_connection: "10/1s burst 20",
        connects_per_user: "30/1m",
        frames_per_connection: "200/1s burst 2000",
    };

    fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => Self::JSON,
            // A slow upstream slows its client down, and a page may open several sockets.
            Protocol::Raw => Self {
                max_message_bytes: "1MiB",
                messages_per_user: "off",
                messages_per_connection: "off",
                connects_per_user: "120/1m",
                frames_per_connection: Self::JSON.frames_per_connection,
            },
            // Nothing is held here, so that only what the upstream takes bounds its clients.
            Protocol::Pass => Self {
                max_message_bytes: "64MiB",
                messages_per_user: "off",
                messages_per_connection: "off",
                connects_per_user: "120/1m",
                frames_per_connection: "off",
            },
        }
    }
}

/// The two things that a `[[route]]` can be.
pub(super) enum Entry {
    Route(Box<Route>),
    Reply(PathPattern, Box<str>),
}

/// `channel_prefix` is put in front of the channel.
/// `has_proxy` decides a default.
pub(super) fn entry(s: &mut Section<'_>, channel_prefix: &str, has_proxy: bool) -> Option<Entry> {
    let path = s.required(
        "path",
        kinds::PATH_PATTERN,
        "Each segment is literal text or one {name}. The first route that matches is used. The last segment may be \
         {name*}, which takes the rest of a path, with slashes or empty; such routes come after all others, whatever their \
         order, the one with the most segments first.",
    );
    let is_reply = s.is_set("reply");
    let reply = s.key(
        "reply",
        REPLY,
        "",
        "For monitoring: answer with this JSON text, without credentials, and do nothing else. HTTP gets it \
         with 200, a WebSocket as its only message before close code 1000. Only path may be set as well.",
    );
    if !is_reply {
        return route(s, path, channel_prefix, has_proxy)
            .map(|route| Entry::Route(Box::new(route)));
    }
    s.reject_other_keys("a route with reply has no other key than path");
    let (path, reply) = (path?, reply??);
    if path.names().next().is_some() {
        s.mistake("path", Some(format!("{:?}", path.as_str())), "write a path without {names}");
        return None;
    }
    Some(Entry::Reply(path, reply))
}

fn route(
    s: &mut Section<'_>,
    path: Option<PathPattern>,
    channel_prefix: &str,
    has_proxy: bool,
) -> Option<Route> {
    let protocol = s.key(
        "protocol",
        PROTOCOL,
        "json",
        "\"json\": the envelope of the protocol page. \"raw\": messages pass through unparsed. \"pass\": the upstream's own \
         handshake and frames pass through as they are.",
    );
    let defaults = protocol.map_or(Defaults::JSON, Defaults::of);
    const CHANNEL: &str = "The channel of a connection: text with {names} of the path and {user_id}, which is \
        _anonymous_ for anonymous clients. A pass route may be without one.";
    let channel = match protocol {
        Some(Protocol::Pass) => s.key("channel", kinds::OPTIONAL_TEMPLATE, "", CHANNEL),
        _ => s.required("channel", kinds::TEMPLATE, CHANNEL).map(Some),
    };
    let channel = channel.map(|channel| Some(channel?.with_prefix(channel_prefix)));
    let upstream = s.key(
        "upstream",
        kinds::OPTIONAL_TEXT,
        "",
        "The NAME of the [upstream.NAME] that gets messages; \"\" = receive-only clients.",
    );
    let auth = auth(s);
    let authorize = authorize(s);
    let reject = s.key(
        "reject",
        REJECT,
        if protocol == Some(Protocol::Pass) { "http" } else { "close" },
        "\"close\": rejected clients are accepted, then closed with a code that browsers can read. \
         \"http\": they get an HTTP status. The default of pass routes is \"http\".",
    );
    let is_undecided = protocol == Some(Protocol::Pass) && has_proxy && !s.is_set("http");
    if is_undecided && auth.as_ref().is_some_and(|auth| *auth != [AuthSource::Anonymous]) {
        let text = "requests of this path that are no WebSocket handshakes go to [proxy], without the checks of this route; \
                    write \"upstream\" for its own upstream with them, or \"proxy\" if this is meant";
        s.warn("http", text);
    }
    let plain_requests = s.key(
        "http",
        PLAIN_REQUESTS,
        match protocol {
            Some(Protocol::Pass) if !has_proxy => "upstream",
            Some(Protocol::Raw | Protocol::Pass) => "proxy",
            _ => "off",
        },
        "Requests of this path that are no WebSocket handshakes. \"off\": 426. \"proxy\": to [proxy], like those without a \
         route; 426 if it has no upstream; the default of raw and pass routes. \"upstream\": to the route's own WebSocket \
         upstream, by HTTP, after the checks of origin, credentials (no connection tokens) and authorization; the default \
         of pass routes without a [proxy] upstream.",
    );
    let methods = s.list(
        "methods",
        METHOD,
        &[],
        "The methods of such requests that are passed on, such as [\"GET\", \"POST\"]; others get 405. [] = all.",
    );
    let host = s.key(
        "host",
        HOST,
        if protocol == Some(Protocol::Raw) { "upstream" } else { "client" },
        "The Host header that the WebSocket upstream of a raw or pass route gets: the client's, or that of the upstream's \
         URL. The default of raw routes is \"upstream\".",
    );
    let binary = s.key(
        "binary",
        BINARY,
        "reject",
        "Binary messages: \"reject\" closes with 1003, \"relay\" relays them (raw routes only).",
    );
    let max_message_bytes = s.key(
        "max_message_bytes",
        kinds::OPTIONAL_SIZE,
        defaults.max_message_bytes,
        "Maximum size of a message, over all fragments; beyond it the socket is closed with 1009. 0 = no limit (pass \
         routes only). The default of raw routes is 1MiB, that of pass routes 64MiB.",
    );
    let max_message_chars = s.key(
        "max_message_chars",
        kinds::POSITIVE_COUNT,
        10_000,
        "Maximum length of the \"message\" field; beyond it the client gets an error event.",
    );
    let idle_ping = s.key(
        "idle_ping",
        kinds::POSITIVE_DURATION,
        "25s",
        "A connection that is silent for this long is pinged.",
    );
    let pong_timeout = s.key(
        "pong_timeout",
        kinds::POSITIVE_DURATION,
        "10s",
        "A connection that sends nothing for this long after a ping is closed with 4009.",
    );
    let max_session = s.key(
        "max_session",
        kinds::OPTIONAL_DURATION,
        "0s",
        "A connection is closed with 4001 this long after its start or last refresh, or earlier when its \
         credentials expire; 0s = only when they expire.",
    );
    let expiry_notice = s.key(
        "expiry_notice",
        kinds::OPTIONAL_DURATION,
        "120s",
        "How long before either of these the client gets token_expiring_soon; 0s = never.",
    );
    let send_queue = s.inline("send_queue", send_queue);
    let presence = s.key(
        "presence",
        PRESENCE,
        "off",
        "\"on\": the server API lists the members of a channel, over all nodes. \"events\": joins and leaves \
         are also published to the channel (json routes only).",
    );
    let timestamps = s.key(
        "timestamps",
        kinds::BOOLEAN,
        false,
        "Adds \"timestamp\" (UTC) to the gateway's own events (connected, pong, task_queued, error, …), not to \
         publications.",
    );
    let limits = s.section(
        "limits",
        "[route.limits]",
        "Shared by all nodes of an engine. \"off\" and 0 = no limit. Those of messages have no limit by default on raw \
         and pass routes, whose applications are not chats. There a message over a limit closes the socket with 1008.",
        |s| limits::limits(s, defaults),
    );
    let history = s.section(
        "history",
        "[route.history]",
        "Publications kept for clients that reconnect. Raw routes have no history.",
        history,
    );
    let generations = s.section(
        "generations",
        "[route.generations]",
        "A generation is the reply to one message: its events up to a terminal event.",
        generations,
    );
    let route = Route {
        path: path?,
        channel_pattern: channel.as_ref()?.as_ref().map(ChannelPattern::of),
        channel: channel?,
        upstream: upstream?,
        auth: auth?,
        authorize: authorize?,
        reject: reject?,
        plain_requests: plain_requests?,
        methods: methods?,
        protocol: protocol?,
        host: host?,
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
            Protocol::Raw | Protocol::Pass => History { size: 0, ..history? },
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
        "Sources of credentials, tried in this order; \"anonymous\" may only be last.",
    )?;
    let fix = if auth.is_empty() {
        "write at least one; \"anonymous\" admits everybody"
    } else if auth.iter().enumerate().any(|(index, source)| auth[..index].contains(source)) {
        "write each source only once"
    } else if auth.iter().rev().skip(1).any(|source| *source == AuthSource::Anonymous) {
        "write \"anonymous\" last: sources after it are never tried"
    } else {
        return Some(auth);
    };
    s.mistake("auth", None, fix);
    None
}

fn authorize(s: &mut Section<'_>) -> Option<Authorize> {
    if !s.is_table("authorize") {
        return s.key(
            "authorize",
            CLAIMS,
            "claims",
            "\"claims\": the channel patterns of the credentials, if they have any. \"none\": the same, and whoever has \
             credentials without patterns may join every channel of this route on purpose. A table: the backend is \
             asked as well.",
        );
    }
    s.inline("authorize", |s| {
        let url = s.required(
            "url",
            kinds::HTTP_URL,
            "Asked by POST after the claims; only a 2xx response admits the client.",
        );
        let timeout = s.key(
            "timeout",
            kinds::POSITIVE_DURATION,
            "2s",
            "Without a response in this time, the client is rejected.",
        );
        let max_in_flight = s.key(
            "max_in_flight",
            kinds::POSITIVE_COUNT,
            64,
            "Questions in progress. Sixteen times as many may wait; beyond it clients are rejected with 1013.",
        );
        let max_in_flight_per_user = s.key(
            "max_in_flight_per_user",
            kinds::COUNT,
            0,
            "The same for one user, or for the anonymous clients of one address; 0 = a quarter of max_in_flight.",
        );
        let cache = s.key(
            "cache",
            kinds::DURATION,
            "0s",
            "How long a 2xx or 4xx for a user is used for the same channel, parameters and origin; \"0s\" = each client \
             is asked about.",
        );
        let signing_secret = s.secret(
            "signing_secret",
            kinds::OPTIONAL_SECRET,
            "",
            "Signs questions as messages are signed: HMAC-SHA256 of time and body; \"\" = not signed.",
        );
        Some(Authorize::Url(Box::new(AuthorizeUrl {
            url: url?,
            timeout: timeout?,
            max_in_flight: max_in_flight?,
            max_in_flight_per_user: max_in_flight_per_user?,
            cache: cache?,
            signing_secret: signing_secret?,
        })))
    })
}

fn send_queue(s: &mut Section<'_>) -> Option<SendQueue> {
    let messages = s.key(
        "messages",
        kinds::POSITIVE_COUNT,
        256,
        "Messages that may wait for one slow client; beyond it the client is closed with 4008.",
    );
    let bytes = s.key("bytes", kinds::SIZE, "1MiB", "The same in bytes.");
    Some(SendQueue { messages: messages?, bytes: bytes? })
}

fn history(s: &mut Section<'_>) -> Option<History> {
    let size = s.key(
        "size",
        kinds::COUNT,
        1000,
        "Publications kept per channel; 0 = no history, no resuming.",
    );
    let ttl = s.key(
        "ttl",
        kinds::POSITIVE_DURATION,
        "5m",
        "How long they are kept after the channel's last publication.",
    );
    let compact = s.key(
        "compact",
        COMPACT,
        "off",
        "\"chunks\": a resuming client gets consecutive chunk events merged into one.",
    );
    Some(History { size: size?, ttl: ttl?, compact: compact? })
}

fn generations(s: &mut Section<'_>) -> Option<Generations> {
    let dedup_ttl = s.key(
        "dedup_ttl",
        kinds::DURATION,
        "10m",
        "A message with an \"id\" is relayed only once within this time; \"0s\" = every time.",
    );
    let terminal_events = s.list(
        "terminal_events",
        kinds::NAME,
        &["complete", "completed", "error", "cancelled"],
        "Names of the events that end a generation.",
    );
    let reply_idle_timeout = s.key(
        "reply_idle_timeout",
        kinds::DURATION,
        "0s",
        "A queue worker that publishes nothing for this long is reported as \"worker_lost\"; \"0s\" = never.",
    );
    let first_event_warning = s.key(
        "first_event_warning",
        kinds::OPTIONAL_DURATION,
        "30s",
        "A worker's reply of which nothing was heard for this long is logged (\"reply_unheard\"), with the settings to \
         check; \"0s\" = never.",
    );
    let max_duration = s.key(
        "max_duration",
        kinds::POSITIVE_DURATION,
        "30m",
        "The longest that a queue's generation counts as running.",
    );
    let duplicate_terminal = s.key(
        "duplicate_terminal",
        DUPLICATE_TERMINAL,
        "drop",
        "A second terminal event of a task: \"drop\" discards it, \"pass\" delivers it.",
    );
    let concurrent = s.key(
        "concurrent",
        CONCURRENT,
        "parallel",
        "A message while a reply runs on its channel: \"parallel\" relays it at once, \"queue\" after the replies before it, \"reject\" answers \"busy\".",
    );
    let max_waiting = s.key(
        "max_waiting",
        kinds::WAITING,
        16,
        "Messages of one channel that wait with concurrent = \"queue\"; beyond that, clients get \"busy\".",
    );
    let max_waiting_per_user = s.key(
        "max_waiting_per_user",
        kinds::COUNT,
        0,
        "The same for one user, or for the anonymous clients of one address; 0 = half of max_waiting.",
    );
    Some(Generations {
        dedup_ttl: dedup_ttl?,
        terminal_events: terminal_events?,
        reply_idle_timeout: reply_idle_timeout?,
        first_event_warning: first_event_warning?,
        max_duration: max_duration?,
        duplicate_terminal: duplicate_terminal?,
        concurrent: concurrent?,
        max_waiting: max_waiting?,
        max_waiting_per_user: max_waiting_per_user?,
    })
}
