//! Whom a bound or a rate is counted for, where anonymous clients count as well.

use std::fmt;
use std::net::IpAddr;

use super::{ClientNetwork, UserId};

/// A signed-in user, or the anonymous clients of one address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientKey {
    User(UserId),
    Anonymous(ClientNetwork),
}

impl ClientKey {
    /// `ipv6_prefix` is `[limits] ipv6_prefix`.
    pub fn of(user: Option<&UserId>, address: IpAddr, ipv6_prefix: u8) -> Self {
        match user {
            Some(user) => Self::User(user.clone()),
            None => Self::Anonymous(ClientNetwork::of(address, ipv6_prefix)),
        }
    }
}

/// Texts of different clients differ.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user:{user}"),
            Self::Anonymous(network) => write!(f, "ip:{network}"),
        }
    }
}
