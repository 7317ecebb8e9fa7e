//! Keys of `[[route]]` and `[route.history]`.

mod authorization;
mod defaults;
mod generations;
mod values;

pub(super) use defaults::Defaults;

use authorization::{auth, authorize};
use generations::generations;
use values::{
    BINARY, COMPACT, COMPRESSION, HOST, METHOD, PLAIN_REQUESTS, PRESENCE, PROTOCOL, REJECT, REPLY,
};

use super::section::Section;
use super::{AuthSource, History, Protocol, Route, SendQueue, kinds, limits};
use crate::protocol::{ChannelPattern, PathPattern};

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
        // Without a valid protocol nothing says that a channel is missing.
        Some(Protocol::Pass) | None => s.key("channel", kinds::OPTIONAL_TEMPLATE, "", CHANNEL),
        Some(Protocol::Json | Protocol::Raw) => {
            s.required("channel", kinds::TEMPLATE, CHANNEL).map(Some)
        }
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
            _ => "proxy",
        },
        "Requests of this path that are no WebSocket handshakes. \"proxy\": to [proxy], like those without a route; 426 if \
         it has no upstream. \"upstream\": to the route's own WebSocket upstream, by HTTP, after the checks of origin, \
         credentials (no connection tokens) and authorization; the default of pass routes without a [proxy] upstream. \
         \"off\": 426.",
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
         routes only). The default of pass routes is 64MiB.",
    );
    let max_message_chars = s.key(
        "max_message_chars",
        kinds::POSITIVE_COUNT,
        10_000,
        "Maximum length of the \"message\" field; beyond it the client gets an error event.",
    );
    let compression = s.key(
        "compression",
        COMPRESSION,
        "off",
        "\"deflate\": messages are compressed for clients that offer permessage-deflate (RFC 7692). Leave it \"off\" where \
         a message has a secret beside text that somebody else chooses: its length tells about the secret.",
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
        compression: compression?,
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
