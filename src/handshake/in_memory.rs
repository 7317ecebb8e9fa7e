//! A handshake on the memory engine and without rates, for fuzz targets.

use std::time::Duration;

use super::{Handshake, HandshakeLimits, Routes};
use crate::config::{ClientLimits, Config};
use crate::limits::{NewChannels, SharedLimits};
use crate::protocol::ReservedChannels;
use crate::tokens::{Authenticator, TokenStore};

impl Handshake {
    /// `reserved` begins the names that no client may join. `Err` names the configuration key that cannot be used.
    pub fn in_memory(config: &Config, reserved: &str) -> Result<Self, String> {
        let Config { routes, replies, origins, tokens, jwt, .. } = config;
        let store = TokenStore::memory(Duration::from_secs(60));
        let client = ClientLimits {
            connects_per_ip: None,
            requests_per_ip: None,
            channels_per_ip: None,
            ipv6_prefix: 64,
        };
        let limits = HandshakeLimits {
            shared: SharedLimits::memory(),
            new_channels: NewChannels::default(),
            client,
            tells_addresses_apart: true,
        };
        Self::new(
            Routes::new(routes, replies),
            origins,
            tokens,
            jwt,
            Authenticator::new(tokens, jwt, store)?,
            limits,
            ReservedChannels::new([reserved.to_owned()]),
        )
    }
}
