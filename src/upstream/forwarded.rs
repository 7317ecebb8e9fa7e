//! The headers and cookies of a client's handshake that its messages are sent with.

use std::fmt;
use std::sync::Arc;

use hyper::header::{CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue};

use crate::config::ForwardedNames;
use crate::protocol::header_has_token;

/// What is kept of a handshake for as long as its connection. It may be credentials, so that it has no readable debug
/// output. Invariant: it is no larger than [`Forwarded::MAX_BYTES`].
pub struct Forwarded {
    headers: Box<[(HeaderName, HeaderValue)]>,
    /// Pairs such as `name=value`, as they were sent.
    cookies: Box<[Box<[u8]>]>,
}

/// The headers and cookies of a handshake that an upstream asks for are too large to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl Forwarded {
    /// The most bytes of names and values.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Copies what `names` asks for out of a handshake, so that the rest of its head can be freed. `None` if there is
    /// nothing of it.
    pub fn read(
        names: &ForwardedNames,
        handshake: &HeaderMap,
    ) -> Result<Option<Arc<Self>>, TooLarge> {
        // What the client's `Connection` names is for the gateway alone (RFC 9110 section 7.6.1).
        let is_of_connection =
            |name: &HeaderName| header_has_token(handshake, &CONNECTION, name.as_str());
        let passed = names.headers.iter().filter(|name| !is_of_connection(name));
        let headers = passed.flat_map(|name| {
            let values = handshake.get_all(name).iter();
            values.filter_map(|value| Some((name.clone(), copy(value)?)))
        });
        let cookies = handshake.get_all(COOKIE).iter();
        let cookies = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let cookies = cookies.map(<[u8]>::trim_ascii).filter(|pair| names_cookie(names, pair));
        let kept = Self { headers: headers.collect(), cookies: cookies.map(Box::from).collect() };
        if kept.bytes() > Self::MAX_BYTES {
            return Err(TooLarge);
        }
        let is_empty = kept.headers.is_empty() && kept.cookies.is_empty();
        Ok((!is_empty).then(|| Arc::new(kept)))
    }

    /// The bytes of all names and values.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        headers.sum::<usize>() + self.cookies.iter().map(|pair| pair.len()).sum::<usize>()
    }

    /// Adds what `names` still asks for to the headers of a request: they may have changed since the handshake.
    pub(super) fn add_to(&self, names: &ForwardedNames, request: &mut HeaderMap) {
        // A header takes the place of the gateway's own, with all its values.
        let asked = || self.headers.iter().filter(|(name, _)| names.headers.contains(name));
        asked().for_each(|(name, _)| drop(request.remove(name)));
        for (name, value) in asked() {
            request.append(name, value.clone());
        }
        let cookies = self.cookies.iter().map(|pair| &**pair);
        let cookies: Vec<&[u8]> = cookies.filter(|pair| names_cookie(names, pair)).collect();
        if !cookies.is_empty()
            && let Ok(mut value) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
        {
            value.set_sensitive(true);
            request.insert(COOKIE, value);
        }
    }
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Copies a value out of the buffer that it was read into, which it would keep alive.
fn copy(value: &HeaderValue) -> Option<HeaderValue> {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    copy.set_sensitive(true);
    Some(copy)
}

/// Whether `names` has the cookie in `name=value`. Without a `=` it has no name.
fn names_cookie(names: &ForwardedNames, pair: &[u8]) -> bool {
    let Some(end) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let name = pair[..end].trim_ascii();
    names.cookies.iter().any(|cookie| cookie.as_bytes() == name)
}

#[cfg(test)]
mod tests;
