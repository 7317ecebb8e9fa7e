//! Routes with `protocol = "pass"`: the upstream's handshake and every frame are those of the client.

mod bad_upstreams;
mod dead_upstreams;
mod frames;
mod handshake;
mod large;
mod lifecycle;
mod stalls;
mod strangers;
mod tls;

use crate::rig::raw::handshake;
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, Settings};

/// A pass route at `/app/{name}` without a channel, for everybody. `more` are further keys of it.
pub fn pass(url: &str, more: &str) -> Settings {
    Settings::new()
        .section("origins", "missing = \"allow\"\nallow = [\"https://app.example.com\"]")
        .upstream("app", &format!("kind = \"websocket\"\nurl = {url:?}"))
        .route(&format!(
            "path = \"/app/{{name}}\"\nprotocol = \"pass\"\nupstream = \"app\"\n\
             auth = [\"connection_token\", \"anonymous\"]\n{more}\n"
        ))
}

/// Limits that no test of another matter exceeds.
pub const UNLIMITED: &str = "max_message_bytes = 0\n[route.limits]\n\
    messages_per_connection = \"off\"\nframes_per_connection = \"off\"";

/// Opens a connection, and returns both its ends.
pub async fn pair(gateway: &Gateway, server: &RawServer) -> (RawClient, RawPeer) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake("/app/x", &[]).as_bytes()).await;
    let peer = server.open().await;
    let head = client.read_head().await;
    assert_eq!(head.status, 101, "{head:?}");
    (client, peer)
}

/// Starts a gateway and opens a connection.
pub async fn start(more: &str) -> (Gateway, RawServer, RawClient, RawPeer) {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), more)).await;
    let (client, peer) = pair(&gateway, &server).await;
    (gateway, server, client, peer)
}
