//! The lists of channels and connections of all nodes, from the server API.

use std::collections::HashMap;

use serde::Deserialize;

/// Channels and connections of all nodes.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    pub channels: Vec<Channel>,
    pub connections: Vec<Connection>,
    /// Whether there are more than fit in one response, or a node did not respond.
    pub is_partial: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Channel {
    pub channel: String,
    pub connections: u64,
    #[serde(default)]
    pub epoch: Option<String>,
    #[serde(default)]
    pub offset: Option<u64>,
    /// Publications per second; `None` if the channel keeps no history.
    #[serde(skip)]
    pub publications: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Connection {
    pub connection_id: String,
    #[serde(default)]
    pub user_id: Option<serde_json::Value>,
    #[serde(default)]
    pub channel: Option<String>,
    pub route: String,
    pub node: String,
    pub address: String,
    /// In Unix seconds.
    pub connected_at: u64,
    pub send_queue_bytes: u64,
}

/// The response to `GET /v1/channels`.
#[derive(Deserialize)]
pub struct ChannelList {
    pub channels: Vec<Channel>,
    pub next_cursor: Option<serde_json::Value>,
    pub complete: bool,
}

/// The response to `GET /v1/connections`.
#[derive(Deserialize)]
pub struct ConnectionList {
    pub connections: Vec<Connection>,
    pub next_cursor: Option<serde_json::Value>,
    pub complete: bool,
}

impl Lists {
    pub fn new(channels: ChannelList, connections: ConnectionList) -> Self {
        let is_partial = !channels.complete
            || !connections.complete
            || channels.next_cursor.is_some()
            || connections.next_cursor.is_some();
        Self { channels: channels.channels, connections: connections.connections, is_partial }
    }

    /// Computes the publication rates since `before` from the offsets of the channels.
    pub fn set_rates(&mut self, before: &Self, seconds: f64) {
        let known: HashMap<&str, &Channel> =
            before.channels.iter().map(|channel| (channel.channel.as_str(), channel)).collect();
        for channel in &mut self.channels {
            let before = known.get(channel.channel.as_str());
            let before = before.filter(|before| before.epoch == channel.epoch);
            channel.publications = before.and_then(|before| {
                let published = channel.offset?.checked_sub(before.offset?)?;
                (seconds > 0.0).then(|| published as f64 / seconds)
            });
        }
    }
}

#[cfg(test)]
mod tests;
