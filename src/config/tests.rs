//! Checks the shipped files and the sample files against the code.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::context::Definition;
use super::load::read;
use super::reference::{ONE_OF_EACH, reference};
use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn definitions(text: &str, environment: &Environment) -> Vec<Definition> {
    let (config, outcome) = read(text, environment, Path::new("")).expect("valid TOML");
    assert_eq!(outcome.mistakes, []);
    assert!(config.is_some());
    outcome.definitions
}

/// The shipped file with its commented keys (`#key = …`, `#[table]`) uncommented.
fn shipped_in_full() -> String {
    let text = fs::read_to_string(repository("gateway.toml")).expect("a shipped file");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            key.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn lookup<'a>(document: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(f, r)| (f, Some(r)));
    let value = match first.split_once('[') {
        None => document.get(first)?,
        Some((name, index)) => {
            document.get(name)?.get(index.trim_end_matches(']').parse::<usize>().ok()?)?
        }
    };
    rest.map_or(Some(value), |rest| lookup(value.as_table()?, rest))
}

#[test]
fn the_preset_for_django_is_accepted() {
    for wire in ["channels-core", "channels-pubsub"] {
        let environment = Environment::from_iter([
            ("REDIS_URL", "redis://127.0.0.1:6379"),
            ("SECRET_KEY", "0123456789abcdef0123456789abcdef"),
            ("DJANGO_URL", "http://127.0.0.1:8001"),
            ("ORIGIN", "https://app.example.com"),
            ("CHANNELS_WIRE", wire),
        ]);
        let config = Config::load(&repository("examples/django/gateway.toml"), &environment)
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!((config.routes.len(), config.upstreams.len()), (1, 1));
        assert_eq!(config.notices(), [""; 0]);
    }
}

#[test]
fn the_shipped_file_is_a_configuration() {
    let config = Config::load(&repository("gateway.toml"), &Environment::empty()).unwrap();
    assert_eq!(config.routes.len(), 1);
    assert!(matches!(config.engine.kind, EngineKind::Memory));
    assert!(matches!(config.upstreams["worker"].kind, UpstreamKind::Http(_)));
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    let text = shipped_in_full();
    let document: Table = text.parse().expect("the commented keys are valid TOML too");
    let redis = Environment::from_iter([("TIDEGATE__ENGINE__KIND", "redis")]);
    let shown = definitions(&text, &redis);
    for key in &shown {
        let value = lookup(&document, &key.path);
        match &key.default {
            // A receive-only route is the default, but not a good example.
            Some(_) if key.path == "route[0].upstream" => {}
            Some(default) => assert_eq!(value, Some(default), "{}", key.path),
            None => assert!(value.is_some(), "{}", key.path),
        }
    }
    // Alternative forms of a key are described in comments.
    let prose = [
        "[jwt] keys = [{ … }]",
        "authorize.",
        "[[server.tls.certificates]]",
        "[upstream.NAME] tasks = [{ … }]",
        "messages_per_user.",
        "usage_per_user.",
        "connects_per_user.",
    ];
    for key in definitions(ONE_OF_EACH, &Environment::empty()) {
        let known = |other: &Definition| other.heading == key.heading && other.name == key.name;
        if prose.iter().any(|p| key.heading == *p || key.name.starts_with(p)) {
            let name = key.name.rsplit('.').next().unwrap();
            assert!(text.contains(&format!("{name} = ")) || name == "kid", "{}", key.path);
        } else {
            assert!(shown.iter().any(known), "{} {} is not shown", key.heading, key.name);
        }
    }
}

#[test]
fn the_reference_page_matches_the_definitions() {
    let path = repository("docs/configuration.md");
    let page = reference().unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == page, "run the tests with UPDATE_DOCS=1 and review the changes");
}

fn samples(kind: &str) -> Vec<PathBuf> {
    let files =
        fs::read_dir(repository("tests/config_samples").join(kind)).expect("a folder of samples");
    let mut files: Vec<PathBuf> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{kind}");
    files
}

/// The environment of the sample files.
fn sample_environment() -> Environment {
    Environment::from_iter([
        ("SAMPLE_SECRET", "a secret of more than sixteen bytes"),
        ("SAMPLE_PORT", "8123"),
        ("SAMPLE_WRONG", "hunter2 hunter2"),
    ])
}

#[test]
fn valid_samples_load() {
    for path in samples("valid") {
        if let Err(mistakes) = Config::load(&path, &sample_environment()) {
            panic!("{}:\n{mistakes}", path.display());
        }
    }
}

