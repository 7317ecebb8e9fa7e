use super::*;

const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Returns all events of a stream that arrives in these pieces, and what its end cut off.
fn parse<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<(String, String)>, Option<String>) {
    let (mut parser, mut events) = (SseParser::new(MAX_EVENT_BYTES), Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = parser.next(&mut input).expect("small") {
            events.push((event.name, to_text(event.data)));
        }
        assert!(input.is_empty());
    }
    (events, parser.take_unfinished().map(|event| to_text(event.data)))
}

/// A stream, the names and data of its events, and what its end cuts off.
type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

const STREAMS: &[Case] = &[
    ("data: a\n\ndata:b\r\rdata:  c\r\n\r\n", &[("", "a"), ("", "b"), ("", " c")], None),
    ("\u{feff}data: bom\n\n", &[("", "bom")], None),
    ("data: x\n\n\u{feff}data: late bom\n\n", &[("", "x")], None),
    (": ping\n\n:\n\ndata: a\n: inside\ndata: b\n\n", &[("", "a\nb")], None),
    ("event: token\nid: 7\nretry: 1\ndata: {\ndata: }\n\n", &[("token", "{\n}")], None),
    ("event: end\n\ndata: a\n\n", &[("end", ""), ("", "a")], None),
    ("id: 7\nretry: 1\n\ndata: a\n\nevent: end", &[("", "a")], Some("")),
    (
        "data: a\n\n{\"error\":{}}\n\ndata: b\n\n",
        &[("", "a"), ("", "{\"error\":{}}"), ("", "b")],
        None,
    ),
    (
        "data: a\n\n{\n  \"error\": {\n  }\n}\n",
        &[("", "a"), ("", "{\n  \"error\": {\n  }\n}")],
        None,
    ),
    ("[1,\r\n2]\r\n\r\ndata: a\n\n", &[("", "[1,\n2]"), ("", "a")], None),
    ("{\"a\":1}\n{\"b\":2}\n", &[("", "{\"a\":1}"), ("", "{\"b\":2}")], None),
    ("data: a\n\n{\"error\":{\"code\":503}}", &[("", "a")], Some("{\"error\":{\"code\":503}}")),
    ("data: a\n\n{\"error\":{\n\ndata: b\n\n", &[("", "a"), ("", "b")], None),
    ("<p>no</p>\n{not}\n}\n\ndata: b\n\n", &[("", "b")], None),
    ("event: a\nevent: b\ndata\n\n", &[("b", "")], None),
    ("data\ndata\n\n", &[("", "\n")], None),
    ("data: grüße 🎉\n\n", &[("", "grüße 🎉")], None),
    ("datax: a\n data: b\nDATA: c\n\n", &[], None),
    ("data: a\n\ndata: cut\n", &[("", "a")], Some("cut")),
    ("data: a\n\ndata: cu", &[("", "a")], Some("cu")),
    ("data: a\n\n: bye", &[("", "a")], None),
    ("data: a\r\n\r", &[("", "a")], None),
    ("\n\n\r\r\r\n", &[], None),
    ("", &[], None),
];

#[test]
fn streams_split_at_any_byte_come_to_the_same_events() {
    for (stream, events, unfinished) in STREAMS {
        let expected: Vec<_> =
            events.iter().map(|(name, data)| (name.to_string(), data.to_string())).collect();
        let expected = (expected, unfinished.map(str::to_owned));
        let bytes = stream.as_bytes();
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(parse([head, tail]), expected, "{stream:?} split at {at}");
        }
        assert_eq!(parse(bytes.chunks(1)), expected, "{stream:?} byte by byte");
    }
}

#[test]
fn an_id_belongs_to_its_own_event() {
    const STREAM: &[u8] = b"event: live\ndata: {}\n\n: \n\nid: 7\ndata: {\"a\":\ndata: 1}\n\nid: x\ndata: \n\nid: 9\n\ndata: z\n\n";
    let event = |name: &str, id: &str, data: &str| SseEvent {
        name: name.to_owned(),
        id: id.to_owned(),
        data: data.into(),
        is_bare: false,
    };
    let expected = [
        event("live", "", "{}"),
        event("", "7", "{\"a\":\n1}"),
        event("", "x", ""),
        event("", "", "z"),
    ];
    for size in 1..STREAM.len() {
        let (mut parser, mut events) = (SseParser::new(MAX_EVENT_BYTES), Vec::new());
        for piece in STREAM.chunks(size) {
            let mut input = Bytes::from_static(piece);
            while let Some(event) = parser.next(&mut input).expect("small") {
                events.push(event);
            }
        }
        assert_eq!(events, expected, "in pieces of {size} bytes");
    }
}

#[test]
fn what_is_not_utf8_is_replaced() {
    let (events, _) = parse([&b"data: a\xffb\n\n"[..]]);
    assert_eq!(events, [(String::new(), "a\u{fffd}b".to_owned())]);
}

#[test]
fn an_event_is_bounded_however_it_grows() {
    for piece in ["x", "data: xxxxxxxxxx\n", "data\n", "event: x", "id: x"] {
        let mut parser = SseParser::new(MAX_EVENT_BYTES);
        let piece = piece.repeat(1024);
        let refused = (0..=2 * MAX_EVENT_BYTES / 1024)
            .any(|_| parser.next(&mut Bytes::from(piece.clone())) == Err(EventTooLarge));
        assert!(refused, "{:?}", &piece[..16]);
        assert!(parser.size() <= MAX_EVENT_BYTES + 1);
    }
}

#[test]
fn the_end_of_a_line_is_found_wherever_it_is() {
    for length in 0..40 {
        let mut bytes = vec![b'\t'; length];
        assert_eq!(line_end(&bytes), None);
        for at in 0..length {
            for (end, other) in [(b'\n', b'\r'), (b'\r', b'\n')] {
                // What comes before is close to the end in value, and another end may follow.
                bytes.fill(0x0b);
                bytes[at] = end;
                if let Some(last) = bytes.get_mut(at + 1..).and_then(<[u8]>::last_mut) {
                    *last = other;
                }
                assert_eq!(line_end(&bytes), Some(at), "{bytes:?}");
            }
        }
    }
}
