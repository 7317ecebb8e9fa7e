use super::*;

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    frame
}

fn run(bytes: &[u8], size: usize, max: usize) -> (Vec<String>, Option<CloseReason>) {
    run_with(&mut Decoder::new(max), bytes, size)
}

fn run_with(
    decoder: &mut Decoder,
    bytes: &[u8],
    size: usize,
) -> (Vec<String>, Option<CloseReason>) {
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let fed = decoder.feed(&mut piece, &mut |event| {
            events.push(match event {
                Incoming::Text(text) => format!("text {text}"),
                Incoming::Binary(bytes) => format!("binary {}", bytes.len()),
                Incoming::Ping(bytes) => format!("ping {}", bytes.len()),
                Incoming::Pong => "pong".into(),
                Incoming::Close(close) => format!("close {close:?}"),
                Incoming::SmallFragment => return Proceed::Parse,
            });
            Proceed::Parse
        });
        if let Err(reason) = fed {
            return (events, Some(reason));
        }
    }
    (events, None)
}

#[test]
fn events_do_not_depend_on_how_the_bytes_are_split() {
    let stream = [
        masked(0x81, "grüße".as_bytes()),
        masked(0x01, "🚀 wi".as_bytes()),
        masked(0x89, b"now"),
        masked(0x00, b""),
        masked(0x80, "th 🚀".as_bytes()),
        masked(0x82, &[1; 300]),
        masked(0x8a, b""),
        masked(0x82, &vec![2; 70_000]),
        masked(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let whole = run(&stream, stream.len(), 100_000);
    assert_eq!(whole.1, None);
    assert_eq!(
        whole.0,
        [
            "text grüße",
            "ping 3",
            "text 🚀 with 🚀",
            "binary 300",
            "pong",
            "binary 70000",
            "close Some((1000, \"bye\"))"
        ]
    );
    for size in [1, 2, 3, 5, 7, 64, 1000] {
        assert_eq!(run(&stream, size, 100_000), whole, "by {size}");
    }
}

#[test]
fn frames_that_the_rfc_forbids_are_refused() {
    use CloseReason::{InvalidUtf8, MessageTooBig, ProtocolError};
    let cases: Vec<(&str, Vec<u8>, CloseReason)> = vec![
        ("unmasked", vec![0x81, 1, b'a'], ProtocolError),
        ("rsv1", masked(0xc1, b"a"), ProtocolError),
        ("reserved opcode", masked(0x83, b"a"), ProtocolError),
        ("reserved control opcode", masked(0x8b, b"a"), ProtocolError),
        ("fragmented ping", masked(0x09, b"a"), ProtocolError),
        ("long ping", masked(0x89, &[0; 126]), ProtocolError),
        ("16-bit length of 125", vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], ProtocolError),
        (
            "64-bit length of 65535",
            [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &[0; 4]].concat(),
            ProtocolError,
        ),
        (
            "64-bit length with its top bit",
            [&[0x82, 0xff][..], &[0xff; 8], &[0; 4]].concat(),
            ProtocolError,
        ),
        ("continuation of nothing", masked(0x80, b"a"), ProtocolError),
        (
            "message inside a message",
            [masked(0x01, b"a"), masked(0x81, b"b")].concat(),
            ProtocolError,
        ),
        (
            "head of a message too big",
            [&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &[0; 4]].concat(),
            MessageTooBig,
        ),
        (
            "fragments too big",
            [masked(0x02, &[0; 60_000]), masked(0x00, &[0; 60_000])].concat(),
            MessageTooBig,
        ),
        ("bad text", masked(0x81, b"a\xff"), InvalidUtf8),
        ("text that ends inside a character", masked(0x81, b"\xe2\x82"), InvalidUtf8),
        (
            "bad text before its frame ends",
            masked(0x81, b"\xf4\x90\x80\x80aaaa")[..9].to_vec(),
            InvalidUtf8,
        ),
        ("close of one byte", masked(0x88, b"\x03"), ProtocolError),
        ("close code 999", masked(0x88, &999u16.to_be_bytes()), ProtocolError),
        ("close code 1005", masked(0x88, &1005u16.to_be_bytes()), ProtocolError),
        ("close code 1015", masked(0x88, &1015u16.to_be_bytes()), ProtocolError),
        ("close code 5000", masked(0x88, &5000u16.to_be_bytes()), ProtocolError),
        ("close reason not UTF-8", masked(0x88, b"\x03\xe8\xff"), InvalidUtf8),
    ];
    for (name, bytes, reason) in cases {
        for size in [bytes.len(), 1] {
            assert_eq!(run(&bytes, size, 100_000).1, Some(reason), "{name} by {size}");
        }
    }
}

#[test]
fn no_memory_is_reserved_for_bytes_not_yet_received() {
    let mut decoder = Decoder::new(1 << 30);
    let mut head = [&[0x82, 0xff, 0, 0, 0, 0, 0x20, 0, 0, 0][..], &[0; 4], &[0; 10]].concat();
    decoder.feed(&mut head, &mut |_| Proceed::Parse).unwrap();
    assert!((10..1024).contains(&decoder.buffered_bytes()));
}

/// Feeds `bytes` in pieces of `size`, answering the event number `at` with `proceed`. Returns the events by name.
fn run_until(bytes: &[u8], size: usize, at: usize, proceed: Proceed) -> Vec<&'static str> {
    let mut decoder = Decoder::new(100_000);
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let fed = decoder.feed(&mut piece, &mut |event| {
            events.push(match event {
                Incoming::Text(_) => "text",
                Incoming::Binary(_) => "binary",
                Incoming::Ping(_) => "ping",
                Incoming::Pong => "pong",
                Incoming::Close(_) => "close",
                Incoming::SmallFragment => "fragment",
            });
            if events.len() > at { proceed } else { Proceed::Parse }
        });
        fed.unwrap();
    }
    assert!(decoder.kept.is_none_or(|parser| parser.message.is_none()));
    events
}

