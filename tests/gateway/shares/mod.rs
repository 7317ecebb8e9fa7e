//! Nobody takes what belongs to others: one user or one address does its worst, and the others notice nothing.

mod admin;
mod authorize;
mod frames;
mod histories;
mod memory;
mod proxied;
mod requests;
mod tokens;
mod upstreams;

use serde_json::json;

use crate::rig::{Client, Gateway};

/// The client addresses of a gateway that trusts its peers as proxies.
pub const BEHIND_PROXY: &str =
    "listen = \"127.0.0.1:0\"\nthreads = 2\ntrusted_proxies = [\"127.0.0.1\"]";

/// How many others there are.
const OTHERS: u8 = 50;

/// The address of another client, as a header of a trusted proxy.
pub fn address(number: u8) -> (&'static str, String) {
    ("x-forwarded-for", format!("192.0.2.{number}"))
}

/// 50 anonymous clients of other addresses connect, each on its own channel. `send` does for each what such clients do.
pub async fn others_are_served(gateway: &Gateway, send: impl AsyncFn(&mut Client, u8)) {
    for number in 1..=OTHERS {
        let (name, address) = address(number);
        let path = format!("/ws/chat/other{number}/");
        let mut client = Client::open(gateway.addr(), &path, &[(name, &address)]).await;
        client.next_event("connected").await;
        send(&mut client, number).await;
    }
}

/// A client sends a message, which is relayed, and receives a publication.
pub async fn send_and_receive(gateway: &Gateway, client: &mut Client, number: u8) {
    client.send_json(&json!({"message": "hello", "id": "a"})).await;
    let queued = client.next_json().await;
    assert_eq!(queued["event"], "task_queued", "{queued}");
    gateway.publish(&format!("chat_other{number}"), json!({"event": "news"})).await;
    client.next_event("news").await;
}
