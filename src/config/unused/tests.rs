//! Every key of routes and upstreams in every place: it has an effect there, or is a mistake.
//!
//! The expectations are written here by hand. The keys come from the definitions that make the reference page, so that a
//! new one cannot be forgotten.

use std::path::Path;

use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::load::read;
use crate::config::reference::ONE_OF_EACH;

/// The routes in which each key is written. In [`ROUTE_KEYS`] each has a character, in this order.
const PLACES: [(&str, &str); 7] = [
    ("a json route with an HTTP upstream", "upstream = \"http\"\nprotocol = \"json\""),
    ("a json route with a queue", "upstream = \"stream\"\nprotocol = \"json\""),
    ("a json route with a WebSocket upstream", "upstream = \"socket\"\nprotocol = \"json\""),
    ("a json route without an upstream", "upstream = \"\"\nprotocol = \"json\""),
    ("a raw route with an upstream", "upstream = \"socket\"\nprotocol = \"raw\""),
    ("a raw route without an upstream", "upstream = \"\"\nprotocol = \"raw\""),
    ("a pass route", "upstream = \"socket\"\nprotocol = \"pass\""),
];

const UPSTREAMS: &str = r#"
[upstream.http]
kind = "http"
url = "http://127.0.0.1:1"
[upstream.stream]
kind = "redis-stream"
redis_url = "redis://127.0.0.1:1"
key = "messages"
[upstream.socket]
kind = "websocket"
url = "ws://127.0.0.1:1"
"#;

const ENGINES: [&str; 2] = ["memory", "redis"];

