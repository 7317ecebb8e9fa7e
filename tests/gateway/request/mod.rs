//! What exactly an HTTP upstream is sent for a message, where its settings say so.

mod body;
mod forward;
mod headers;

use serde_json::{Value, json};

use crate::rig::upstream::Recorded;
use crate::rig::{Client, Gateway, Settings, Upstream};

pub const PATH: &str = "/ws/chat/42/";

/// Upstreams that clients sign in to without the header `Authorization`.
pub fn settings(upstream: &Upstream, lines: &str) -> Settings {
    settings_to(&upstream.url("/v1/chat"), lines)
}

pub fn settings_to(url: &str, lines: &str) -> Settings {
    let route = "path = \"/ws/chat/{conversation_id}/\"\nchannel = \"chat_{conversation_id}\"\nupstream = \"worker\"\n\
                 auth = [\"connection_token\", \"cookie\", \"anonymous\"]\n";
    Settings::new()
        .section("reload", "watch = \"0s\"")
        .route(route)
        .upstream("worker", &format!("kind = \"http\"\nurl = {url:?}\n{lines}"))
}

/// Connects with headers of a handshake, up to the `connected` event.
pub async fn opened(gateway: &Gateway, headers: &[(&str, &str)]) -> Client {
    let mut client = Client::open(gateway.addr(), PATH, headers).await;
    client.next_event("connected").await;
    client
}

/// Sends a message that the upstream takes, and returns what it got.
pub async fn sent(client: &mut Client, upstream: &Upstream, message: &str) -> Recorded {
    client.send_text(message).await;
    client.next_event("task_queued").await;
    upstream.next_request().await
}

/// Sends a message that is refused, and returns the code and the text of the error.
pub async fn refused(client: &mut Client, message: &str) -> (Value, Value) {
    client.send_text(message).await;
    let error = client.next_event("error").await;
    (error["code"].clone(), error["error"].clone())
}

pub fn hello() -> String {
    json!({"message": "hello", "id": "m1"}).to_string()
}
