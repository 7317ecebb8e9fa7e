//! The origin of the pages that a server itself serves, as the client sees it.

use hyper::HeaderMap;
use hyper::header::HOST;

use super::Origin;

/// Returns the origins that a page of this server can have: the scheme, host and port that the request was made for.
/// `through_proxy`: the peer is a trusted proxy, so its headers say what the client asked for. Without one the scheme is
/// `scheme`, that of the gateway's own port. There are two where a proxy reports the port apart from a host
/// without one, because some report their own port there.
pub fn own_origins(
    headers: &HeaderMap,
    through_proxy: bool,
    scheme: &'static str,
) -> impl Iterator<Item = Origin> {
    let own_scheme = scheme;
    let forwarded = |name| through_proxy.then(|| first_of(headers, name)).flatten();
    let host = forwarded("x-forwarded-host").or_else(|| headers.get(HOST)?.to_str().ok());
    let scheme = forwarded("x-forwarded-proto");
    let scheme = match scheme.map(str::to_ascii_lowercase).as_deref() {
        None => Some(own_scheme),
        Some("http" | "ws") => Some("http"),
        Some("https" | "wss") => Some("https"),
        Some(_) => None,
    };
    let port = forwarded("x-forwarded-port").filter(|_| host.is_some_and(|host| !has_port(host)));
    let own = |port: Option<&str>| {
        let (scheme, host) = (scheme?, host?);
        match port {
            None => Origin::of_server(&format!("{scheme}://{host}")),
            Some(port) => Origin::of_server(&format!("{scheme}://{host}:{port}")),
        }
    };
    own(None).into_iter().chain(port.and_then(|port| own(Some(port))))
}

/// The first of the values that several proxies have written, each behind those before it.
fn first_of<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    let first = headers.get(name)?.to_str().ok()?.split(',').next()?.trim();
    (!first.is_empty()).then_some(first)
}

/// Whether `host` names a port, behind an IPv6 address in brackets or another host.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':')
}

#[cfg(test)]
mod tests;