/// The expected mistakes of an invalid sample are in the file next to it. UPDATE_DOCS=1 rewrites it.
#[test]
fn every_mistake_of_invalid_samples_is_reported() {
    for path in samples("invalid") {
        let report = match Config::load(&path, &sample_environment()) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(mistakes) => format!("{mistakes}\n"),
        };
        assert!(!report.contains("hunter2"), "{} shows a secret:\n{report}", path.display());
        let expected = path.with_extension("mistakes");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&expected, &report).unwrap();
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        assert!(report == expected, "{}:\n{report}\nexpected:\n{expected}", path.display());
    }
}

const SMALL: &str = r#"
[[route]]
path = "/ws/{id}"
channel = "c_{id}"
upstream = "my-worker"

[upstream.my-worker]
kind = "http"
url = "http://127.0.0.1:1/{id}"
"#;

fn with(variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let environment = variables.iter().copied().collect();
    Config::parse(SMALL, &environment, Path::new(""))
}

#[test]
fn overrides_win_over_file_and_default() {
    let config = with(&[
        ("TIDEGATE__SERVER__LISTEN", "127.0.0.1:1"),
        ("tidegate__server__max_connections", "7"),
        ("TIDEGATE__TOKENS__CSRF__HEADER", "X-Mine"),
        ("TIDEGATE__UPSTREAM__MY_WORKER__URL", "http://127.0.0.1:2/{id}"),
        ("TIDEGATE__UPSTREAM__MY_WORKER__CIRCUIT__FAILURES", "3"),
        ("TIDEGATE__UPSTREAM__MY_WORKER__SIGNING_SECRET", "$${NOT_SUBSTITUTED}"),
        ("TIDEGATE__ENGINE__KIND", "redis"),
        ("TIDEGATE__ENGINE__REDIS__URL", "redis://:pw@127.0.0.1:7"),
    ])
    .unwrap();
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.server.max_connections, 7);
    assert_eq!(config.tokens.csrf.header, "X-Mine");
    let worker = &config.upstreams["my-worker"];
    assert_eq!(worker.circuit.failures, 3);
    let UpstreamKind::Http(http) = &worker.kind else { panic!("{worker:?}") };
    assert_eq!(http.urls[0].as_str(), "http://127.0.0.1:2/{id}");
    assert_eq!(http.signing_secret.as_ref().unwrap().expose(), "$${NOT_SUBSTITUTED}");
    let EngineKind::Redis(redis) = &config.engine.kind else { panic!("{:?}", config.engine) };
    assert_eq!(redis.tokens_url.text().expose(), "redis://:pw@127.0.0.1:7");
}

