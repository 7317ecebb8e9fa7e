//! WebSocket frames: however the bytes are split, they are read as the same messages and end in the same
//! error, and are passed on as the same frames. The first byte chooses the largest message, the second how the rest is
//! split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::internals::{
    CloseReason, Decoder, FrameScanner, Incoming, MAX_KEPT, Proceed, ScanFault, Scanned,
};

#[derive(Debug, PartialEq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<(u16, String)>),
}

fuzz_target!(|bytes: &[u8]| {
    let &[size, cut, ref stream @ ..] = bytes else { return };
    let max_message = usize::from(size) * 64;
    let unsplit = read(stream, max_message, stream.len().max(1));
    let cut_up = read(stream, max_message, usize::from(cut).max(1));
    assert_eq!(unsplit, cut_up);
    for received in &unsplit.0 {
        let length = match received {
            Received::Text(text) => text.len(),
            Received::Binary(bytes) => bytes.len(),
            Received::Ping(bytes) => {
                assert!(bytes.len() <= 125);
                0
            }
            Received::Close(Some((code, reason))) => {
                assert!(reason.len() <= 123 && (1000..5000).contains(code));
                0
            }
            Received::Pong | Received::Close(None) => 0,
        };
        assert!(length <= max_message);
    }
    // What is passed on, with other masks, is read as the same messages; only its text is not checked.
    let (passed, fault) = pass(stream, max_message, usize::from(cut).max(1));
    let (again, fault_again) = read(&passed, max_message, passed.len().max(1));
    assert!(again.starts_with(&unsplit.0) || unsplit.0.starts_with(&again));
    let has_closed = matches!(unsplit.0.last(), Some(Received::Close(_)));
    if unsplit.1.is_none() && !has_closed {
        assert_eq!((again, fault_again, fault), (unsplit.0, None, None));
    }
});

/// The bytes that are passed on before a fault.
fn pass(stream: &[u8], max_message: usize, step: usize) -> (Vec<u8>, Option<ScanFault>) {
    let mut scanner = FrameScanner::of_client();
    let mut passed = Vec::new();
    for piece in stream.chunks(step) {
        let mut buffer = vec![0; MAX_KEPT];
        buffer.extend(piece);
        let start = MAX_KEPT - scanner.restore(&mut buffer[..MAX_KEPT]);
        let mut rest = &mut buffer[start..];
        loop {
            match scanner.next(rest, max_message) {
                Ok(Scanned::Data { length, .. } | Scanned::Control { length, .. }) => {
                    passed.extend_from_slice(&rest[..length]);
                    rest = &mut rest[length..];
                }
                Ok(Scanned::Partial) => break,
                Err(fault) => return (passed, Some(fault)),
            }
        }
        scanner.keep(rest);
    }
    (passed, None)
}

/// The messages before a close or an error.
fn read(stream: &[u8], max_message: usize, step: usize) -> (Vec<Received>, Option<CloseReason>) {
    let mut decoder = Decoder::new(max_message);
    let mut received = Vec::new();
    for piece in stream.chunks(step) {
        let mut piece = piece.to_vec();
        let fed = decoder.feed(&mut piece, &mut |incoming| {
            received.push(match incoming {
                Incoming::Text(text) => Received::Text(text.to_owned()),
                Incoming::Binary(bytes) => Received::Binary(bytes.to_vec()),
                Incoming::Ping(bytes) => Received::Ping(bytes.to_vec()),
                Incoming::Pong => Received::Pong,
                Incoming::SmallFragment => return Proceed::Parse,
                Incoming::Close(close) => {
                    Received::Close(close.map(|(code, reason)| (code, reason.to_owned())))
                }
            });
            Proceed::Parse
        });
        if let Err(fault) = fed {
            return (received, Some(fault));
        }
        if matches!(received.last(), Some(Received::Close(_))) {
            break;
        }
    }
    (received, None)
}
