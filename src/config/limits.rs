//! Keys of `[route.limits]`.

use super::kinds::{self, Kind, ValueError, choice, words};
use super::section::Section;
use super::{FixedWindow, Rate, RouteLimits, UserRate, values};

const WINDOW: Kind<Rate> = words(r#"a rate such as "50/1h", without a burst"#, |value| {
    let rate = value.as_str().and_then(values::rate).flatten();
    rate.filter(|rate| rate.burst == rate.count).ok_or(ValueError::WrongKind)
});

const FIXED: Kind<()> = words(r#""fixed""#, |value| choice(value, &[("fixed", ())]));

pub(super) fn limits(s: &mut Section<'_>) -> Option<RouteLimits> {
    let messages_per_user =
        user_rate(s, "messages_per_user", "50/1h", "Messages per user, over all connections.");
    let messages_per_connection =
        s.key("messages_per_connection", kinds::RATE, "10/1s burst 20", "Messages per connection.");
    let frames_per_connection = s.key(
        "frames_per_connection",
        kinds::RATE,
        "200/1s burst 2000",
        "Pings, pongs, and fragments of less than 64 bytes per connection; beyond it the socket is closed with 1008.",
    );
    let connects_per_user = user_rate(s, "connects_per_user", "30/1m", "New connections per user.");
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
