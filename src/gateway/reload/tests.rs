use super::*;

fn config(text: &str) -> Config {
    let route = "[[route]]\npath = \"/\"\nchannel = \"all\"\nauth = [\"anonymous\"]\n";
    Config::from_toml(&format!("{text}\n{route}")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Differs in every key that needs a restart, and in one key that does not.
const OTHER: &str = r#"
engine = { kind = "redis", redis.url = "redis://127.0.0.1:3" }
tokens = { ttl = "1s", key_prefix = "other:", format = "django" }
jwt.session_version = { key = "version:{user_id}" }
tracing.otlp_endpoint = "http://127.0.0.1:4"
log.format = "json"

[server]
listen = "127.0.0.1:1"
reuse_port = true
threads = 1023
max_connections = 7

[server.tls]
certificate = "tests/keys/server_tls/localhost.pem"
key = "tests/keys/server_tls/localhost.key"
redirect = "127.0.0.1:4"

[admin]
listen = "127.0.0.1:2"

[admin.tls]
certificate = "tests/keys/server_tls/localhost.pem"
key = "tests/keys/server_tls/localhost.key"
"#;

#[test]
fn settings_that_need_a_restart_are_kept_and_documented() {
    let (current, mut new) = (config(""), config(OTHER));
    let mut kept = keep_what_needs_a_restart(&current, &mut new);
    assert_eq!(changed_sections(&current, &new), ["server"]);
    assert_eq!(new.server.max_connections, 7);
    assert!(keep_what_needs_a_restart(&current, &mut new).is_empty());
    // Where TLS stays on, its table is taken over but for the address of the redirects.
    let (with_tls, redirect) = (config(OTHER), "redirect = \"127.0.0.1:4\"");
    let changed = "redirect = \"127.0.0.1:5\"\nmax_handshakes = 7";
    let mut other_address = config(&OTHER.replace(redirect, changed));
    kept.extend(keep_what_needs_a_restart(&with_tls, &mut other_address));
    let tls = |config: &Config| config.server.tls.clone().unwrap();
    assert_eq!(tls(&other_address).redirect, tls(&with_tls).redirect);
    assert_eq!(tls(&other_address).max_handshakes, 7);
    let page = include_str!("../../../docs/reload.md");
    let section = page.split("## What needs a restart").nth(1).unwrap().split("\n## ").next();
    let rows = section.unwrap().lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let mut documented: Vec<&str> =
        cells.flat_map(|cell| cell.split(',').map(|key| key.trim().trim_matches('`'))).collect();
    documented.sort_unstable();
    kept.sort_unstable();
    assert_eq!(documented, kept);
}

#[test]
fn the_same_text_changes_nothing() {
    let (current, mut new) = (config(OTHER), config(OTHER));
    assert!(keep_what_needs_a_restart(&current, &mut new).is_empty());
    assert!(changed_sections(&current, &new).is_empty());
}
