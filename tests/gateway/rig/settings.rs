//! The TOML config of a gateway, built by the test that needs it.

use std::collections::BTreeMap;
use std::fmt;

/// The API key that every gateway of the tests accepts.
pub const API_KEY: &str = "test-api-key";

/// A config: sections by name, then routes, then upstreams. It starts with free ports, two threads, an API key,
/// JSON logs, a short drain and the memory engine.
#[derive(Debug, Clone)]
pub struct Settings {
    sections: BTreeMap<String, String>,
    routes: Vec<String>,
    upstreams: Vec<(String, String)>,
}

impl Settings {
    pub fn new() -> Self {
        let settings =
            Self { sections: BTreeMap::new(), routes: Vec::new(), upstreams: Vec::new() };
        settings
            .section("server", "listen = \"127.0.0.1:0\"\nthreads = 2")
            .section("admin", &format!("listen = \"127.0.0.1:0\"\napi_keys = [{API_KEY:?}]"))
            .section("shutdown", "drain = \"300ms\"\ngrace = \"1s\"")
            .section("log", "format = \"json\"")
    }

    /// A config with one JSON route, `/ws/chat/{conversation_id}/`, which everybody may connect to, and an HTTP upstream.
    pub fn chat(upstream_url: &str) -> Self {
        Self::new()
            .route(CHAT_ROUTE)
            .upstream("worker", &format!("kind = \"http\"\nurl = {upstream_url:?}"))
    }

    /// A config with a raw route at `/echo` for messages up to 16 MiB and one at `/small` for 1 KiB, in any number of fragments,
    /// both relayed to the WebSocket server at `url`.
    pub fn echo(url: &str) -> Self {
        let mut settings =
            Self::new().upstream("echo", &format!("kind = \"websocket\"\nurl = {url:?}"));
        for (path, bytes) in [("/echo", "16MiB"), ("/small", "1KiB")] {
            settings = settings.route(&format!(
                r#"path = "{path}"
channel = "echo"
upstream = "echo"
auth = ["anonymous"]
protocol = "raw"
binary = "relay"
max_message_bytes = "{bytes}"
send_queue = {{ messages = 4096, bytes = "64MiB" }}
[route.limits]
messages_per_connection = "1000000/1s"
frames_per_connection = "off"
"#
            ));
        }
        settings
    }

    /// Uses the Redis engine at `url`.
    pub fn redis(self, url: &str) -> Self {
        self.section("engine", "kind = \"redis\"")
            .section("engine.redis", &format!("url = {url:?}"))
    }

    /// Replaces the whole section `[name]` with `lines`.
    pub fn section(mut self, name: &str, lines: &str) -> Self {
        self.sections.insert(name.to_owned(), lines.to_owned());
        self
    }

    /// Adds `lines` to `[name]`.
    pub fn also(mut self, name: &str, lines: &str) -> Self {
        let section = self.sections.entry(name.to_owned()).or_default();
        section.push('\n');
        section.push_str(lines);
        self
    }

    /// Adds a `[[route]]`; sub-tables may follow at the end of `lines`.
    pub fn route(mut self, lines: &str) -> Self {
        self.routes.push(lines.to_owned());
        self
    }

    /// Turns the history of every route off, so that publications arrive without an offset.
    pub fn without_history(self) -> Self {
        self.each_route(|route| format!("{route}\n[route.history]\nsize = 0\n"))
    }

    /// Changes the text of every route, for example to insert another key before its sub-tables.
    pub fn each_route(mut self, change: impl Fn(&str) -> String) -> Self {
        for route in &mut self.routes {
            *route = change(route);
        }
        self
    }

    /// Adds or replaces `[upstream.name]`.
    pub fn upstream(mut self, name: &str, lines: &str) -> Self {
        self.upstreams.retain(|(other, _)| other != name);
        self.upstreams.push((name.to_owned(), lines.to_owned()));
        self
    }
}

/// The route of [`Settings::chat`].
pub const CHAT_ROUTE: &str = r#"path = "/ws/chat/{conversation_id}/"
channel = "chat_{conversation_id}"
upstream = "worker"
auth = ["connection_token", "cookie", "bearer", "query", "anonymous"]
"#;

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in &self.sections {
            writeln!(f, "[{name}]\n{lines}\n")?;
        }
        for route in &self.routes {
            writeln!(f, "[[route]]\n{route}\n")?;
        }
        for (name, lines) in &self.upstreams {
            writeln!(f, "[upstream.{name}]\n{lines}\n")?;
        }
        Ok(())
    }
}