/// Keys of routes: the name, lines that set it to something else than its default, and for each of [`PLACES`] `+` = it
/// has an effect, `-` = it is a mistake, `!` = it is named by a notice.
const ROUTE_KEYS: &[(&str, &str, &str)] = &[
    // Written in every place by the test itself.
    ("path", "", "+++++++"),
    ("channel", "", "+++++++"),
    ("upstream", "", "+++++++"),
    ("protocol", "", "+++++++"),
    // With it a route has no other key than path.
    ("reply", "reply = \"1\"", "-------"),
    ("auth", "auth = [\"cookie\"]", "+++++++"),
    ("authorize", "authorize = \"none\"", "+++++++"),
    ("authorize.url", "authorize = { url = \"http://127.0.0.1:2\" }", "+++++++"),
    (
        "authorize.timeout",
        "authorize = { url = \"http://127.0.0.1:2\", timeout = \"7s\" }",
        "+++++++",
    ),
    (
        "authorize.max_in_flight",
        "authorize = { url = \"http://127.0.0.1:2\", max_in_flight = 7 }",
        "+++++++",
    ),
    (
        "authorize.max_in_flight_per_user",
        "authorize = { url = \"http://127.0.0.1:2\", max_in_flight_per_user = 7 }",
        "+++++++",
    ),
    ("authorize.cache", "authorize = { url = \"http://127.0.0.1:2\", cache = \"7s\" }", "+++++++"),
    (
        "authorize.signing_secret",
        "authorize = { url = \"http://127.0.0.1:2\", signing_secret = \"sixteen bytes or more\" }",
        "+++++++",
    ),
    (
        "authorize.signing_secret_file",
        "authorize = { url = \"http://127.0.0.1:2\", signing_secret_file = \"api_keys\" }",
        "+++++++",
    ),
    ("reject", "reject = \"http\"", "+++++++"),
    ("binary", "binary = \"relay\"", "----+!-"),
    ("max_message_bytes", "max_message_bytes = 77", "+++++++"),
    ("max_message_chars", "max_message_chars = 77", "+++!---"),
    ("compression", "compression = \"deflate\"", "++++++-"),
    ("http", "http = \"upstream\"", "----+-+"),
    ("methods", "methods = [\"GET\"]", "------+"),
    // Each value is the default of some protocol, and accepted there.
    ("host", "host = \"upstream\"", "----+++"),
    ("host", "host = \"client\"", "+++++-+"),
    ("idle_ping", "idle_ping = \"7s\"", "+++++++"),
    ("pong_timeout", "pong_timeout = \"7s\"", "+++++++"),
    ("max_session", "max_session = \"7h\"", "+++++++"),
    ("expiry_notice", "expiry_notice = \"7s\"", "++++---"),
    ("send_queue.messages", "send_queue.messages = 77", "+++++++"),
    ("send_queue.bytes", "send_queue.bytes = 77", "+++++++"),
    ("presence", "presence = \"events\"", "++++---"),
    ("timestamps", "timestamps = true", "++++---"),
    ("limits.messages_per_user", "limits.messages_per_user = \"7/1h\"", "+++!+!+"),
    (
        "limits.messages_per_user.limit",
        "limits.messages_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+++!+!+",
    ),
    (
        "limits.messages_per_user.window",
        "limits.messages_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+++!+!+",
    ),
    (
        "limits.messages_per_user.key",
        "limits.messages_per_user = { limit = \"7/1h\", window = \"fixed\", key = \"m:{user_id}\" }",
        "+++!+!+",
    ),
    ("limits.usage_per_user", "limits.usage_per_user = \"7/1h\"", "+------"),
    (
        "limits.usage_per_user.limit",
        "limits.usage_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+------",
    ),
    (
        "limits.usage_per_user.window",
        "limits.usage_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+------",
    ),
    (
        "limits.usage_per_user.key",
        "limits.usage_per_user = { limit = \"7/1h\", window = \"fixed\", key = \"u:{user_id}\" }",
        "+------",
    ),
    ("limits.messages_per_connection", "limits.messages_per_connection = \"7/1s\"", "+++++!+"),
    ("limits.frames_per_connection", "limits.frames_per_connection = \"7/1s\"", "+++++++"),
    ("limits.connects_per_user", "limits.connects_per_user = \"7/1s\"", "+++++++"),
    (
        "limits.connects_per_user.limit",
        "limits.connects_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+++++++",
    ),
    (
        "limits.connects_per_user.window",
        "limits.connects_per_user = { limit = \"7/1h\", window = \"fixed\" }",
        "+++++++",
    ),
    (
        "limits.connects_per_user.key",
        "limits.connects_per_user = { limit = \"7/1h\", window = \"fixed\", key = \"c:{user_id}\" }",
        "+++++++",
    ),
    ("limits.connections_per_user", "limits.connections_per_user = 7", "+++++++"),
    ("limits.generations_per_user", "limits.generations_per_user = 7", "++-----"),
    ("history.size", "history.size = 7", "++++---"),
    ("history.ttl", "history.ttl = \"7s\"", "++++---"),
    ("history.compact", "history.compact = \"chunks\"", "++++---"),
    ("generations.dedup_ttl", "generations.dedup_ttl = \"7s\"", "++-----"),
    ("generations.terminal_events", "generations.terminal_events = [\"end\"]", "++++---"),
    ("generations.reply_idle_timeout", "generations.reply_idle_timeout = \"7s\"", "++-----"),
    ("generations.first_event_warning", "generations.first_event_warning = \"7s\"", "++-----"),
    ("generations.max_duration", "generations.max_duration = \"7s\"", "++++---"),
    ("generations.duplicate_terminal", "generations.duplicate_terminal = \"pass\"", "++++---"),
    ("generations.concurrent", "generations.concurrent = \"queue\"", "++-----"),
    (
        "generations.max_waiting",
        "generations.concurrent = \"queue\"\ngenerations.max_waiting = 7",
        "++-----",
    ),
    (
        "generations.max_waiting_per_user",
        "generations.concurrent = \"queue\"\ngenerations.max_waiting_per_user = 7",
        "++-----",
    ),
];

