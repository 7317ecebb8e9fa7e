//! Reads calls of `POST /v1/publish` in the form in which HTTP clients write them, without the HTTP library: this takes a
//! tenth of the time, and servers make more of these calls than of all others.
//!
//! Invariant: what is read here, the library would read as the same request. Whatever is unusual, wrong or large is left
//! to the library, with its checks and its answers. A fuzz target holds the two to each other.

use std::ops::Range;

use crate::protocol::is_host;

const REQUEST_LINE: &[u8] = b"POST /v1/publish HTTP/1.1\r\n";

/// A call with more headers is left to the library.
const MAX_HEADERS: usize = 32;

/// A larger call is left to the library, in bytes of head and body.
pub(super) const MAX_CALL_BYTES: usize = 64 * 1024;

/// What is at the front of the bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    Call(PublishCall<'a>),
    /// A call that is not complete, and has at least this many bytes.
    Partial {
        length: usize,
        has_head: bool,
    },
    /// Something that is left to the library.
    Other,
}

/// A complete call.
#[derive(Debug, PartialEq, Eq)]
pub struct PublishCall<'a> {
    pub authorization: Option<&'a str>,
    pub api_key: Option<&'a str>,
    /// Where the body is in the bytes. The call ends with it.
    pub body: Range<usize>,
}

/// Reads what is at the front of `bytes`.
pub fn front(bytes: &[u8]) -> Front<'_> {
    let shared = bytes.len().min(REQUEST_LINE.len());
    if bytes[..shared] != REQUEST_LINE[..shared] {
        return Front::Other;
    }
    if shared < REQUEST_LINE.len() {
        return Front::Partial { length: REQUEST_LINE.len(), has_head: false };
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(&bytes[shared..], &mut headers) {
        Ok(httparse::Status::Complete((length, headers))) => {
            call(bytes.len(), shared + length, headers).unwrap_or(Front::Other)
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_CALL_BYTES => {
            Front::Partial { length: bytes.len() + 1, has_head: false }
        }
        Ok(httparse::Status::Partial) | Err(_) => Front::Other,
    }
}

/// The call with a head of `head` bytes, of which `available` bytes are there; `None` if it is left to the library.
fn call<'a>(available: usize, head: usize, headers: &[httparse::Header<'a>]) -> Option<Front<'a>> {
    let (mut host, mut length, mut authorization, mut api_key) = (None, None, None, None);
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => set(&mut host, is_host(header.value).then_some(())?)?,
            14 if is("content-length") => set(&mut length, content_length(header.value)?)?,
            13 if is("authorization") => set(&mut authorization, text(header.value)?)?,
            9 if is("x-api-key") => set(&mut api_key, text(header.value)?)?,
            10 if is("connection") && !header.value.eq_ignore_ascii_case(b"keep-alive") => {
                return None;
            }
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            17 if is("transfer-encoding") => return None,
            _ => {}
        }
    }
    host?;
    let end = head.checked_add(length?)?;
    if end > MAX_CALL_BYTES {
        return None;
    }
    if available < end {
        return Some(Front::Partial { length: end, has_head: true });
    }
    Some(Front::Call(PublishCall { authorization, api_key, body: head..end }))
}

/// Sets a header that may occur once; `None` if it occurs twice.
fn set<T>(header: &mut Option<T>, value: T) -> Option<()> {
    header.replace(value).is_none().then_some(())
}

/// The text of a header's value if it is visible ASCII, as the library has it.
fn text(value: &[u8]) -> Option<&str> {
    let is_visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    std::str::from_utf8(value).ok().filter(|_| is_visible)
}

fn content_length(value: &[u8]) -> Option<usize> {
    let is_short_number = (1..=8).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_short_number)?.parse().ok()
}

#[cfg(test)]
mod tests;
