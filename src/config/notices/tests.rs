use super::*;

fn notices(text: &str) -> Vec<String> {
    Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}")).notices()
}

const ROUTE: &str =
    "[[route]]\npath = \"/ws/{id}/\"\nchannel = \"c_{id}\"\nupstream = \"worker\"\n";

const CELERY: &str = "[upstream.worker]\nkind = \"celery\"\nbroker_url = \"redis://h/0\"\ntask = \"t\"\nkwargs = { text = \"{message}\" }\n";

const LAYER: &str = "[engine]\nkind = \"redis\"\n[engine.redis]\nwire = \"channels-core\"\n";

/// A route that no request gets to is named, and the gateway starts: of the others the first in the file is used.
#[test]
fn a_route_behind_one_that_takes_all_its_requests() {
    let text = |paths: [&str; 3]| {
        let route = |path| format!("[[route]]\npath = {path:?}\nreply = \"1\"\n");
        let channel =
            |path| format!("[[route]]\npath = {path:?}\nchannel = \"c\"\nauth = [\"anonymous\"]\n");
        let config = channel(paths[0]) + &channel(paths[1]) + &route(paths[2]);
        Config::from_toml(&config).unwrap().notices()
    };
    assert_eq!(
        text(["/ws/{id}", "/ws/fixed", "/ws/health"]),
        [
            "route[1].path: not used: route[0] already matches every request for this path; write it before that one",
            "route[2].path: not used: route[0] already matches every request for this path; write it before that one",
        ]
    );
    assert_eq!(text(["/ws/fixed", "/ws/{id}", "/health"]), [""; 0]);
    // The order of a path with a rest does not matter.
    assert_eq!(text(["/{rest*}", "/ws/{id}", "/health"]), [""; 0]);
}

#[test]
fn a_version_is_a_number_between_colons() {
    for prefix in [":1:ws_conn_token:", "app:12:t:", "a:b:3:"] {
        assert!(has_version(prefix), "{prefix}");
    }
    for prefix in ["", "ws_conn_token:", "1:t:", "app:t:1", "app::t:", ":v1:t:"] {
        assert!(!has_version(prefix), "{prefix}");
    }
}

#[test]
fn a_config_that_fits_together_has_no_notices() {
    let tokens = "[tokens]\nformat = \"django\"\nkey_prefix = \":1:ws_conn_token:\"\n";
    let more = "result_backend_url = \"redis://h/0\"\ntrack = { key = \"t:{id}\" }\n";
    assert_eq!(notices(&format!("{LAYER}{tokens}{ROUTE}{CELERY}{more}")), [""; 0]);
}

#[test]
fn what_fits_badly_is_named() {
    let tokens = "[tokens]\nformat = \"django\"\nkey_prefix = \"ws_conn_token:\"\n";
    let redis = "[engine]\nkind = \"redis\"\n";
    let generations = "[route.generations]\nterminal_events = [\"done\"]\n";
    let results = "result_backend_url = \"redis://h/0\"\n";
    let found = notices(&format!("{redis}{tokens}{ROUTE}{generations}{CELERY}{results}"));
    let keys = [
        "tokens.key_prefix: ",
        "route /ws/{id}/: generations.terminal_events: ",
        "upstream.worker: ",
    ];
    assert_eq!(found.len(), keys.len(), "{found:?}");
    for (line, key) in found.iter().zip(keys) {
        assert!(line.starts_with(key), "{line}");
    }
    let tokens = "[tokens]\nformat = \"json\"\n";
    let track = "track = { key = \"t:{id}\" }\n";
    let found = notices(&format!("{LAYER}{tokens}{ROUTE}{CELERY}{track}"));
    assert!(
        found.len() == 1 && found[0].starts_with("upstream.worker.track.format: "),
        "{found:?}"
    );
}

#[test]
fn histories_must_leave_memory_for_clients() {
    let route = "[[route]]\npath = \"/ws/\"\nchannel = \"c\"\nauth = [\"anonymous\"]\n";
    let with = |max: &str, engine: &str| {
        notices(&format!("[server]\nmax_memory = {max}\n[engine]\n{engine}\n{route}"))
    };
    let found = with("\"64MiB\"", "max_history_bytes = \"64MiB\"");
    assert!(found.len() == 1 && found[0].starts_with("server.max_memory: "), "{found:?}");
    assert_eq!(with("\"65MiB\"", "max_history_bytes = \"64MiB\""), [""; 0]);
    assert_eq!(with("0", "max_history_bytes = \"64MiB\""), [""; 0]);
    assert_eq!(with("\"1MiB\"", "kind = \"redis\""), [""; 0]);
}

#[test]
fn one_address_must_not_have_all_connections() {
    let route = "[[route]]\npath = \"/ws/\"\nchannel = \"c\"\nauth = [\"anonymous\"]\n";
    let with = |lines: &str| notices(&format!("[server]\n{lines}\n{route}"));
    let found = with("max_connections = 1000");
    assert!(
        found.len() == 1 && found[0].starts_with("server.max_connections_per_ip: 1000 of 1000"),
        "{found:?}"
    );
    assert_eq!(with("max_connections = 1001"), [""; 0]);
    assert_eq!(with("max_connections = 60\nmax_connections_per_ip = 10"), [""; 0]);
    assert_eq!(with("max_connections = 60\nmax_connections_per_ip = 0"), [""; 0]);
}

