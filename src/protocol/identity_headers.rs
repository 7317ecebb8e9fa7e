//! The headers by which proxies and gateways tell applications who a client is, what it asked for and which trace it
//! belongs to. A stranger who sets one takes the place of somebody else.
//!
//! Applications do not all see the same name: CGI and WSGI servers turn every character of a name that is not a letter
//! or a digit into `_`, so `X_Forwarded_For` and `X-Forwarded-For` are one variable to them.

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// Headers that only the gateway sets, or nobody. A proxy in front passes on what a client wrote in them, so they are
/// not accepted from trusted proxies either. `Proxy` becomes `HTTP_PROXY` in the environment of CGI programs.
const NEVER_ACCEPTED: [&str; 1] = ["proxy"];
const NEVER_ACCEPTED_PREFIXES: [&str; 1] = ["x-tidegate-"];

/// Headers that only a trusted proxy may set.
const FROM_TRUSTED_PROXIES: [&str; 52] = [
    // The address of the client.
    "forwarded",
    "x-forwarded",
    "forwarded-for",
    "x-forward-for",
    "x-original-forwarded-for",
    "x-real-ip",
    "x-real-port",
    "real-ip",
    "x-client-ip",
    "client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "x-true-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-remote-port",
    "remote-addr",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-proxyuser-ip",
    "x-envoy-external-address",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-nf-client-connection-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "fastly-client-ip",
    "fly-client-ip",
    "do-connecting-ip",
    "cdn-loop",
    // What the client asked for.
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "front-end-https",
    // The user, where a proxy has authenticated it.
    "remote-user",
    "x-remote-user",
    "x-forwarded-user",
    "client-cert",
    "client-cert-chain",
    // The request and its trace.
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "sentry-trace",
    "uber-trace-id",
];
const FROM_TRUSTED_PROXIES_PREFIXES: [&str; 8] = [
    "x-forwarded-",
    "x-remote-user-",
    "x-auth-request-",
    "x-ssl-client-",
    "ssl-client-",
    "x-b3-",
    "x-datadog-",
    "x-amzn-",
];

/// Whether `name` tells an application who a client is, what it asked for, or which trace it belongs to.
pub fn is_identity_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_never_accepted(name)
        || FROM_TRUSTED_PROXIES.iter().any(|listed| is_same(name, listed))
        || FROM_TRUSTED_PROXIES_PREFIXES.iter().any(|prefix| has_prefix(name, prefix))
}

/// Removes the headers of a request that its sender may not set. A trusted proxy may set those that proxies use, by
/// their own names; any other spelling of them comes from the client behind it.
pub fn remove_identity_headers(headers: &mut HeaderMap, from_trusted_proxy: bool) {
    let is_refused = |name: &&HeaderName| {
        is_identity_header(name)
            && !(from_trusted_proxy && is_plain(name.as_str()) && !is_never_accepted(name.as_str()))
    };
    let refused: Vec<HeaderName> = headers.keys().filter(is_refused).cloned().collect();
    for name in refused {
        headers.remove(name);
    }
}

fn is_never_accepted(name: &str) -> bool {
    NEVER_ACCEPTED.iter().any(|listed| is_same(name, listed))
        || NEVER_ACCEPTED_PREFIXES.iter().any(|prefix| has_prefix(name, prefix))
}

/// Whether the name has no other characters than those of the lists.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether an application may take `name` for `listed`. Header names are in lower case here.
fn is_same(name: &str, listed: &str) -> bool {
    name.len() == listed.len() && has_prefix(name, listed)
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    let fits = |(byte, listed): (u8, u8)| match listed {
        b'-' => !byte.is_ascii_alphanumeric(),
        listed => byte == listed,
    };
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(fits)
}

#[cfg(test)]
mod tests;
