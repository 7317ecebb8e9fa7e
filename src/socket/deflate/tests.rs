use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;
use crate::protocol::CloseReason;
use crate::socket::Delivery;
use crate::socket::frame::Opcode;

const WINDOWS: [Window; 3] = [Window::Small, Window::Medium, Window::Large];

/// Reads DEFLATE data (RFC 1951), and how far it looks back. It is written for this test, so that what the compressor
/// makes is not only read by the library that made it.
mod reader {
    pub struct Read {
        pub bytes: Vec<u8>,
        pub largest_distance: usize,
    }

    struct Bits<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn take(&mut self, count: usize) -> Option<usize> {
            let mut value = 0;
            for bit in 0..count {
                let byte = *self.bytes.get(self.at / 8)?;
                value |= usize::from(byte >> (self.at % 8) & 1) << bit;
                self.at += 1;
            }
            Some(value)
        }
    }

    /// A Huffman table: how many codes have each length, and the symbols in the order of their codes.
    struct Table {
        counts: [usize; 16],
        symbols: Vec<usize>,
    }

    impl Table {
        fn new(lengths: &[usize]) -> Self {
            let mut counts = [0; 16];
            lengths.iter().for_each(|length| counts[*length] += 1);
            let mut symbols: Vec<usize> =
                (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
            symbols.sort_by_key(|symbol| lengths[*symbol]);
            Self { counts, symbols }
        }

        fn next(&self, bits: &mut Bits<'_>) -> Option<usize> {
            let (mut code, mut first, mut index) = (0, 0, 0);
            for count in &self.counts[1..] {
                code |= bits.take(1)?;
                if code < first + count {
                    return Some(self.symbols[index + code - first]);
                }
                index += count;
                first = (first + count) * 2;
                code *= 2;
            }
            None
        }
    }

    pub fn read(bytes: &[u8]) -> Option<Read> {
        let mut bits = Bits { bytes, at: 0 };
        let mut read = Read { bytes: Vec::new(), largest_distance: 0 };
        while bits.at + 3 <= bytes.len() * 8 {
            let is_last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => {
                    bits.at = bits.at.next_multiple_of(8);
                    let (length, complement) = (bits.take(16)?, bits.take(16)?);
                    assert_eq!(length, !complement & 0xffff);
                    let start = bits.at / 8;
                    read.bytes.extend_from_slice(bytes.get(start..start + length)?);
                    bits.at += length * 8;
                }
                1 => {
                    let lengths = (0..288).map(|symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    });
                    let lengths: Vec<usize> = lengths.collect();
                    block(&mut bits, &Table::new(&lengths), &Table::new(&[5; 30]), &mut read)?;
                }
                2 => {
                    let (literals, distances) = tables(&mut bits)?;
                    block(&mut bits, &literals, &distances, &mut read)?;
                }
                _ => return None,
            }
            if is_last {
                break;
            }
        }
        Some(read)
    }

    fn tables(bits: &mut Bits<'_>) -> Option<(Table, Table)> {
        let (literals, distances) = (bits.take(5)? + 257, bits.take(5)? + 1);
        let codes = bits.take(4)? + 4;
        let mut lengths = vec![0; 19];
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        for &at in &order[..codes] {
            lengths[at] = bits.take(3)?;
        }
        let (table, mut all) = (Table::new(&lengths), Vec::new());
        while all.len() < literals + distances {
            let (value, count) = match table.next(bits)? {
                16 => (*all.last()?, 3 + bits.take(2)?),
                17 => (0, 3 + bits.take(3)?),
                18 => (0, 11 + bits.take(7)?),
                length => (length, 1),
            };
            all.extend(std::iter::repeat_n(value, count));
        }
        let distances = all.split_off(literals);
        Some((Table::new(&all), Table::new(&distances)))
    }

    fn block(
        bits: &mut Bits<'_>,
        literals: &Table,
        distances: &Table,
        read: &mut Read,
    ) -> Option<()> {
        loop {
            let symbol = literals.next(bits)?;
            let length = match symbol {
                0..256 => {
                    read.bytes.push(symbol as u8);
                    continue;
                }
                256 => return Some(()),
                257..265 => symbol - 254,
                265..285 => {
                    let extra = (symbol - 261) / 4;
                    ((4 + (symbol - 265) % 4) << extra) + 3 + bits.take(extra)?
                }
                _ => 258,
            };
            let code = distances.next(bits)?;
            let distance = match code {
                0..4 => code + 1,
                _ => {
                    let extra = code / 2 - 1;
                    ((2 + code % 2) << extra) + 1 + bits.take(extra)?
                }
            };
            read.largest_distance = read.largest_distance.max(distance);
            for _ in 0..length {
                read.bytes.push(*read.bytes.get(read.bytes.len().checked_sub(distance)?)?);
            }
        }
    }
}

