//! Frames of clients, which are masked, and frames for them.

use std::hint::black_box;

use tidegate::internals::delivery::frame;
use tidegate::internals::{Decoder, Incoming, Proceed};

use super::count;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX_MESSAGE: usize = 1 << 20;

/// Text of ASCII and of longer characters, as messages of people are.
fn text(bytes: usize) -> String {
    let mut text = "Grüße aus Köln: how is the weather today? ".repeat(bytes / 40 + 1);
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Counts the parsing of a message, whose frames are read in these pieces.
fn parse(name: &str, times: usize, message: &[Vec<u8>]) {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    // Parsing unmasks in place, so that each piece is read once.
    let mut pieces = message.iter().cycle().take(message.len() * times * 2).cloned();
    let mut pieces = (0..2).map(|_| pieces.by_ref().take(message.len() * times).collect());
    let mut messages = 0;
    count(name, times, || {
        let mut unread: Vec<Vec<u8>> = pieces.next().expect("pieces for two calls");
        for piece in &mut unread {
            let fed = decoder.feed(piece, &mut |incoming| {
                if matches!(black_box(incoming), Incoming::Text(_) | Incoming::Binary(_)) {
                    messages += 1;
                }
                Proceed::Parse
            });
            assert!(fed.is_ok());
        }
    });
    assert_eq!(messages, 2 * times);
}

pub fn run() {
    parse("parse a text frame of 64 bytes", 256, &[masked(0x81, text(64).as_bytes())]);
    parse("parse a text frame of 64 KiB", 4, &[masked(0x81, text(65_536).as_bytes())]);
    parse("parse a binary frame of 64 KiB", 4, &[masked(0x82, &[7; 65_536])]);
    let long = text(65_536);
    let last = long.len().div_ceil(4096) - 1;
    let fragments: Vec<_> = long
        .as_bytes()
        .chunks(4096)
        .enumerate()
        .map(|(at, part)| {
            let opcode = if at == 0 { 0x01 } else { 0x00 };
            masked(opcode | if at == last { 0x80 } else { 0 }, part)
        })
        .collect();
    parse("parse a text message of 64 KiB in 16 fragments", 4, &fragments);
    // As the kernel may split it: in the middle of the head, of a character and of the mask.
    let split: Vec<_> =
        masked(0x81, text(1024).as_bytes()).chunks(201).map(<[u8]>::to_vec).collect();
    parse("parse a text frame of 1 KiB in 6 reads", 64, &split);
    for (name, bytes, times) in [
        ("encode a text frame of 256 bytes", 256, 256),
        ("encode a text frame of 64 KiB", 65_536, 4),
    ] {
        let text = text(bytes);
        count(name, times, || {
            (0..times).for_each(|_| drop(black_box(frame::text(black_box(&text)))));
        });
    }
}
