//! Headers that a proxy must change: hop-by-hop headers, and those that describe the client.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Version};

use super::{
    ClientAddress, append_forwarded, header_has_token, header_list, is_identity_header,
    max_forwards, random_hex, remove_identity_headers,
};

const MAX_REQUEST_ID_BYTES: usize = 128;

/// Connection-level headers (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a header belongs to one connection, so that no proxy passes it on.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Removes the hop-by-hop headers, those that `Connection` names, and `TE` except for `trailers`. `Host` is
/// kept whatever `Connection` says, because it selects the application, and so are the headers that say who the client
/// is: a client could take them away from a proxy that has set them.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = header_list(headers, &header::CONNECTION)
        .filter_map(|name| name.parse().ok())
        .filter(|name| *name != header::HOST && !is_identity_header(name))
        .collect();
    let takes_trailers = header_has_token(headers, &header::TE, "trailers");
    for name in named.iter().chain(&HOP_BY_HOP).chain([&header::TE]) {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // TE is itself a header of the connection (RFC 9110 section 10.1.4).
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Adds the gateway to the chain of intermediaries (RFC 9110 section 7.6.3). `received` is the version of the client's
/// request.
pub fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 tidegate",
        Version::HTTP_2 => "2 tidegate",
        _ => "1.1 tidegate",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// Counts this pass of a request that says how often it may be passed on. The listener answers those that may not.
pub fn count_forward(method: &Method, headers: &mut HeaderMap) {
    if let Some(left) = max_forwards(method, headers) {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
}

/// Removes from a request's trailers what must not come from a client there: an application may merge them with the
/// headers.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_identity_headers(trailers, false);
    for name in [
        header::HOST,
        header::AUTHORIZATION,
        header::COOKIE,
        header::TE,
        header::CONNECTION,
        X_REQUEST_ID,
    ] {
        trailers.remove(name);
    }
}

/// Sets the `X-Forwarded-*` headers and the request id. Those of an untrusted peer are replaced; those of a
/// trusted proxy are kept and extended, and so is its `Forwarded`.
pub fn set_forwarded(headers: &mut HeaderMap, client: ClientAddress) {
    remove_identity_headers(headers, client.through_proxy);
    let mut chain = Vec::new();
    for value in headers.get_all(&X_FORWARDED_FOR) {
        // What a client wrote before the address that a proxy added need not be text.
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.peer.to_string().as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme()));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if headers.contains_key(header::FORWARDED) {
        append_forwarded(headers, client);
    }
    if !headers.get(&X_REQUEST_ID).is_some_and(is_valid_request_id)
        && let Ok(id) = HeaderValue::from_str(&random_hex(16))
    {
        headers.insert(X_REQUEST_ID, id);
    }
}

fn is_valid_request_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests;