/// Text in which what is repeated is at every distance.
fn repetitive(length: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut text = Vec::new();
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (from, count) = ((state >> 8) as usize, 3 + (state >> 28) as usize);
        match text.len() {
            at if at > 16 && state & 1 == 0 => {
                // Often near, and sometimes at the far end of the largest window.
                let distance = 1 + from % at.min(1 << (3 + from % 13));
                text.extend(
                    (0..count)
                        .map(|next| text[at - distance + next % distance])
                        .collect::<Vec<_>>(),
                );
            }
            _ => text.push(b'a' + (from % 26) as u8),
        }
    }
    text.truncate(length);
    text
}

fn compressed(payload: &[u8], window: Window) -> Option<Vec<u8>> {
    compress_payload(payload, window, <[u8]>::to_vec)
}

fn inflated(compressed: &[u8], max: usize) -> Result<Vec<u8>, CloseReason> {
    inflate(compressed, false, max, <[u8]>::to_vec)
}

#[test]
fn each_window_is_honoured() {
    for bits in 8..=15_u8 {
        let window = Window::within(bits);
        let mut largest = 0;
        for length in [300, 700, 5_000, 40_000, MAX_BYTES] {
            let text = repetitive(length);
            let form = compressed(&text, window).expect("smaller");
            assert!(form.len() < text.len());
            let read = reader::read(&[&form[..], &[0, 0, 0xff, 0xff]].concat()).expect("DEFLATE");
            assert!(read.bytes == text, "{bits} bits, {length} bytes");
            assert!(inflated(&form, length).unwrap() == text);
            largest = read.largest_distance.max(largest);
        }
        assert!(largest <= 1 << bits, "{bits} bits: looks back by {largest}");
        // It is used: otherwise the test would pass with no distance at all.
        assert!(largest > 1 << (window.bits() - 2), "{bits} bits: looks back by {largest}");
    }
}

/// Where the output of one block is about as large as the compressor's own buffer.
#[test]
fn any_length_is_compressed() {
    let mut state = 1_u64;
    let letters: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + ((state >> 33) % 16) as u8
    })
    .take(150_000)
    .collect();
    for length in (60_000..150_000).step_by(97).chain(65_500..65_600) {
        if let Some(form) = compressed(&letters[..length], Window::Large) {
            assert!(inflated(&form, length).unwrap() == letters[..length], "{length}");
        }
    }
}

/// zlib-rs panics if it is used again after it was left with output that had no room.
#[test]
fn what_cannot_be_compressed_does_no_harm_to_what_follows() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(MAX_BYTES)
    .collect();
    let text = repetitive(30_000);
    for window in WINDOWS {
        for round in 0..300 {
            let length = MIN_BYTES + round * 7;
            assert_eq!(compressed(&noise[round..round + length], window), None);
            let form = compressed(&text, window).expect("smaller");
            assert!(inflated(&form, text.len()).unwrap() == text, "{window:?}, round {round}");
        }
        assert_eq!(compressed(&noise, window), None);
        assert!(compressed(&text, window).is_some());
    }
}

#[test]
fn what_is_small_or_large_or_not_compressible_stays_as_it_is() {
    let noise: Vec<u8> = (0..1000_u64)
        .flat_map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 13).to_le_bytes())
        .collect();
    for payload in [vec![b'a'; MIN_BYTES - 1], vec![b'a'; MAX_BYTES + 1], noise] {
        let plain = frame::encode(Opcode::Binary, &payload);
        for window in WINDOWS {
            let mut delivery = Delivery::new(plain.clone(), None);
            assert!(delivery.for_window(window).frame == plain, "{}", payload.len());
            let mut frames = Vec::new();
            append(&mut frames, Opcode::Binary, &payload, Some(window));
            assert!(frames == plain);
        }
    }
    for length in [MIN_BYTES, MAX_BYTES] {
        let plain = frame::encode(Opcode::Text, &vec![b'a'; length]);
        let form = Delivery::new(plain.clone(), None).for_window(Window::Large).frame;
        assert!(form.len() < plain.len() && form[0] == 0xc1);
    }
}

#[test]
fn a_form_is_made_once_and_shared() {
    let plain = frame::text(&"the same ".repeat(100));
    let mut first = Delivery::new(plain.clone(), None);
    let negotiated = Negotiated::new(terms("permessage-deflate"));
    first.share_compressed();
    let mut second = first.clone();
    drop(negotiated);
    for window in WINDOWS {
        let (one, two) = (first.for_window(window), second.for_window(window));
        assert_eq!(one.frame.as_ptr(), two.frame.as_ptr());
        assert_eq!(one.frame.as_ptr(), first.for_window(window).frame.as_ptr());
        assert!(is_compressed(&one.frame) && !is_compressed(&plain));
        assert_eq!(inflate_own(&one.frame, <[u8]>::to_vec).unwrap(), frame::payload(&plain));
    }
    assert_eq!(first.frame, plain);
}

fn terms(offer: &'static str) -> DeflateTerms {
    let mut headers = hyper::HeaderMap::new();
    headers.insert("sec-websocket-extensions", hyper::header::HeaderValue::from_static(offer));
    DeflateTerms::accept_first(&headers).unwrap()
}

