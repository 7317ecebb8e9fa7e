//! Keys of `[limits]` and `[route.limits]`.

use super::kinds::{self, Kind, ValueError, choice, words};
use super::route::Defaults;
use super::section::Section;
use super::{ClientLimits, FixedWindow, Rate, RouteLimits, Server, UserRate, values};

const WINDOW: Kind<Rate> = words(r#"a rate such as "50/1h", without a burst"#, |value| {
    let rate = value.as_str().and_then(values::rate).flatten();
    rate.filter(|rate| rate.burst == rate.count).ok_or(ValueError::WrongKind)
});

const FIXED: Kind<()> = words(r#""fixed""#, |value| choice(value, &[("fixed", ())]));

/// The connects that all users of an office behind one address make at once after a failure, and what one client
/// cannot exceed for long.
const CONNECTS_PER_IP: &str = "100/1s burst 2000";

/// The channels that all users of an office bring along when they reconnect, and what a flood of names cannot exceed.
const CHANNELS_PER_IP: &str = "10/1s burst 1000";

/// `server` decides a default: who does not count the connections of an address has all clients behind one.
pub(super) fn client_limits(s: &mut Section<'_>, server: Option<&Server>) -> Option<ClientLimits> {
    let is_counted = server.is_none_or(|server| server.max_connections_per_ip > 0);
    let connects_per_ip = s.key(
        "connects_per_ip",
        kinds::RATE,
        if is_counted { CONNECTS_PER_IP } else { "off" },
        "New connections per client address; behind a trusted proxy WebSocket handshakes. The default is off if \
         server.max_connections_per_ip is 0.",
    );
    let requests_per_ip = s.key(
        "requests_per_ip",
        kinds::RATE,
        "off",
        "HTTP requests per client address that are not WebSocket handshakes: token requests, fixed replies, proxied \
         requests.",
    );
    let channels_per_ip = s.key(
        "channels_per_ip",
        kinds::RATE,
        if is_counted { CHANNELS_PER_IP } else { "off" },
        "New channels per client address: those that no client of this node has joined for ten minutes. The default is \
         off if server.max_connections_per_ip is 0.",
    );
    let ipv6_prefix = s.key(
        "ipv6_prefix",
        kinds::IPV6_PREFIX,
        64,
        "How many bits of an IPv6 address are its customer's. All addresses with the same are counted as one, in every \
         limit per address.",
    );
    Some(ClientLimits {
        connects_per_ip: connects_per_ip?,
        requests_per_ip: requests_per_ip?,
        channels_per_ip: channels_per_ip?,
        ipv6_prefix: ipv6_prefix?,
    })
}

pub(super) fn limits(s: &mut Section<'_>, defaults: Defaults) -> Option<RouteLimits> {
    let messages_per_user = user_rate(
        s,
        "messages_per_user",
        defaults.messages_per_user,
        "Messages per user, over all connections. The default of raw and pass routes is off.",
    );
    let usage_per_user = user_rate(
        s,
        "usage_per_user",
        "off",
        "Tokens of AI models, input and output, that the replies to one user took, or to the anonymous clients of one \
         address; beyond it messages are refused. See [ai-apis.md](ai-apis.md#after-the-reply).",
    );
    let messages_per_connection = s.key(
        "messages_per_connection",
        kinds::RATE,
        defaults.messages_per_connection,
        "Messages per connection. The default of raw and pass routes is off.",
    );
    let frames_per_connection = s.key(
        "frames_per_connection",
        kinds::RATE,
        defaults.frames_per_connection,
        "Pings, pongs, and fragments of less than 64 bytes per connection; beyond it the socket is closed with 1008. The \
         default of pass routes is off.",
    );
    let connects_per_user = user_rate(
        s,
        "connects_per_user",
        defaults.connects_per_user,
        "New connections per user. The default of raw and pass routes is 120/1m.",
    );
    let connections_per_user =
        s.key("connections_per_user", kinds::LIMIT, 20, "Open connections per user.");
    let generations_per_user = s.key(
        "generations_per_user",
        kinds::LIMIT,
        4,
        "Concurrent replies per user; beyond it clients get \"busy\".",
    );
    Some(RouteLimits {
        messages_per_user: messages_per_user?,
        usage_per_user: usage_per_user?,
        messages_per_connection: messages_per_connection?,
        frames_per_connection: frames_per_connection?,
        connects_per_user: connects_per_user?,
        connections_per_user: connections_per_user?,
        generations_per_user: generations_per_user?,
    })
}

/// Reads a rate, which is a token bucket, or a table, which is a fixed window.
fn user_rate(
    s: &mut Section<'_>,
    name: &str,
    default: &str,
    doc: &'static str,
) -> Option<Option<UserRate>> {
    if !s.is_table(name) {
        return s.key(name, kinds::RATE, default, doc).map(|rate| rate.map(UserRate::Bucket));
    }
    s.inline(name, |s| {
        let limit = s.required("limit", WINDOW, "The count, and the length of the window, which starts with the first hit.");
        let fixed = s.required("window", FIXED, "At the end of a window the count is reset.");
        let key = s.key(
            "key",
            kinds::OPTIONAL_TEMPLATE,
            "",
            "The full Redis key of the count in limits_url, which a backend may share (plain digits). Must contain \
             {user_id}; the path's {names} are filled. \"\" = a key of the gateway.",
        );
        let Rate { count, per, .. } = limit?;
        let () = fixed?;
        Some(Some(UserRate::Window(FixedWindow { count, per, key: key? })))
    })
}
