//! Who sends messages, for counts that one person must not fill alone.

use std::fmt;
use std::net::IpAddr;

use super::{ClientNetwork, ConnectionId, UserId};

/// A user, or for anonymous clients the network that they come from; or the connection, where addresses tell nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SenderKey {
    User(UserId),
    Network(ClientNetwork),
    Connection(ConnectionId),
}

impl SenderKey {
    /// `ipv6_prefix` is `[limits] ipv6_prefix`.
    pub fn new(user_id: Option<&UserId>, address: IpAddr, ipv6_prefix: u8) -> Self {
        match user_id {
            Some(user) => Self::User(user.clone()),
            None => Self::Network(ClientNetwork::of(address, ipv6_prefix)),
        }
    }
}

/// Texts of different senders differ.
impl fmt::Display for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Network(network) => write!(f, "ip:{network}"),
            Self::Connection(connection) => write!(f, "connection:{connection}"),
        }
    }
}
