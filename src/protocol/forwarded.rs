//! `Forwarded` (RFC 7239) beside `X-Forwarded-*`: the two ways in which proxies say for whom a request is.
//!
//! A proxy that sets one of them passes on what the client wrote in the other. So one is believed, and the rest of the
//! gateway sees it as `X-Forwarded-*`.
//!
//! Invariant: what a client wrote in front of a trusted proxy's element, whatever it is, changes nothing of how that is
//! read. Elements are therefore read from the right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{ClientAddress, is_host};

/// The number of elements that are read.
const MAX_HOPS: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Which headers the trusted proxies set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// Whichever a request has. If it has both, they must agree.
    Auto,
    XForwardedFor,
    Forwarded,
}

/// The two ways name different clients. Neither is believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Disagreement;

/// What `Forwarded` says for whom a request is, as far as trusted proxies have written it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarding {
    /// From the client to the gateway.
    chain: Vec<IpAddr>,
    /// Whether a trusted proxy says that it does not tell the address, or malformed.
    is_hidden: bool,
    proto: Option<&'static str>,
    host: Option<HeaderValue>,
}

/// Turns the headers of a request from `peer` into `X-Forwarded-*`, if it is a trusted proxy. After a disagreement it has
/// none.
pub fn unify_forwarding(
    headers: &mut HeaderMap,
    peer: IpAddr,
    trusted: &[IpNet],
    header: ForwardingHeader,
) -> Result<(), Disagreement> {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
    let has_forwarded = headers.contains_key(FORWARDED);
    if !is_trusted(peer.to_canonical()) || (!has_forwarded && header != ForwardingHeader::Forwarded)
    {
        return Ok(());
    }
    let is_both = has_forwarded && headers.contains_key(X_FORWARDED_FOR);
    match header {
        ForwardingHeader::XForwardedFor => {
            headers.remove(FORWARDED);
        }
        ForwardingHeader::Auto if is_both => {
            let forwarding = Forwarding::read(headers, is_trusted);
            let client = ClientAddress::resolve(peer, headers, trusted);
            if !forwarding.agrees(client, headers) {
                for name in [FORWARDED, X_FORWARDED_FOR] {
                    headers.remove(name);
                }
                remove_details(headers);
                return Err(Disagreement);
            }
            // What a client may have added to it is not passed on.
            headers.remove(FORWARDED);
            if let Some(element) = named_client(headers, client) {
                headers.insert(FORWARDED, element);
            }
        }
        ForwardingHeader::Auto | ForwardingHeader::Forwarded => {
            let forwarding = Forwarding::read(headers, is_trusted);
            headers.remove(X_FORWARDED_FOR);
            remove_details(headers);
            forwarding.write(headers);
        }
    }
    Ok(())
}

/// Removes the headers that belong to `X-Forwarded-For`.
fn remove_details(headers: &mut HeaderMap) {
    for name in [X_FORWARDED_HOST, X_FORWARDED_PROTO, X_FORWARDED_PORT] {
        headers.remove(name);
    }
}

/// Adds this hop to `Forwarded`, and the client that a trusted proxy has named in `X-Forwarded-For` only. The header of a
/// stranger must have been removed.
pub fn append_forwarded(headers: &mut HeaderMap, client: ClientAddress) {
    let mut chain: Vec<HeaderValue> = headers.get_all(FORWARDED).iter().cloned().collect();
    if chain.is_empty() {
        chain.extend(named_client(headers, client));
    }
    let host = headers.get(HOST).filter(|host| is_host(host.as_bytes())).cloned();
    chain.extend(element(client.peer, host.as_ref(), Some(client.scheme())));
    let chain: Vec<&[u8]> = chain.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&chain.join(&b", "[..])) {
        headers.insert(FORWARDED, value);
    }
}

/// The element of the client that `X-Forwarded-*` names, if it is not the peer itself.
fn named_client(headers: &HeaderMap, client: ClientAddress) -> Option<HeaderValue> {
    if client.ip == client.peer {
        return None;
    }
    let host = first_of(headers, &X_FORWARDED_HOST).filter(|host| is_host(host.as_bytes()));
    let host = host.and_then(|host| HeaderValue::from_str(host).ok());
    let proto = first_of(headers, &X_FORWARDED_PROTO).and_then(scheme);
    element(client.ip, host.as_ref(), proto)
}

fn element(ip: IpAddr, host: Option<&HeaderValue>, proto: Option<&str>) -> Option<HeaderValue> {
    let mut element = match ip {
        IpAddr::V4(ip) => format!("for={ip}").into_bytes(),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\"").into_bytes(),
    };
    if let Some(host) = host {
        element.extend_from_slice(&[b";host=\"", host.as_bytes(), b"\""].concat());
    }
    if let Some(proto) = proto {
        element.extend_from_slice(format!(";proto={proto}").as_bytes());
    }
    HeaderValue::from_bytes(&element).ok()
}

