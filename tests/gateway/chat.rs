//! The route that most tests connect to, and the sessions of its clients.

use serde_json::{Value, json};

use super::rig::{Settings, jwt};

/// The secret that signs the sessions of [`chat`].
pub const SECRET: &str = "a secret of thirty-two bytes and more";

/// An origin that [`chat`] allows.
pub const APP: (&str, &str) = ("origin", "https://app.example.com");

/// A config with a receive-only route, `/ws/chat/{conversation_id}/`, that includes `lines`.
pub fn chat(lines: &str) -> Settings {
    let route = format!(
        "path = \"/ws/chat/{{conversation_id}}/\"\nchannel = \"chat_{{conversation_id}}\"\n{lines}"
    );
    Settings::new()
        .section("origins", "allow = [\"https://app.example.com\", \"https://*.wild.example\"]")
        .section("jwt", &format!("keys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]"))
        .route(&route)
}

pub fn open_to_all() -> Settings {
    chat("auth = [\"anonymous\"]")
}

/// A session JWT of user 7, ana.
pub fn session() -> String {
    session_with(json!({}))
}

/// A session JWT of user 7, ana, with some claims replaced or added.
pub fn session_with(claims: Value) -> String {
    let mut all = json!({"user_id": 7, "username": "ana", "exp": jwt::in_seconds(600)});
    for (name, value) in claims.as_object().expect("an object") {
        all[name] = value.clone();
    }
    jwt::hs256(SECRET, &all)
}

/// [`chat`] with an HTTP upstream at `url`.
pub fn relayed(url: &str, lines: &str) -> Settings {
    chat(&format!("upstream = \"worker\"\n{lines}"))
        .upstream("worker", &format!("kind = \"http\"\nurl = {url:?}"))
}
