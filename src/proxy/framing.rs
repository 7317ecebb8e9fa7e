//! How an answer of the upstream says where its body ends (RFC 9112 section 6). The HTTP library reads the body, but
//! leaves what the headers say to whoever passes them on.

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};

/// The answer has transfer codings that cannot be taken off: the client would take an encoded body for a plain one.
#[derive(Debug)]
pub(super) struct UnknownCoding;

/// Makes the headers say the same as the body: `Transfer-Encoding` overrides `Content-Length`, and one length is sent
/// once.
pub(super) fn unify(response: &mut Response<Incoming>) -> Result<(), UnknownCoding> {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        _ => return Err(UnknownCoding),
    }
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    } else if response.headers().contains_key(CONTENT_LENGTH) {
        // The answer to HEAD, or 304, has the length of a body that is not sent.
        let sent = response.body().size_hint().exact().filter(|length| *length > 0);
        let length = sent.or_else(|| common_length(response));
        let headers = response.headers_mut();
        match length {
            Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
            None => drop(headers.remove(CONTENT_LENGTH)),
        }
    }
    Ok(())
}

/// The length that all headers of an answer name.
fn common_length<B>(response: &Response<B>) -> Option<u64> {
    let mut lengths = response.headers().get_all(CONTENT_LENGTH).iter().flat_map(|value| {
        value.to_str().unwrap_or_default().split(',').map(|length| {
            let length = length.trim();
            // Parsing a number takes a sign as well.
            length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok()).flatten()
        })
    });
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}