/// Keys of upstreams: the kind, or `*` for all, the name, and lines that set it.
const UPSTREAM_KEYS: &[(&str, &str, &str)] = &[
    ("*", "kind", ""),
    ("*", "circuit.failures", "circuit.failures = 7"),
    ("*", "circuit.window", "circuit.window = \"7s\""),
    ("*", "circuit.open", "circuit.open = \"7s\""),
    ("*", "timeout", "timeout = \"7s\""),
    ("*", "max_in_flight", "max_in_flight = 7"),
    ("*", "max_in_flight_per_user", "max_in_flight_per_user = 7"),
    ("http websocket", "urls", "urls = [\"URL/a\", \"URL/b\"]"),
    ("http websocket", "balance", "urls = [\"URL/a\", \"URL/b\"]\nbalance = \"user\""),
    ("http", "url", ""),
    ("http", "method", "method = \"PUT\""),
    ("http", "headers", "headers = { x-api-key = \"k\" }"),
    ("http", "forward_headers", "forward_headers = [\"Accept-Language\"]"),
    ("http", "forward_cookies", "forward_cookies = [\"theme\"]"),
    ("http", "body", "body = \"data\""),
    ("http", "max_reply", "max_reply = \"7s\""),
    ("http", "dialect", "dialect = \"openai-chat\""),
    ("http", "publish", "dialect = \"auto\"\npublish = \"native\""),
    ("http", "stream_idle_timeout", "stream_idle_timeout = \"7s\""),
    ("http", "end", "end = \"event\""),
    ("http", "on_disconnect", "on_disconnect = \"cancel\""),
    ("http", "dialect", "dialect = \"auto\""),
    ("http", "publish", "dialect = \"anthropic\"\npublish = \"native\""),
    ("http", "retries", "retries = 7"),
    ("http", "signing_secret", "signing_secret = \"sixteen bytes or more\""),
    ("http", "signing_secret_file", "signing_secret_file = \"api_keys\""),
    ("http", "on_complete.url", "on_complete = { url = \"http://127.0.0.1:1\" }"),
    (
        "http",
        "on_complete.timeout",
        "on_complete = { url = \"http://127.0.0.1:1\", timeout = \"7s\" }",
    ),
    (
        "http",
        "on_complete.headers",
        "on_complete = { url = \"http://127.0.0.1:1\", headers = { x-api-key = \"k\" } }",
    ),
    (
        "http",
        "on_complete.signing_secret",
        "on_complete = { url = \"http://127.0.0.1:1\", signing_secret = \"sixteen bytes or more\" }",
    ),
    (
        "http",
        "on_complete.include",
        "on_complete = { url = \"http://127.0.0.1:1\", include = [\"message\"] }",
    ),
    (
        "http",
        "on_complete.signing_secret_file",
        "on_complete = { url = \"http://127.0.0.1:1\", signing_secret_file = \"api_keys\" }",
    ),
    ("redis-stream redis-list", "key", ""),
    ("redis-stream redis-list", "redis_url", ""),
    ("redis-stream redis-list", "redis_url_file", "redis_url = \"\"\nredis_url_file = \"redis\""),
    ("redis-stream redis-list celery", "max_len", "max_len = 7"),
    ("redis-stream redis-list celery", "max_len_per_user", "max_len_per_user = 7"),
    ("websocket", "url", ""),
    ("celery", "broker_url", ""),
    ("celery", "broker_url_file", "broker_url = \"\"\nbroker_url_file = \"redis\""),
    ("celery", "global_keyprefix", "global_keyprefix = \"p\""),
    ("celery", "task", ""),
    ("celery", "kwargs", ""),
    ("celery", "queue", "queue = \"q\""),
    ("celery", "priority", "priority = 7"),
    ("celery", "expires", "expires = \"7s\""),
    ("celery", "queued_event", "queued_event = \"queued\""),
    (
        "celery",
        "tasks",
        "tasks = [{ channel = \"*\", task = \"t\", kwargs = { m = \"{message}\" } }]",
    ),
    ("celery", "revoke_signal", "revoke_signal = \"\""),
    ("celery", "result_backend_url", "result_backend_url = \"redis://127.0.0.1:1\""),
    ("celery", "result_backend_url_file", "result_backend_url_file = \"redis\""),
    (
        "celery",
        "result_keyprefix",
        "result_keyprefix = \"p\"\nresult_backend_url = \"redis://127.0.0.1:1\"",
    ),
    ("celery", "track.key", "track = { key = \"k\" }"),
    ("celery", "track.ttl", "track = { key = \"k\", ttl = \"7s\" }"),
    ("celery", "track.redis_url", "track = { key = \"k\", redis_url = \"redis://127.0.0.1:1\" }"),
    ("celery", "track.redis_url_file", "track = { key = \"k\", redis_url_file = \"redis\" }"),
    ("celery", "track.format", "track = { key = \"k\", format = \"json\" }"),
];

const KINDS: [(&str, &str); 5] = [
    ("http", "url = \"http://127.0.0.1:1\""),
    ("redis-stream", "redis_url = \"redis://127.0.0.1:1\"\nkey = \"k\""),
    ("redis-list", "redis_url = \"redis://127.0.0.1:1\"\nkey = \"k\""),
    ("websocket", "url = \"ws://127.0.0.1:1\""),
    (
        "celery",
        "broker_url = \"redis://127.0.0.1:1\"\ntask = \"t\"\nkwargs = { m = \"{message}\" }",
    ),
];

/// Returns the mistakes of a configuration, each with its key.
fn mistakes(text: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_samples/valid");
    let (_, outcome) = read(text, &Environment::empty(), &folder).expect("valid TOML");
    outcome.mistakes.into_iter().map(|mistake| (mistake.key, mistake.fix)).collect()
}

/// Returns the notices of a configuration without mistakes.
fn notices(text: &str) -> Vec<String> {
    Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}")).load_notices
}

