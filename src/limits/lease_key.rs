//! The kinds, keys and holders of leases.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::LimitName;
use crate::protocol::{Bits128, ConnectionId, SenderKey};

/// What a lease counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// An open connection.
    Connection,
    /// A running generation.
    Generation,
}

impl LeaseKind {
    pub(super) fn limit(self) -> LimitName {
        match self {
            Self::Connection => LimitName::Connections,
            Self::Generation => LimitName::Generations,
        }
    }

    /// The part of the engine's keys that identifies the kind.
    fn key_part(self) -> &'static str {
        match self {
            Self::Connection => "conns",
            Self::Generation => "gens",
        }
    }
}

/// Identifies a group of leases that are limited together.
#[derive(Debug, Clone, Copy)]
pub struct LeaseKey<'a> {
    pub kind: LeaseKind,
    /// The path pattern of the route.
    pub route: &'a str,
    pub user: &'a str,
}

impl LeaseKey<'_> {
    pub(super) fn key(&self, prefix: &str) -> String {
        format!("{prefix}{}:{}:{}", self.kind.key_part(), self.route, self.user)
    }

    /// The key in the slot of the user's other limits.
    pub(super) fn key_in_cluster(&self, prefix: &str) -> String {
        format!("{prefix}{{{}}}:{}:{}", self.user, self.kind.key_part(), self.route)
    }
}

/// Identifies the holder of a lease: 128 bits, written as 32 hex digits. All are random; or the first half, which is
/// the same for all holders of one client, is a hash of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder(Bits128);

impl Holder {
    pub fn random() -> Self {
        Self(Bits128::random())
    }

    /// A new holder of `client`.
    pub fn random_of(client: &SenderKey) -> Self {
        let digest = Sha256::digest(client.to_string().as_bytes());
        let high = digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        Self(Bits128 { high, ..Bits128::random() })
    }

    /// Whether both are holders of the same client.
    pub(super) fn is_of_client_of(self, other: Self) -> bool {
        self.0.high == other.0.high
    }

    /// The beginning of the text of every holder of this one's client.
    pub(super) fn client_prefix(self) -> String {
        format!("{:016x}", self.0.high)
    }
}

impl From<ConnectionId> for Holder {
    fn from(connection: ConnectionId) -> Self {
        Self(connection.bits())
    }
}

/// The text is not 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHolder;

impl FromStr for Holder {
    type Err = InvalidHolder;

    fn from_str(text: &str) -> Result<Self, InvalidHolder> {
        let bits = Bits128::from_hex(text).filter(|_| text.len() == 32);
        bits.map(Self).ok_or(InvalidHolder)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
