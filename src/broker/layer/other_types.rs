//! The types of messages that are for this node's channels and are not forwarded, each of which is logged once: a
//! type that is missing in `types` looks like a worker that publishes nothing.

use std::collections::HashSet;

use crate::protocol::ChannelName;
use crate::telemetry;

/// The most types that are logged. A backend has a few; further ones are only counted.
const MAX_TYPES: usize = 32;

/// The most characters of a type that are logged.
const MAX_CHARS: usize = 100;

#[derive(Default)]
pub(super) struct OtherTypes(HashSet<String>);

impl OtherTypes {
    /// Notes a message of a type that is not forwarded; `None` = it has no type.
    pub fn record(&mut self, message_type: Option<&str>, channel: &ChannelName) {
        let name: String = message_type.unwrap_or_default().chars().take(MAX_CHARS).collect();
        if self.0.len() < MAX_TYPES && !self.0.contains(&name) {
            telemetry::channel_layer::type_not_forwarded(&name, channel);
            self.0.insert(name);
        }
    }
}

#[cfg(test)]
mod tests;
