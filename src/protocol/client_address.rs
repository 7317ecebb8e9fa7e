//! The address that a request comes from: the peer's, or the one that trusted proxies report.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

/// The number of hops in `X-Forwarded-For` that are read.
const MAX_HOPS: usize = 32;

/// The address that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The address of the client.
    pub ip: IpAddr,
    /// The address of the other end of the connection.
    pub peer: IpAddr,
    /// The peer of the connection is a trusted proxy, so its forwarding headers count.
    pub through_proxy: bool,
    /// The connection has TLS, so that the scheme is https unless a trusted proxy says otherwise.
    pub has_tls: bool,
}

impl ClientAddress {
    /// Reads `X-Forwarded-For` from the right, over trusted hops, up to the first that is not trusted. Entries
    /// further left, and the headers of an untrusted peer, could be forged.
    pub fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
        let peer = peer.to_canonical();
        if !is_trusted(peer) {
            return Self { ip: peer, peer, through_proxy: false, has_tls: false };
        }
        let mut client = peer;
        let hops = headers
            .get_all("x-forwarded-for")
            .iter()
            .rev()
            // What a client wrote before the address that the proxy added need not be text.
            .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
            .take(MAX_HOPS);
        for hop in hops {
            let Some(ip) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else {
                break;
            };
            client = ip;
            if !is_trusted(ip) {
                break;
            }
        }
        Self { ip: client, peer, through_proxy: true, has_tls: false }
    }

    /// The same address, of a connection with or without TLS.
    pub fn over_tls(self, has_tls: bool) -> Self {
        Self { has_tls, ..self }
    }

    /// The scheme of requests on the connection itself.
    pub fn scheme(&self) -> &'static str {
        if self.has_tls { "https" } else { "http" }
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
