//! The text that the demo prints when it is ready: its addresses, and commands to paste.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use crate::cli::print_line;
use crate::cli::server_api::ServerApi;
use crate::config::Secret;
use crate::gateway::Addresses;

/// The conversation of the printed commands.
const CONVERSATION: &str = "demo";

/// The values of the printed commands. A connection token works once, so each command has its own.
pub struct Banner {
    public: String,
    admin: String,
    api_key: String,
    websocat_token: String,
    python_token: String,
}

impl Banner {
    /// Requests the tokens from the gateway, as any server would.
    pub fn request(addresses: Addresses, api_key: &Secret) -> Result<Self, String> {
        let api = ServerApi::new(addresses.admin, Some(api_key));
        let token = || {
            api.issue_token(&json!({
                "user_id": 1,
                "username": "ana",
                "channels": [format!("chat_{CONVERSATION}")],
            }))
        };
        Ok(Self {
            public: reachable(addresses.public),
            admin: reachable(addresses.admin),
            api_key: api_key.expose().to_owned(),
            websocat_token: token()?,
            python_token: token()?,
        })
    }

    pub fn print(&self) {
        print_line(self.text());
    }

    fn text(&self) -> String {
        let Self { public, admin, api_key, websocat_token, python_token } = self;
        let socket = format!("ws://{public}/ws/chat/{CONVERSATION}/?connection_token=");
        let publish = json!({
            "channel": format!("chat_{CONVERSATION}"),
            "data": {"event": "notice", "text": "hello from a server"},
        });
        let token = json!({"user_id": 1, "channels": [format!("chat_{CONVERSATION}")]});
        let post = format!("curl -H 'Authorization: Bearer {api_key}' http://{admin}/v1");
        format!(
            r#"Tidegate demo is running. Open this page, in two tabs to see the fan-out:
  http://{public}/#{CONVERSATION}

Connect from a terminal, then type {{"message":"hello"}}. Each token works once, within 10 minutes:
  websocat '{socket}{websocat_token}'
  python3 -c 'from websockets.sync.client import connect; ws = connect("{socket}{python_token}"); ws.send("{{\"message\":\"hello\"}}"); [print(frame, flush=True) for frame in ws]'

Publish from a server, and issue another token:
  {post}/publish -d '{publish}'
  {post}/tokens -d '{token}'

Metrics:
  http://{admin}/metrics

Press Ctrl-C to stop."#
        )
    }
}

/// The address for clients on this machine.
fn reachable(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("127.0.0.1:{}", address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("[::1]:{}", address.port()),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