const JWT: &str =
    "[jwt]\nkeys = [{ alg = \"HS256\", secret = \"a secret of thirty-two bytes and more\" }]\n";

/// The keys of the notices.
fn keys(text: &str) -> Vec<String> {
    let key = |notice: String| notice.rsplit_once(": ").map(|(key, _)| key.to_owned());
    notices(text)
        .into_iter()
        .filter_map(key)
        .map(|key| key.replace("route /ws/{id}/: ", ""))
        .collect()
}

/// Its server API issues connection tokens.
const API: &str = "[admin]\napi_keys = [\"a key of the server API\"]\n";

fn route(lines: &str) -> String {
    format!("[[route]]\npath = \"/ws/{{id}}/\"\n{lines}\n")
}

#[test]
fn channels_that_any_user_may_join_are_named() {
    let notices_of = |jwt: &str, lines: &str| keys(&format!("{jwt}{}", route(lines)));
    let channel = "channel = \"c_{id}\"\n";
    for (jwt, lines, expected) in [
        (JWT, format!("{channel}auth = [\"cookie\"]"), vec!["authorize"]),
        (JWT, format!("{channel}auth = [\"connection_token\"]"), vec!["authorize"]),
        (JWT, format!("{channel}auth = [\"cookie\"]\nauthorize = \"none\""), vec![]),
        (
            JWT,
            format!("{channel}auth = [\"cookie\"]\nauthorize = {{ url = \"http://a/\" }}"),
            vec![],
        ),
        (JWT, "channel = \"u_{user_id}\"\nauth = [\"cookie\"]".to_owned(), vec![]),
        (JWT, "channel = \"news\"\nauth = [\"cookie\"]".to_owned(), vec![]),
        (JWT, format!("{channel}auth = [\"cookie\", \"anonymous\"]"), vec![]),
        (API, format!("{channel}auth = [\"connection_token\"]"), vec![]),
        (JWT, format!("{channel}auth = [\"query\"]\nauthorize = \"none\""), vec!["auth"]),
        ("", format!("{channel}auth = [\"query\", \"anonymous\"]"), vec![]),
        (
            JWT,
            "channel = \"u_{user_id}\"\nauth = [\"cookie\", \"anonymous\"]".to_owned(),
            vec!["auth"],
        ),
    ] {
        assert_eq!(notices_of(jwt, &lines), expected, "{lines}");
    }
    let upstream = "[upstream.w]\nkind = \"http\"\nurl = \"http://a/{user_id}\"\n";
    let lines = format!("{channel}upstream = \"w\"\nauth = [\"anonymous\"]");
    assert_eq!(keys(&format!("{}{upstream}", route(&lines))), ["auth"]);
}

#[test]
fn a_worker_that_the_proxy_also_reaches_is_named() {
    let route = route("channel = \"c_{id}\"\nupstream = \"w\"\nauth = [\"anonymous\"]");
    let with = |proxy: &str, url: &str, more: &str| {
        keys(&format!(
            "[proxy]\nupstream = {proxy:?}\n{route}[upstream.w]\nkind = \"http\"\nurl = {url:?}\n{more}"
        ))
    };
    let key = ["upstream.w.signing_secret"];
    let worker = "http://app:8001/internal/{id}";
    assert_eq!(with("http://app:8001", worker, ""), key);
    assert_eq!(with("http://app:8001/internal/", worker, ""), key);
    for (proxy, worker) in [
        ("http://localhost:80", "http://127.0.0.1/x"),
        ("http://[::1]", "http://localhost/x"),
        ("http://127.0.0.2", "http://[::ffff:127.0.0.1]/x"),
        ("http://0.0.0.0", "http://[::]/x"),
        ("http://app.localhost", "http://127.0.0.1/x"),
        ("http://APP.example.com.", "http://app.example.com/x"),
    ] {
        assert_eq!(with(proxy, worker, ""), key, "{proxy}");
    }
    let signed = "signing_secret = \"a secret of the worker\"";
    assert_eq!(with("http://app:8001", worker, signed), [""; 0]);
    assert_eq!(with("http://app:8001", worker, "signing_secret = \"short\""), key);
    for proxy in ["http://app:8002", "http://other:8001", "http://app:8001/public"] {
        assert_eq!(with(proxy, worker, ""), [""; 0], "{proxy}");
    }
}

