//! The outcome of a handshake, as a script in a browser would see it.

use super::rig::{Client, Event, Gateway};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `connected` was the first frame.
    Connected,
    /// Accepted, then closed with this code.
    Closed(u16),
    /// Refused with this HTTP status.
    Http(u16),
}

/// Connects, disconnects and returns the outcome.
pub async fn outcome(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Outcome {
    match attempt(gateway, path, headers).await {
        Ok(_client) => Outcome::Connected,
        Err(refused) => refused,
    }
}

/// Connects. Returns a client that has read its `connected` event, or how it was refused.
pub async fn attempt(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Client, Outcome> {
    let mut client = match Client::try_open(gateway.addr(), path, headers).await {
        Ok(client) => client,
        Err(refused) => return Err(Outcome::Http(refused.status)),
    };
    match client.next().await {
        Event::Text(text) if text.contains("\"event\":\"connected\"") => Ok(client),
        Event::Closed(code, _) => Err(Outcome::Closed(code.expect("a close code"))),
        Event::Text(_) => Err(Outcome::Closed(client.closed().await.expect("a close code"))),
        other => panic!("neither connected nor closed: {other:?}"),
    }
}