/// The names of all keys below a heading that `prefix_of` knows, with the prefix that it has.
fn defined(prefix_of: impl Fn(&str) -> Option<&'static str>) -> Vec<(String, String)> {
    let (_, outcome) = read(ONE_OF_EACH, &Environment::empty(), Path::new("")).expect("valid TOML");
    let keys = outcome.definitions.into_iter();
    let mut names: Vec<(String, String)> = keys
        .filter_map(|key| Some((format!("{}{}", prefix_of(&key.heading)?, key.name), key.path)))
        .collect();
    names.sort();
    names.dedup_by(|one, other| one.0 == other.0);
    names
}

#[test]
fn each_key_of_a_route_has_an_effect_or_is_a_mistake() {
    for (name, _) in defined(|heading| match heading {
        "[[route]]" => Some(""),
        "[route.limits]" => Some("limits."),
        "[route.history]" => Some("history."),
        "[route.generations]" => Some("generations."),
        heading => {
            assert!(!heading.contains("route"), "{heading} is not in this test");
            None
        }
    }) {
        assert!(
            ROUTE_KEYS.iter().any(|(key, ..)| *key == name),
            "say in ROUTE_KEYS where {name} has an effect, and in src/config/unused.rs what to do elsewhere"
        );
    }
    for (name, lines, effects) in ROUTE_KEYS {
        assert_eq!(effects.len(), PLACES.len(), "{name}");
        for ((place, route), effect) in PLACES.iter().zip(effects.chars()) {
            for engine in ENGINES {
                let text = format!(
                    "engine.kind = {engine:?}\n[[route]]\npath = \"/ws\"\nchannel = \"c\"\n{route}\n{lines}\n{UPSTREAMS}"
                );
                let found = mistakes(&text);
                let is_named =
                    found.iter().any(|(key, _)| format!("route[0].{name}").starts_with(&**key));
                match effect {
                    '!' => {
                        assert_eq!(found, [], "{name} in {place} with {engine}");
                        let notices = notices(&text);
                        let is_named = notices.iter().any(|notice| notice.contains("no effect: "));
                        assert!(is_named, "{name} in {place} with {engine}: {notices:?}");
                    }
                    '+' => assert_eq!(found, [], "{name} in {place} with {engine}"),
                    '-' => assert!(
                        is_named || *name == "reply",
                        "{name} in {place} with {engine}: {found:?}"
                    ),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn each_key_of_an_upstream_belongs_to_kinds_that_use_it() {
    for (_, path) in defined(|heading| heading.starts_with("[upstream.NAME]").then_some("")) {
        // The keys of a task are those of its upstream.
        let name = path.split('.').skip(2).collect::<Vec<_>>().join(".");
        let is_known = name.starts_with("tasks[") || UPSTREAM_KEYS.iter().any(|key| key.1 == name);
        assert!(is_known, "say in UPSTREAM_KEYS which kinds have {name} ({path})");
    }
    for (kinds, name, lines) in UPSTREAM_KEYS {
        for (kind, required) in KINDS {
            let has_key = *kinds == "*" || kinds.split(' ').any(|other| other == kind);
            // A line of the same key replaces the required one.
            let required: Vec<&str> = required
                .lines()
                .filter(|line| {
                    !lines.lines().any(|own| own.split(" =").next() == line.split(" =").next())
                })
                .collect();
            // Several URLs replace the one.
            let scheme = if kind == "websocket" { "ws" } else { "http" };
            let lines = &lines.replace("URL", &format!("{scheme}://127.0.0.1:1"));
            let required: Vec<&str> = match lines.contains("urls =") {
                true => required.into_iter().filter(|line| !line.starts_with("url ")).collect(),
                false => required,
            };
            for engine in ENGINES {
                let text = format!(
                    "engine.kind = {engine:?}\n[[route]]\npath = \"/ws\"\nchannel = \"c\"\nupstream = \"u\"\n\
                     [upstream.u]\nkind = {kind:?}\n{}\n{lines}\n",
                    required.join("\n")
                );
                let found = mistakes(&text);
                assert_eq!(
                    found.is_empty(),
                    has_key || lines.is_empty(),
                    "{name} of {kind}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn keys_of_replicas_are_mistakes_where_the_proxy_has_none() {
    let with = |lines: &str| {
        let route = "[[route]]\npath = \"/ws\"\nchannel = \"c\"";
        let found = mistakes(&format!("{route}\n[proxy]\n{lines}\n"));
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let (one, two) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
    for (line, key) in [
        ("balance = \"address\"", "proxy.balance"),
        ("circuit.failures = 7", "proxy.circuit.failures"),
        ("circuit.window = \"7s\"", "proxy.circuit.window"),
        ("circuit = { open = \"7s\" }", "proxy.circuit.open"),
    ] {
        assert_eq!(with(line), [key]);
        assert_eq!(with(&format!("upstream = {one:?}\n{line}")), [key]);
        assert_eq!(with(&format!("urls = [{one:?}]\n{line}")), [key]);
        assert_eq!(with(&format!("urls = [{one:?}, {two:?}]\n{line}")), [""; 0], "{line}");
    }
    for line in ["balance = \"least\"", "circuit.failures = 10"] {
        assert_eq!(with(line), [""; 0], "{line}");
    }
    for (lines, key) in [
        (format!("upstream = {one:?}\nurls = [{two:?}]"), "proxy.upstream"),
        (format!("urls = [{one:?}, {one:?}]"), "proxy.urls"),
        ("urls = [\"ws://127.0.0.1\"]".to_owned(), "proxy.urls[0]"),
        ("urls = [\"\"]".to_owned(), "proxy.urls[0]"),
        (format!("urls = {one:?}"), "proxy.urls"),
        (format!("urls = [{one:?}, {two:?}]\nbalance = \"user\""), "proxy.balance"),
    ] {
        assert_eq!(with(&lines), [key], "{lines}");
    }
}

/// What says that nothing happens is no mistake where nothing happens.
#[test]
fn values_that_turn_something_off_are_accepted() {
    for (place, route) in PLACES {
        let text = format!(
            "[[route]]\npath = \"/ws\"\nchannel = \"c\"\nauth = [\"anonymous\"]\n{route}\n\
             presence = \"off\"\ntimestamps = false\nexpiry_notice = \"0s\"\nhistory.size = 0\n\
             limits.messages_per_user = \"off\"\nlimits.messages_per_connection = \"off\"\n\
             limits.connects_per_user = \"\"\nlimits.connections_per_user = 0\nlimits.generations_per_user = 0\n\
             generations.dedup_ttl = \"0s\"\n{UPSTREAMS}"
        );
        assert_eq!(mistakes(&text), [], "{place}");
    }
}

#[test]
fn a_key_that_needs_another_one_is_a_mistake_without_it() {
    let route = "[[route]]\npath = \"/ws\"\nchannel = \"c\"\nupstream = \"u\"\n";
    let http = "[upstream.u]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
    let queue =
        "[upstream.u]\nkind = \"redis-list\"\nredis_url = \"redis://127.0.0.1:1\"\nkey = \"k\"\n";
    let celery = "[upstream.u]\nkind = \"celery\"\nbroker_url = \"redis://127.0.0.1:1\"\ntask = \"t\"\n\
                  kwargs = { m = \"{message}\" }\n";
    for (text, key) in [
        (format!("{route}generations.max_waiting = 7\n{http}"), "route[0].generations.max_waiting"),
        (
            format!("{route}generations.max_waiting_per_user = 7\n{http}"),
            "route[0].generations.max_waiting_per_user",
        ),
        (format!("{route}history.size = 0\nhistory.ttl = \"7s\"\n{http}"), "route[0].history.ttl"),
        (
            format!("{route}history.size = 0\nhistory.compact = \"chunks\"\n{http}"),
            "route[0].history.compact",
        ),
        (format!("{route}{http}publish = \"native\""), "upstream.u.publish"),
        (format!("{route}{queue}max_len = 0\nmax_len_per_user = 7"), "upstream.u.max_len_per_user"),
        (format!("{route}{celery}result_keyprefix = \"p\""), "upstream.u.result_keyprefix"),
        (format!("{route}{celery}track.ttl = \"7s\""), "upstream.u.track.ttl"),
    ] {
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, key);
        assert!(found[0].1.starts_with("no effect: "), "{found:?}");
    }
}

#[test]
fn limits_of_users_are_named_where_there_are_none() {
    let text = |limits: &str| {
        let route = "[[route]]\npath = \"/ws\"\nchannel = \"c\"\nupstream = \"u\"\nauth = [\"anonymous\"]\n";
        let upstream = "[upstream.u]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
        notices(&format!("{route}{limits}\n{upstream}"))
    };
    for limits in [
        "limits.connections_per_user = 7",
        "limits.connects_per_user = \"7/1m\"",
        "limits.generations_per_user = 7",
        "limits.messages_per_user = { limit = \"5/1h\", window = \"fixed\" }",
    ] {
        let name = limits.split(' ').next().unwrap();
        let found = text(limits);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("route[0].{name}: no effect: ")), "{found:?}");
    }
    assert_eq!(text("limits.connections_per_user = 0"), [""; 0]);
}