#[test]
fn small_fragments_are_reported_and_large_ones_and_whole_messages_are_not() {
    let stream = [
        masked(0x81, b""),
        masked(0x01, b""),
        masked(0x00, &[b'a'; 63]),
        masked(0x00, &[b'a'; 64]),
        masked(0x8a, b""),
        masked(0x80, b""),
        masked(0x02, &[0; 64]),
        masked(0x80, &[0; 64]),
    ]
    .concat();
    let expected = ["text", "fragment", "fragment", "pong", "fragment", "text", "binary"];
    for size in [stream.len(), 1, 7] {
        assert_eq!(run_until(&stream, size, usize::MAX, Proceed::Parse), expected);
    }
}

#[test]
fn while_messages_are_skipped_only_control_frames_and_a_count_of_the_others_are_passed_on() {
    let stream = [
        masked(0x81, b"last"),
        // Neither in order, nor UTF-8, nor within the size of a message.
        masked(0x00, b"\xff"),
        masked(0x81, &vec![0xff; 200_000]),
        masked(0x89, b"now"),
        masked(0x01, b"never finished"),
        masked(0x88, b"\x03\xe8"),
    ]
    .concat();
    let expected = ["text", "fragment", "fragment", "ping", "fragment", "close"];
    for size in [stream.len(), 1, 1000] {
        assert_eq!(run_until(&stream, size, 0, Proceed::SkipMessages), expected);
    }
}

#[test]
fn nothing_is_parsed_once_the_rest_is_discarded() {
    let stream = [masked(0x81, b"last"), masked(0x8a, b""), vec![0xff; 100]].concat();
    for size in [stream.len(), 1] {
        assert_eq!(run_until(&stream, size, 0, Proceed::Discard), ["text"]);
    }
}

/// Like [`run`], where compression was negotiated.
fn run_compressed(bytes: &[u8], size: usize, max: usize) -> (Vec<String>, Option<CloseReason>) {
    let mut decoder = Decoder::new(max);
    decoder.allow_compressed();
    run_with(&mut decoder, bytes, size)
}

/// `Hello`, compressed (RFC 7692 section 7.2.3.1).
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

#[test]
fn compressed_messages_are_read_as_plain_ones() {
    let stream = [
        masked(0xc1, HELLO),
        masked(0x81, b"plain"),
        masked(0x41, &HELLO[..3]),
        masked(0x89, b"now"),
        masked(0x00, b""),
        masked(0x80, &HELLO[3..]),
        masked(0x42, b""),
        masked(0x80, HELLO),
        masked(0xc1, &[0]),
        // A compressed message can be larger than what it inflates to.
        masked(0xc2, &[&[0x00, 0x00, 0x00, 0xff, 0xff].repeat(10)[..], HELLO].concat()),
        masked(0x01, b"pl"),
        masked(0x80, b"ain"),
    ]
    .concat();
    let expected = [
        "text Hello",
        "text plain",
        "ping 3",
        "text Hello",
        "binary 5",
        "text ",
        "binary 5",
        "text plain",
    ];
    for size in [1, 2, 3, 5, 7, 64, stream.len()] {
        let (events, fault) = run_compressed(&stream, size, 5);
        assert_eq!((fault, &events[..]), (None, &expected.map(str::to_owned)[..]), "by {size}");
    }
}

