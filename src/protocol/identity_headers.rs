//! The headers by which proxies and gateways tell applications who a client is, what it asked for and which trace it
//! belongs to. A stranger who sets one takes the place of somebody else.
//!
//! Applications do not all see the same name: CGI and WSGI servers turn every character of a name that is not a letter
//! or a digit into `_`, so `X_Forwarded_For` and `X-Forwarded-For` are one variable to them.

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// Headers that only the gateway sets, or nobody. A proxy in front passes on what a client wrote in them, so they are
/// not accepted from trusted proxies either. `Proxy` becomes `HTTP_PROXY` in the environment of CGI programs.
const NEVER_ACCEPTED: &[&str] = &["proxy"];
const NEVER_ACCEPTED_PREFIXES: &[&str] = &["x-tidegate-"];

/// Headers whose other spellings are not accepted from anybody: an application that takes `Content_Length` for
/// `Content-Length` sees another body.
const FRAMING: &[&str] = &["content-length", "content-type", "transfer-encoding"];

/// Headers that only a trusted proxy may set.
const FROM_TRUSTED_PROXIES: &[&str] = &[
    // The address of the client.
    "forwarded",
    "x-forwarded",
    "forwarded-for",
    "x-forward-for",
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
    "remote-host",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-proxyuser-ip",
    "x-sucuri-clientip",
    "incap-client-ip",
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "cdn-real-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "do-connecting-ip",
    "cdn-loop",
    "x-original-for",
    "x-original-forwarded-for",
    "x-original-remote-addr",
    // What the client asked for.
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-method",
    "x-original-proto",
    "x-original-scheme",
    "x-original-host",
    "x-original-port",
    "x-original-prefix",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-forward-proto",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "script-name",
    "x-script-name",
    "path-info",
    // Which files the server in front reads in place of the application.
    "x-sendfile-type",
    "x-accel-mapping",
    // The user, where a proxy has authenticated it.
    "remote-user",
    "remote-name",
    "remote-email",
    "remote-groups",
    "x-remote-user",
    "x-remote-group",
    "x-client-cert",
    "client-cert",
    "client-cert-chain",
    "x-ms-client-principal",
    // The request and its trace.
    "x-request-id",
    "request-id",
    "correlation-context",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "sentry-trace",
    "uber-trace-id",
    "jaeger-debug-id",
    "jaeger-baggage",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "elastic-apm-traceparent",
    "newrelic",
    "x-dynatrace",
    "x-ot-span-context",
    "sw8",
];
const FROM_TRUSTED_PROXIES_PREFIXES: &[&str] = &[
    "x-forwarded-",
    "cf-",
    "cloudfront-",
    "fly-forwarded-",
    "x-appengine-",
    "x-arr-",
    "x-azure-",
    "x-envoy-",
    "x-nf-",
    "x-vercel-",
    "x-remote-user-",
    "x-remote-extra-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal-",
    "x-ms-token-",
    "x-pomerium-",
    "x-webauth-",
    "ms-aspnetcore-",
    "tailscale-user-",
    "x-ssl-",
    "ssl-client-",
    "x-amzn-",
    "x-b3-",
    "x-datadog-",
    "x-instana-",
    "uberctx-",
    "ot-tracer-",
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
        || (!is_plain(name) && FRAMING.iter().any(|listed| is_same(name, listed)))
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
