//! What counts as one client in the limits per address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the network of an IPv6 address: one customer has all the addresses of a network, and would
/// pass every limit that counts each of them on its own. An IPv4 address in its IPv6 form is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    V4(Ipv4Addr),
    /// The first address of the network, and how many of its bits are the network's.
    V6(Ipv6Addr, u8),
}

impl ClientNetwork {
    /// The network of `ip`, whose first `ipv6_prefix` bits are the network's if it is an IPv6 address.
    pub fn of(ip: IpAddr, ipv6_prefix: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let prefix = ipv6_prefix.min(128);
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or_default();
                Self::V6(Ipv6Addr::from_bits(ip.to_bits() & mask), prefix)
            }
        }
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip, prefix) => write!(f, "{ip}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests;