#[test]
fn what_permessage_deflate_forbids_is_refused() {
    use CloseReason::{InvalidCompression, InvalidUtf8, MessageTooBig, ProtocolError};
    let begin = masked(0x41, &HELLO[..3]);
    let bits = |first: u8| masked(first, HELLO);
    let after = |begin: &[u8], next: Vec<u8>| [begin, &next].concat();
    for (name, bytes, reason) in [
        ("RSV1 on a continuation", after(&begin, bits(0xc0)), ProtocolError),
        ("RSV1 on a continuation that is not the last", after(&begin, bits(0x40)), ProtocolError),
        (
            "RSV1 on a continuation of a plain message",
            after(&masked(0x01, b"a"), bits(0xc0)),
            ProtocolError,
        ),
        ("RSV1 on a ping", masked(0xc9, b""), ProtocolError),
        ("RSV1 on a pong", masked(0xca, b""), ProtocolError),
        ("RSV1 on a close", masked(0xc8, b"\x03\xe8"), ProtocolError),
        ("RSV2", bits(0xa1), ProtocolError),
        ("RSV3", bits(0x91), ProtocolError),
        ("RSV1 and RSV2", bits(0xe1), ProtocolError),
        ("a new message inside one", after(&begin, bits(0xc1)), ProtocolError),
        ("data that is not DEFLATE", masked(0xc1, &[0xff; 9]), InvalidCompression),
        ("nothing", masked(0xc1, b""), InvalidCompression),
        ("a message that is cut off", masked(0xc1, &HELLO[..4]), InvalidCompression),
        // A stored block with a byte that is not UTF-8.
        ("text that is not UTF-8", masked(0xc1, &[0, 1, 0, 0xfe, 0xff, 0xff, 0]), InvalidUtf8),
        (
            "text that ends in a code point",
            masked(0xc1, &[0, 1, 0, 0xfe, 0xff, 0xc3, 0]),
            InvalidUtf8,
        ),
        ("six bytes", masked(0xc1, &[0, 6, 0, 0xf9, 0xff, 1, 2, 3, 4, 5, 6, 0]), MessageTooBig),
        ("a frame that is larger than any form", masked(0xc1, &[0; 70]), MessageTooBig),
        ("frames that are larger", after(&begin, masked(0x00, &[0; 70])), MessageTooBig),
    ] {
        for size in [bytes.len(), 1] {
            let (events, fault) = run_compressed(&bytes, size, 5);
            assert_eq!((events.len(), fault), (0, Some(reason)), "{name} by {size}");
        }
    }
    // Without compression, no frame may have the bit.
    assert_eq!(run(&bits(0xc1), 1, 1000).1, Some(ProtocolError));
    assert_eq!(run(&begin, 1, 1000).1, Some(ProtocolError));
}

#[test]
fn only_what_was_received_of_a_compressed_message_is_kept() {
    let mut decoder = Decoder::new(1 << 20);
    decoder.allow_compressed();
    let mut bomb = flate2::Compress::new(flate2::Compression::best(), false);
    let mut data = Vec::with_capacity(10_000);
    bomb.compress_vec(&vec![0; 1 << 20], &mut data, flate2::FlushCompress::Sync).unwrap();
    let mut frame = masked(0xc2, data.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap());
    let (last, most) = frame.split_last_mut().unwrap();
    decoder.feed(most, &mut |_| panic!("not complete")).unwrap();
    assert!((1..4 * most.len()).contains(&decoder.buffered_bytes()));
    let mut length = 0;
    let message = &mut |incoming: Incoming<'_>| {
        if let Incoming::Binary(bytes) = incoming {
            length = bytes.len();
        }
        Proceed::Parse
    };
    decoder.feed(std::slice::from_mut(last), message).unwrap();
    assert_eq!((length, decoder.buffered_bytes()), (1 << 20, 0));
}
