use super::*;

fn config(text: &str) -> Config {
    let route = "[[route]]\npath = \"/\"\nchannel = \"all\"\nauth = [\"anonymous\"]\n";
    Config::from_toml(&format!("{text}\n{route}")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Differs in every key that needs a restart, and in one key that does not.
const OTHER: &str = r#"
server = { listen = "127.0.0.1:1", reuse_port = true, threads = 1023, max_connections = 7 }
admin.listen = "127.0.0.1:2"
engine = { kind = "redis", redis.url = "redis://127.0.0.1:3" }
tokens = { ttl = "1s", key_prefix = "other:", format = "django" }
jwt.session_version = { key = "version:{user_id}" }
tracing.otlp_endpoint = "http://127.0.0.1:4"
log.format = "json"
"#;

#[test]
fn settings_that_need_a_restart_are_kept_and_documented() {
    let (current, mut new) = (config(""), config(OTHER));
    let mut kept = keep_what_needs_a_restart(&current, &mut new);
    assert_eq!(changed_sections(&current, &new), ["server"]);
    assert_eq!(new.server.max_connections, 7);
    assert!(keep_what_needs_a_restart(&current, &mut new).is_empty());
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