#[test]
fn wrong_overrides_are_reported_without_their_values() {
    let report = with(&[
        ("TIDEGATE__SERVER__LISTEN", "hunter2"),
        ("TIDEGATE__SERVER__LISTENN", "hunter2"),
        ("TIDEGATE__ORIGINS__ALLOW", "hunter2"),
        ("TIDEGATE__UPSTREAM__OTHER__URL", "hunter2"),
        ("TIDEGATE__ENGINE__REDIS__URL", "http://hunter2"),
    ])
    .unwrap_err()
    .to_string();
    let expected = r#"server.listen: found the value of TIDEGATE__SERVER__LISTEN; write an IP address and a port such as "127.0.0.1:8000""#;
    assert!(report.contains(expected), "{report}");
    assert!(
        report.contains(
            "TIDEGATE__SERVER__LISTENN: no such key; did you mean TIDEGATE__SERVER__LISTEN?"
        ),
        "{report}"
    );
    assert_eq!(report.lines().count(), 5, "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "from the file\r\n").unwrap();
    fs::write(folder.path().join("keys"), "one\n\n  two \n").unwrap();
    let text =
        format!("{SMALL}signing_secret_file = \"secret\"\n[admin]\napi_keys_file = \"keys\"");
    let config = Config::parse(&text, &Environment::empty(), folder.path()).unwrap();
    let UpstreamKind::Http(http) = &config.upstreams["my-worker"].kind else { panic!() };
    assert_eq!(http.signing_secret.as_ref().unwrap().expose(), "from the file");
    let keys: Vec<&str> = config.admin.api_keys.iter().map(Secret::expose).collect();
    assert_eq!(keys, ["one", "two"]);

    // An override can name the file as well.
    let path = folder.path().join("secret").display().to_string();
    let config = with(&[("TIDEGATE__UPSTREAM__MY_WORKER__SIGNING_SECRET_FILE", &path)]).unwrap();
    let UpstreamKind::Http(http) = &config.upstreams["my-worker"].kind else { panic!() };
    assert_eq!(http.signing_secret.as_ref().unwrap().expose(), "from the file");
}

#[test]
fn a_missing_file_is_reported() {
    let path = Path::new("no/such/gateway.toml");
    let report = Config::load(path, &Environment::empty()).unwrap_err().to_string();
    assert!(report.starts_with("no/such/gateway.toml: cannot be read"), "{report}");
}

#[test]
fn defaults_are_applied() {
    let config = Config::from_toml(SMALL).unwrap();
    assert!(config.server.threads >= 1);
    let route = &config.routes[0];
    assert_eq!(route.auth.len(), 4);
    assert_eq!(route.limits.messages_per_connection.unwrap().burst, 20);
    assert_eq!(route.limits.connections_per_user, Some(20));
    assert_eq!(route.send_queue, SendQueue { messages: 256, bytes: 1 << 20 });
    assert!(matches!(route.authorize, Authorize::Claims));
    assert!(config.jwt.keys.is_empty() && config.jwt.jwks_url.is_none());
}

#[test]
fn values_of_the_file_are_read() {
    let path = repository("tests/config_samples/valid/everything.toml");
    let config = Config::load(&path, &sample_environment()).unwrap();
    assert_eq!(config.server.trusted_proxies[1].to_string(), "192.0.2.7/32");
    assert_eq!(config.server.max_header_bytes, 8192);
    assert_eq!(config.engine.max_publication_bytes, 64_000);
    assert_eq!(config.tokens.issue_path, None);
    assert_eq!(config.jwt.keys.len(), 4);
    assert_eq!(config.jwt.keys[0].kid.as_deref(), Some("1"));
    assert_eq!(config.jwt.keys[1].kid, None);
    let route = &config.routes[0];
    assert_eq!(route.auth, [AuthSource::ConnectionToken, AuthSource::Anonymous]);
    assert!(matches!(&route.authorize, Authorize::Url(asked) if asked.timeout.as_secs() == 1));
    assert!(route.limits.messages_per_user.is_none());
    let connects = route.limits.connects_per_user.as_ref();
    assert!(matches!(connects, Some(UserRate::Bucket(Rate { burst: 3, .. }))), "{connects:?}");
    assert_eq!(route.limits.connections_per_user, None);
    assert!(route.timestamps && !config.routes[1].timestamps);
    let [health] = &config.replies[..] else { panic!("{:?}", config.replies) };
    assert_eq!((health.path.as_str(), health.after), ("/ws/health/", config.routes.len()));
    assert_eq!(&*health.reply, r#"{"status":"ok","message":"WebSocket healthy"}"#);
    let Some(UserRate::Window(window)) = &config.routes[1].limits.messages_per_user else {
        panic!()
    };
    assert_eq!((window.count, window.per.as_secs()), (50, 3600));
    assert_eq!(window.key.as_ref().unwrap().as_str(), "app:1:messages:{room}:{user_id}");
    // A queue without a Redis URL uses that of the engine.
    for (name, url) in [("stream", "unix:///run/redis.sock"), ("list", "redis://127.0.0.1:6379/5")]
    {
        match &config.upstreams[name].kind {
            UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => {
                assert_eq!(queue.redis_url.text().expose(), url);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Regression test: an invalid value once hid other mistakes of its route.
#[test]
fn an_invalid_value_hides_no_other_mistake_of_its_route() {
    let text = r#"
        [[route]]
        path = "/ws/{id}/"
        channel = "chat_{idd}"
        upstream = "workr"
        idle_ping = "soon"
        [upstream.worker]
        kind = "http"
        url = "http://127.0.0.1:1/"
    "#;
    let mistakes = Config::from_toml(text).unwrap_err();
    let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    for key in ["route[0].idle_ping", "route[0].channel", "route[0].upstream"] {
        assert!(keys.contains(&key), "{key} is not in {keys:?}");
    }
}

#[test]
fn broadcasts_of_a_celery_with_a_prefix_are_reserved() {
    let text = "[engine]\nkind = \"redis\"\n[[route]]\npath = \"/ws/{id}/\"\nchannel = \"app{id}\"\n\
                [upstream.w]\nkind = \"celery\"\ntask = \"t\"\nkwargs = {}\nglobal_keyprefix = \"app:\"\n";
    let config = Config::from_toml(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    for (name, is_reserved) in [
        ("app:/0.celery.pidbox", true),
        ("app:/3.celeryev", true),
        ("app:celery-task-meta-1", true),
        ("app:/x", false),
        ("app:1", false),
    ] {
        assert_eq!(config.reserved.is_reserved(name), is_reserved, "{name}");
    }
}