impl Forwarding {
    /// Reads up to the first element whose address is not that of a trusted proxy.
    fn read(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        let mut forwarding = Self::default();
        let values = headers.get_all(FORWARDED).iter().rev();
        let elements = values.flat_map(|value| from_the_right(value.as_bytes(), b','));
        for text in elements.take(MAX_HOPS) {
            let Some(element) = Element::parse(text) else {
                forwarding.is_hidden = true;
                break;
            };
            (forwarding.proto, forwarding.host) = (element.proto, element.host);
            match element.node {
                Some(Some(ip)) => {
                    forwarding.chain.insert(0, ip);
                    if !is_trusted(ip) {
                        break;
                    }
                }
                Some(None) => {
                    forwarding.is_hidden = true;
                    break;
                }
                None => break,
            }
        }
        forwarding
    }

    /// Whether what `X-Forwarded-*` says is no other client, scheme or host.
    fn agrees(&self, client: ClientAddress, headers: &HeaderMap) -> bool {
        let proto = first_of(headers, &X_FORWARDED_PROTO);
        let host = first_of(headers, &X_FORWARDED_HOST);
        let is_same = |ours: Option<&[u8]>, theirs: Option<&str>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs.as_bytes()),
            _ => true,
        };
        let names_client = match self.chain.first() {
            Some(ip) => !self.is_hidden && *ip == client.ip,
            None => !self.is_hidden,
        };
        names_client
            && is_same(self.proto.map(str::as_bytes), proto)
            && is_same(self.host.as_ref().map(HeaderValue::as_bytes), host)
    }

    fn write(self, headers: &mut HeaderMap) {
        let chain: Vec<String> = self.chain.iter().map(IpAddr::to_string).collect();
        if !chain.is_empty()
            && let Ok(chain) = HeaderValue::from_str(&chain.join(", "))
        {
            headers.insert(X_FORWARDED_FOR, chain);
        }
        if let Some(proto) = self.proto {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        }
        if let Some(host) = self.host {
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
}

/// One element: what a proxy says of the request that it got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    /// `Some(None)` = an address that is not told.
    node: Option<Option<IpAddr>>,
    proto: Option<&'static str>,
    host: Option<HeaderValue>,
}

impl Element {
    /// `None` = malformed (RFC 7239 section 4). A parameter must not occur twice.
    fn parse(text: &[u8]) -> Option<Self> {
        let (mut element, mut names) = (Self::default(), Vec::new());
        for pair in from_the_right(text, b';') {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let name = HeaderName::from_bytes(&pair[..equals]).ok()?;
            if names.contains(&name) {
                return None;
            }
            let value = unquoted(&pair[equals + 1..])?;
            match name.as_str() {
                "for" => element.node = Some(node(&value)?),
                "proto" => element.proto = scheme(&value),
                "host" if is_host(value.as_bytes()) => {
                    element.host = HeaderValue::from_str(&value).ok();
                }
                "host" => return None,
                _ => {}
            }
            names.push(name);
        }
        Some(element)
    }
}

/// Splits at the separators outside of quoted strings, from the right. Empty parts are left out. Where quotes do not
/// match, the parts right of the last one that does are as they were written.
fn from_the_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let mut is_quoted = false;
            let found = (0..text.len()).rev().find(|at| match text[*at] {
                b'"' if is_quoted => {
                    let escapes = text[..*at].iter().rev().take_while(|byte| **byte == b'\\');
                    is_quoted = escapes.count() % 2 == 1;
                    false
                }
                b'"' => {
                    is_quoted = true;
                    false
                }
                byte => byte == separator && !is_quoted,
            });
            rest = found.map(|at| &text[..at]);
            let part = found.map_or(text, |at| &text[at + 1..]).trim_ascii();
            if !part.is_empty() {
                return Some(part);
            }
        }
    })
}

/// The value of a parameter. Values that are neither quoted nor a token, such as `1.2.3.4:80`, are taken as they are,
/// because proxies write them.
fn unquoted(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?;
    let Some(rest) = value.strip_prefix('"') else {
        let is_fine = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        return (!value.is_empty() && value.bytes().all(is_fine)).then(|| value.to_owned());
    };
    let (mut text, mut characters) = (String::new(), rest.strip_suffix('"')?.chars());
    while let Some(character) = characters.next() {
        text.push(match character {
            '"' => return None,
            '\\' => characters.next()?,
            character => character,
        });
    }
    Some(text)
}

/// A node (RFC 7239 section 6). `Some(None)` = an address that is not told: `unknown` or an obfuscated identifier.
fn node(text: &str) -> Option<Option<IpAddr>> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let ip = IpAddr::V6(address.parse::<Ipv6Addr>().ok()?);
            return is_node_port(port).then_some(Some(ip.to_canonical()));
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if !is_node_port(port) {
        return None;
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    Some(Some(IpAddr::V4(name.parse::<Ipv4Addr>().ok()?)))
}

/// Nothing, or a colon with a number or an obfuscated port.
fn is_node_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| {
            let is_number =
                (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
            is_number || is_obfuscated(port)
        })
}

fn is_obfuscated(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_fine))
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https", "ws", "wss"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text))
}

/// The first of the values that several proxies have written.
fn first_of<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let first = headers.get(name)?.to_str().ok()?.split(',').next()?.trim();
    (!first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests;
