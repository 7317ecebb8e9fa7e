//! The reference page of all keys, made from their definitions. A test holds docs/configuration.md
//! to it.

use std::path::Path;

use super::environment::Environment;
use super::load::read;
use super::mistakes::Mistakes;
use super::reader::{Definition, Outcome};

const INTRODUCTION: &str = include_str!("reference.md");

/// Holds one of everything that has keys, so that reading it asks for every key there is.
pub(super) const ONE_OF_EACH: &str = r#"
jwt.keys = [{ alg = "HS256", secret = "sixteen bytes or more" }]

[[route]]
path = "/claims"
channel = "claims"

[[route]]
path = "/asked"
channel = "asked"
limits.messages_per_user = { limit = "50/1h", window = "fixed" }
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

/// The reference page: how configuration works, then a table of keys for each headline.
///
/// # Errors
/// None while the definitions fit their own defaults, which a test makes sure of.
pub fn reference() -> Result<String, Mistakes> {
    let Outcome { mistakes, definitions, headings, .. } =
        read(ONE_OF_EACH, &Environment::empty(), Path::new(""))?.1;
    Mistakes::check(mistakes)?;
    let mut page = INTRODUCTION.to_owned();
    for (heading, doc) in headings {
        page.push_str(&format!("\n## `{heading}`\n\n{doc}\n"));
        let mut rows: Vec<String> = Vec::new();
        for row in definitions.iter().filter(|d| d.heading == heading).map(row) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        page.push_str("\n| key | kind | default | meaning |\n|---|---|---|---|\n");
        page.push_str(&rows.concat());
    }
    Ok(page)
}

fn row(key: &Definition) -> String {
    let default = match &key.default {
        Some(default) => format!("`{default}`"),
        None => "must be written".to_owned(),
    };
    format!("| `{}` | {} | {default} | {} |\n", key.name, key.kind, key.doc)
}
