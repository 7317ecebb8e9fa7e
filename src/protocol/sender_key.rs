//! Who sends messages, for counts that one person must not fill alone.

use std::net::{IpAddr, Ipv6Addr};

use super::UserId;

/// A user, or for anonymous clients the network that they come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SenderKey {
    User(UserId),
    /// An IPv4 address, or the /64 network of an IPv6 address, in which one customer has all addresses.
    Network(IpAddr),
}

impl SenderKey {
    pub fn new(user_id: Option<&UserId>, address: IpAddr) -> Self {
        match (user_id, address.to_canonical()) {
            (Some(user), _) => Self::User(user.clone()),
            (None, IpAddr::V6(ip)) => {
                Self::Network(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into())
            }
            (None, ip) => Self::Network(ip),
        }
    }
}
