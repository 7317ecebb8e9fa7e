use super::*;

fn notices(text: &str) -> Vec<String> {
    Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}")).notices()
}

const ROUTE: &str =
    "[[route]]\npath = \"/ws/{id}/\"\nchannel = \"c_{id}\"\nupstream = \"worker\"\n";

const CELERY: &str = "[upstream.worker]\nkind = \"celery\"\nbroker_url = \"redis://h/0\"\ntask = \"t\"\nkwargs = { text = \"{message}\" }\n";

const LAYER: &str = "[engine]\nkind = \"redis\"\n[engine.redis]\nwire = \"channels-core\"\n";

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