#[test]
fn messages_of_other_compressors_are_inflated() {
    // The examples of RFC 7692 section 7.2.3.
    for (name, bytes, expected) in [
        ("one block", "f248cdc9c90700", "Hello"),
        ("no compression", "000500faff48656c6c6f00", "Hello"),
        ("a final block", "f348cdc9c9070000", "Hello"),
        ("two blocks", "f2480500 0000ffff cac9c907 00", "Hello"),
        ("an empty message", "00", ""),
        // What zlib makes of nothing.
        ("an empty fixed block", "0200", ""),
        ("a final block alone", "f348cdc9c90700", "Hello"),
        ("two final blocks", "f348cdc9c90700f348cdc9c9070000", "HelloHello"),
        ("a final empty block of no compression", "000500faff48656c6c6f01", "Hello"),
        ("empty blocks", "00 0000ffff 00 0000ffff f248cdc9c90700", "Hello"),
    ] {
        let bytes = hex(bytes);
        assert_eq!(inflated(&bytes, 100).unwrap(), expected.as_bytes(), "{name}");
        assert_eq!(inflated(&bytes, expected.len()).unwrap(), expected.as_bytes(), "{name}");
        if let Some(max) = expected.len().checked_sub(1) {
            assert_eq!(inflated(&bytes, max), Err(CloseReason::MessageTooBig), "{name}");
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn data_that_is_not_valid_is_refused() {
    for (name, bytes) in [
        ("nothing", ""),
        ("a block type that does not exist", "06"),
        ("not DEFLATE", "ffffffff"),
        ("a length that is not its complement", "000500000048656c6c6f00"),
        ("a block that has not ended", "f248cdc9"),
        ("a stored block that has not ended", "000900f6ff48656c6c6f"),
        // The end that is added must not become a part of the message.
        ("a stored block that takes four bytes more", "000900f6ff48656c6c6f00"),
        ("a final stored block that takes nine bytes more", "010e00f1ff48656c6c6f"),
        ("a distance that is too far", "02020000"),
        ("a byte after the end", "f348cdc9c9070000ff"),
        ("only the end itself", "000000ffff01"),
    ] {
        let result = inflated(&hex(bytes), 1000);
        // The last of them is valid: two empty blocks, one of them final.
        match name {
            "only the end itself" => assert_eq!(result, Ok(Vec::new())),
            _ => assert_eq!(result, Err(CloseReason::InvalidCompression), "{name}"),
        }
    }
    let many_ends = hex("0300").repeat(1000);
    assert_eq!(inflated(&many_ends, 1000), Err(CloseReason::InvalidCompression));
}

#[test]
fn what_inflates_to_too_much_is_refused_while_it_does() {
    let bomb = by_library(&vec![0; 16 << 20], 9);
    assert!(bomb.len() < 20_000);
    for max in [0, 1, 1000, 16 * 1024 - 1, 16 * 1024, 1 << 20] {
        assert_eq!(inflated(&bomb, max), Err(CloseReason::MessageTooBig), "{max}");
    }
    // No more than the limit was ever there, and nothing of it is kept.
    let max = 1 << 20;
    let info = allocation_counter::measure(|| assert!(inflated(&bomb, max).is_err()));
    assert!(info.bytes_max <= 3 * max as u64, "{info:?}");
    assert!(info.bytes_current <= KEPT_BYTES as i64, "{info:?}");
}

use super::inflater::KEPT_BYTES;

#[test]
fn text_is_checked_as_it_is_inflated() {
    let mut text = "grüße ".repeat(10_000).into_bytes();
    let good = by_library(&text, 6);
    assert!(inflate(&good, true, text.len(), <[u8]>::to_vec).unwrap() == text);
    // Found before the message is too large.
    text[100] = 0xff;
    let bad = by_library(&text, 6);
    assert_eq!(inflate(&bad, true, 30_000, |_| ()), Err(CloseReason::InvalidUtf8));
    assert!(inflate(&bad, false, text.len(), |_| ()).is_ok());
}

fn by_library(payload: &[u8], level: u32) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut output = Vec::with_capacity(payload.len() * 2 + 1000);
    compress.compress_vec(payload, &mut output, FlushCompress::Sync).unwrap();
    assert_eq!(compress.total_in(), payload.len() as u64);
    output.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap().to_vec()
}

proptest! {
    #[test]
    fn what_is_compressed_is_inflated(
        words in proptest::collection::vec("[a-d]{1,6}", 100..600),
        bits in 8..16_u8,
        level in 0..10_u32,
    ) {
        let payload = words.concat().into_bytes();
        let max = payload.len();
        if let Some(form) = compressed(&payload, Window::within(bits)) {
            prop_assert!(form.len() < payload.len());
            prop_assert_eq!(&inflated(&form, max).unwrap(), &payload);
            prop_assert!(inflated(&form, max - 1).is_err());
        }
        let other = by_library(&payload, level);
        prop_assert_eq!(&inflated(&other, max).unwrap(), &payload);
        // A part of it is not valid, wherever it is cut off.
        prop_assert!(inflated(&other[..other.len() / 2], max).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(payload) = inflated(&bytes, 10_000) {
            prop_assert_eq!(&inflated(&bytes, payload.len()).unwrap(), &payload);
        }
    }
}
