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
    let mut decoder = Decoder::new(max);
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
