//! The defaults of the limits that depend on the protocol.

use crate::config::Protocol;

/// The limits of a chat suit no other application.
#[derive(Clone, Copy)]
pub struct Defaults {
    pub max_message_bytes: &'static str,
    pub messages_per_user: &'static str,
    pub messages_per_connection: &'static str,
    pub connects_per_user: &'static str,
    pub frames_per_connection: &'static str,
}

impl Defaults {
    pub const JSON: Self = Self {
        // A page of a chat may send its whole history.
        max_message_bytes: "1MiB",
        messages_per_user: "50/1h",
        messages_per_connection: "10/1s burst 20",
        connects_per_user: "30/1m",
        frames_per_connection: "200/1s burst 2000",
    };

    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => Self::JSON,
            // A slow upstream slows its client down, and a page may open several sockets.
            Protocol::Raw => Self {
                max_message_bytes: "1MiB",
                messages_per_user: "off",
                messages_per_connection: "off",
                connects_per_user: "120/1m",
                frames_per_connection: Self::JSON.frames_per_connection,
            },
            // Nothing is held here, so that only what the upstream takes bounds its clients.
            Protocol::Pass => Self {
                max_message_bytes: "64MiB",
                messages_per_user: "off",
                messages_per_connection: "off",
                connects_per_user: "120/1m",
                frames_per_connection: "off",
            },
        }
    }
}
