//! Generates the reference page of all keys from their definitions. A test checks that
//! docs/configuration.md is up to date.

use std::path::Path;

use super::context::{Definition, Outcome};
use super::environment::Environment;
use super::load::read;
use super::mistakes::Mistakes;

const INTRODUCTION: &str = include_str!("reference.md");

/// A configuration with one of each table, so that every key is read.
pub(super) const ONE_OF_EACH: &str = r#"
jwt.keys = [{ alg = "HS256", secret = "sixteen bytes or more" }]

[server.tls]
certificate = "tests/keys/server_tls/localhost.pem"
key = "tests/keys/server_tls/localhost.key"
certificates = [
    { certificate = "tests/keys/server_tls/wildcard.pem", key = "tests/keys/server_tls/wildcard.key" },
]

[[route]]
path = "/claims"
channel = "claims"

[[route]]
path = "/url"
channel = "url"
upstream = "a"
limits.messages_per_user = { limit = "50/1h", window = "fixed" }
limits.usage_per_user = { limit = "100000/1d", window = "fixed" }
limits.connects_per_user = { limit = "10/1m", window = "fixed" }
authorize = { url = "http://127.0.0.1:8001/authorize" }

[upstream.a]
kind = "http"
url = "http://127.0.0.1:8001"

[upstream.b]
kind = "redis-stream"
redis_url = "redis://127.0.0.1"
key = "messages"

[upstream.c]
kind = "redis-list"
redis_url = "redis://127.0.0.1"
key = "messages"

[upstream.d]
kind = "websocket"
url = "ws://127.0.0.1:8001"

[upstream.e]
kind = "celery"
broker_url = "redis://127.0.0.1"
task = "tasks.reply"
kwargs = { message = "{message}" }
tasks = [{ channel = "*", task = "tasks.reply", kwargs = { message = "{message}" } }]
"#;

/// Generates the reference page: the introduction, then a table of keys under each heading.
///
/// # Errors
/// A default is not a valid value of its key. A test checks that there is none.
pub(super) fn reference() -> Result<String, Mistakes> {
    let Outcome { mistakes, definitions, headings, .. } =
        read(ONE_OF_EACH, &Environment::empty(), Path::new(""))?.1;
    Mistakes::into_result(mistakes)?;
    let mut page = INTRODUCTION.to_owned();
    for (heading, doc) in headings {
        page.push_str(&format!("\n## `{heading}`\n\n{doc}\n"));
        let keys: Vec<&Definition> = definitions.iter().filter(|d| d.heading == heading).collect();
        let mut rows: Vec<String> = Vec::new();
        for key in &keys {
            let twin_of = key.name.strip_suffix("_file");
            if twin_of.is_some_and(|name| keys.iter().any(|other| other.name == name)) {
                continue;
            }
            let twin = format!("{}_file", key.name);
            let row = row(key, keys.iter().any(|other| other.name == twin));
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        page.push_str("\n| key | kind | default | meaning |\n|---|---|---|---|\n");
        page.push_str(&rows.concat());
    }
    Ok(page)
}

/// A row of the table. Keys with a file twin are marked; the introduction says what that means.
fn row(key: &Definition, has_twin: bool) -> String {
    let default = match &key.default {
        Some(default) => format!("`{default}`"),
        None => "required".to_owned(),
    };
    let mark = if has_twin { " (`_file`)" } else { "" };
    format!("| `{}`{mark} | {} | {default} | {} |\n", key.name, key.kind, key.doc)
}
