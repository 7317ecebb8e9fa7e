//! A parser of server-sent events (WHATWG HTML, section 9.2.6), which takes a stream in pieces of any size.
//!
//! This module owns lines, fields and their bounds. It does not interpret data, and ignores `retry`,
//! because its callers choose themselves when they reconnect. Invariant: an unfinished event never takes
//! more memory than the parser's bound.

use bytes::{Buf, Bytes};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A longer line buffer is not kept for the next line.
const MAX_KEPT_LINE_BYTES: usize = 64 * 1024;

/// An event with data; blocks without data are no events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field; empty if there was none.
    pub name: String,
    /// The `id` field of this event; empty if there was none.
    pub id: String,
    /// Should be UTF-8, which is for the caller to check.
    pub data: Vec<u8>,
}

/// An event is larger than the parser's bound.
#[derive(Debug, PartialEq, Eq)]
pub struct EventTooLarge;

pub struct SseParser {
    /// The bound of [`SseParser::size`].
    max_event_bytes: usize,
    /// The part of the current line that has arrived.
    line: Vec<u8>,
    /// The lines of data, each with a line feed behind it.
    data: Vec<u8>,
    name: Vec<u8>,
    id: Vec<u8>,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line, which may start with a byte order mark, has ended.
    is_past_first_line: bool,
}

impl SseParser {
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            id: Vec::new(),
            after_cr: false,
            is_past_first_line: false,
        }
    }

    /// Takes bytes from `input` up to the end of the next event, or all of them, and then returns `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<SseEvent>, EventTooLarge> {
        while !input.is_empty() {
            if std::mem::take(&mut self.after_cr) && input[0] == b'\n' {
                input.advance(1);
                continue;
            }
            let end = input.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let part = input.split_to(end.unwrap_or(input.len()));
            if self.size() + part.len() > self.max_event_bytes {
                return Err(EventTooLarge);
            }
            self.line.extend_from_slice(&part);
            if end.is_some() {
                self.after_cr = input[0] == b'\r';
                input.advance(1);
                if let Some(event) = self.end_line() {
                    return Ok(Some(event));
                }
            }
        }
        Ok(None)
    }

    /// Returns the data of an event that the end of the stream cut off; `None` = it ended between events.
    pub fn take_unfinished(&mut self) -> Option<Vec<u8>> {
        if !self.line.is_empty() {
            self.end_line();
        }
        (!self.data.is_empty()).then(|| self.take_event().data)
    }

    fn size(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len() + self.id.len()
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.is_past_first_line, true);
        let text = if is_first { line.strip_prefix(BOM).unwrap_or(&line) } else { &line };
        if text.is_empty() {
            return self.end_block();
        }
        self.add_field(text);
        if line.capacity() <= MAX_KEPT_LINE_BYTES {
            self.line = line;
            self.line.clear();
        }
        None
    }

    /// A comment is a field without a name.
    fn add_field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.name = value.to_vec(),
            b"id" => self.id = value.to_vec(),
            _ => {}
        }
    }

    fn end_block(&mut self) -> Option<SseEvent> {
        if self.data.is_empty() {
            self.name.clear();
            self.id.clear();
            return None;
        }
        Some(self.take_event())
    }

    fn take_event(&mut self) -> SseEvent {
        let (name, id) = (std::mem::take(&mut self.name), std::mem::take(&mut self.id));
        let mut data = std::mem::take(&mut self.data);
        data.pop();
        SseEvent { name: to_text(name), id: to_text(id), data }
    }
}

/// Replaces what is not UTF-8 with U+FFFD (WHATWG Encoding, section 6).
pub fn to_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
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
        (events, parser.take_unfinished().map(to_text))
    }

    /// A stream, the names and data of its events, and what its end cuts off.
    type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

    const STREAMS: &[Case] = &[
        ("data: a\n\ndata:b\r\rdata:  c\r\n\r\n", &[("", "a"), ("", "b"), ("", " c")], None),
        ("\u{feff}data: bom\n\n", &[("", "bom")], None),
        ("data: x\n\n\u{feff}data: late bom\n\n", &[("", "x")], None),
        (": ping\n\n:\n\ndata: a\n: inside\ndata: b\n\n", &[("", "a\nb")], None),
        ("event: token\nid: 7\nretry: 1\ndata: {\ndata: }\n\n", &[("token", "{\n}")], None),
        ("event: lost\n\ndata: a\n\n", &[("", "a")], None),
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
}
