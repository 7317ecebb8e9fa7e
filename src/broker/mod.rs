//! Subscribe and publish. Owns which channels this node hears from the engine and the order of
//! SUBSCRIBE and UNSUBSCRIBE.

use bytes::Bytes;

use crate::protocol::ChannelName;

/// Why a publication was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// Over `max_publication_bytes`.
    TooLarge,
    /// The engine cannot be reached.
    EngineDown,
}

/// Publishes from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {}

impl Publisher {
    /// Hands `json` to the engine, to be delivered as it is to every subscriber of `channel` on every
    /// node. Two calls awaited one after the other arrive in that order.
    pub async fn publish(&self, channel: &ChannelName, json: Bytes) -> Result<(), PublishError> {
        let _ = (channel, json);
        todo!()
    }
}