#[test]
fn a_route_whose_credentials_cannot_be_valid_is_named() {
    let with = |jwt: &str, auth: &str| {
        keys(&format!("{jwt}{}", route(&format!("channel = \"c\"\nauth = {auth}"))))
    };
    let nobody = ["auth"];
    assert_eq!(with("", r#"["cookie"]"#), nobody);
    assert_eq!(with("", r#"["bearer", "cookie", "query"]"#), nobody);
    assert_eq!(with("[jwt]\njwks_url = \"http://a/\"\n", r#"["cookie"]"#), [""; 0]);
    assert_eq!(with(JWT, r#"["cookie"]"#), [""; 0]);
    assert_eq!(with("", r#"["connection_token", "cookie"]"#), nobody);
    for issuer in [JWT, API, "[engine]\nkind = \"redis\"\n"] {
        assert_eq!(with(issuer, r#"["connection_token"]"#), [""; 0], "{issuer}");
    }
    // The default.
    assert_eq!(keys(&route("channel = \"c\"")), nobody);
    assert_eq!(with("", r#"["cookie", "anonymous"]"#), [""; 0]);
}

#[test]
fn an_application_with_one_url_for_all_paths_is_named() {
    let with = |protocol: &str, path: &str, url: &str| {
        keys(&format!(
            "[[route]]\npath = {path:?}\nprotocol = {protocol:?}\nchannel = \"c\"\nauth = [\"anonymous\"]\n\
             upstream = \"app\"\n[upstream.app]\nkind = \"websocket\"\nurl = {url:?}"
        ))
    };
    for (path, url) in [
        ("/{rest*}", "ws://a/"),
        ("/app/{rest*}", "ws://a/app"),
        ("/{tenant}/{rest*}", "wss://a:1/app?x=1"),
        ("/documents/{document}", "ws://a/"),
    ] {
        assert_eq!(with("pass", path, url), ["upstream.app.url"], "{path} {url}");
        assert_eq!(with("raw", path, url), [""; 0], "{path} {url}");
    }
    for (path, url) in [
        ("/{rest*}", "ws://a"),
        ("/{rest*}", "ws://a/app/{rest*}"),
        ("/{rest*}", "ws://a/?path={rest}"),
        ("/{rest*}", "ws://a?x=1"),
        ("/documents/{document}", "ws://a/documents"),
        ("/documents/{document}", "ws://a/{document}"),
        ("/graphql", "ws://a/"),
    ] {
        assert_eq!(with("pass", path, url), [""; 0], "{path} {url}");
    }
}

#[test]
fn a_secret_that_can_be_guessed_is_named() {
    let with = |secret: &str| {
        let lines = format!(
            "channel = \"c_{{id}}\"\nauth = [\"anonymous\"]\n\
             authorize = {{ url = \"http://a/\", signing_secret = {secret:?} }}"
        );
        keys(&route(&lines))
    };
    assert_eq!(with("x"), ["authorize.signing_secret"]);
    assert_eq!(with("a secret that nobody guesses"), [""; 0]);
    assert_eq!(with(""), [""; 0]);
}

#[test]
fn what_is_written_and_not_used_is_named() {
    let route = route("channel = \"c_{id}\"\nauth = [\"anonymous\"]");
    assert_eq!(keys(&format!("[engine.redis]\nurl = \"redis://h\"\n{route}")), ["engine.redis"]);
    let plain = "[engine]\nkind = \"redis\"\n[engine.redis.channels]\nprefix = \"x\"\n";
    assert_eq!(keys(&format!("{plain}{route}")), ["engine.redis.channels"]);
    let short = "[admin]\napi_keys = [\"a key that nobody guesses\", \"k\"]\n";
    let found = notices(&format!("{short}{route}"));
    assert!(found.len() == 1 && found[0].starts_with("admin.api_keys[1]: "), "{found:?}");
}

#[test]
fn variables_that_look_like_overrides_are_named() {
    use crate::config::Environment;

    let text = format!(
        "[log]\nlevel = \"${{TIDEGATE_LEVEL}}\"\n{}",
        route("channel = \"c_{id}\"\nauth = [\"anonymous\"]")
    );
    let environment = Environment::from_iter([
        ("TIDEGATE_SERVER_LISTEN", "0.0.0.0:80"),
        ("tidegate_unknown", "1"),
        ("TIDEGATE.SERVER.LISTEN", "0.0.0.0:81"),
        ("Tidegate-Server:Listen", "0.0.0.0:82"),
        ("TIDEGATER", "1"),
        ("TIDEGATE_ADMIN_PORT", "9000"),
        ("TIDEGATE_LEVEL", "info"),
        ("TIDEGATE__SERVER__THREADS", "1"),
        ("TIDEGATE_API_KEY", "k"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:80"),
        ("TIDEGATE_ADMIN_PORT_9000_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_ADMIN_SERVICE_PORT_HTTP", "9000"),
        ("HOME", "/"),
    ]);
    let config = Config::parse(&text, &environment, std::path::Path::new("")).unwrap();
    let found = config.notices();
    assert_eq!(found.len(), 5, "{found:?}");
    let meant = found.iter().filter(|line| line.contains("did you mean TIDEGATE__SERVER__LISTEN?"));
    assert_eq!(meant.count(), 3, "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("TIDEGATE_ADMIN_PORT: ")), "{found:?}");
    assert!(found[4].starts_with("tidegate_unknown: "), "{found:?}");
}
