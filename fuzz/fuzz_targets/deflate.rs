//! permessage-deflate: offers of clients, and compressed messages. However the bytes of a client are split, they are read
//! as the same messages, none larger than allowed, and end in the same error. The first byte chooses what is read and the
//! largest message, the second how the rest is split.
#![no_main]

use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use libfuzzer_sys::fuzz_target;
use tidegate::internals::{CloseReason, Decoder, DeflateTerms, Incoming, Proceed};

fuzz_target!(|bytes: &[u8]| {
    let &[choice, cut, ref rest @ ..] = bytes else { return };
    if choice & 1 == 0 {
        return negotiate(rest);
    }
    let max_message = usize::from(choice) * 64;
    let unsplit = read(rest, max_message, rest.len().max(1));
    assert_eq!(unsplit, read(rest, max_message, usize::from(cut).max(1)));
    assert!(unsplit.0.iter().all(|(_, payload)| payload.len() <= max_message.max(125)));
});

/// What is answered is a valid offer of the same terms. The fields are the lines of the bytes.
fn negotiate(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for field in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(field) else { continue };
        headers.append(SEC_WEBSOCKET_EXTENSIONS, value);
    }
    let Some(terms) = DeflateTerms::accept_first(&headers) else { return };
    assert!((8..=15).contains(&terms.server_window_bits()));
    let answer = terms.response().expect("a header");
    let offered = headers.values().any(|value| {
        value.as_bytes().windows(18).any(|part| part == b"permessage-deflate")
    });
    assert!(offered);
    headers.clear();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, answer);
    assert_eq!(DeflateTerms::accept_first(&headers), Some(terms));
}

/// The messages and control frames before a close or an error.
fn read(
    stream: &[u8],
    max_message: usize,
    step: usize,
) -> (Vec<(&'static str, Vec<u8>)>, Option<CloseReason>) {
    let mut decoder = Decoder::new(max_message);
    decoder.allow_compressed();
    let mut received = Vec::new();
    for piece in stream.chunks(step) {
        let mut piece = piece.to_vec();
        let mut is_closed = false;
        let fed = decoder.feed(&mut piece, &mut |incoming| {
            received.push(match incoming {
                Incoming::Text(text) => ("text", text.as_bytes().to_vec()),
                Incoming::Binary(bytes) => ("binary", bytes.to_vec()),
                Incoming::Ping(bytes) => ("ping", bytes.to_vec()),
                Incoming::Pong => ("pong", Vec::new()),
                Incoming::SmallFragment => return Proceed::Parse,
                Incoming::Close(_) => {
                    is_closed = true;
                    ("close", Vec::new())
                }
            });
            Proceed::Parse
        });
        if fed.is_err() || is_closed {
            return (received, fed.err());
        }
    }
    (received, None)
}
