//! A parser of event streams (WHATWG HTML, section 9.2.6): bytes in any pieces to events.
//!
//! Owns lines, fields and their bounds; `id` and `retry` mean nothing to a gateway that does not
//! reconnect. What an event's data says is for others. Invariant: what is kept of an unfinished event
//! never exceeds [`MAX_EVENT_BYTES`].

use bytes::{Buf, Bytes};

use super::event::{MAX_EVENT_BYTES, TooLarge};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What one block of fields came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Empty where the stream did not name it.
    pub name: String,
    pub data: String,
}

#[derive(Default)]
pub(super) struct SseParser {
    /// The line so far.
    line: Vec<u8>,
    /// Each line of data with a line feed behind it.
    data: Vec<u8>,
    name: Vec<u8>,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line, which may begin with a byte order mark, is over.
    begun: bool,
}

impl SseParser {
    /// Takes from `input` up to the end of the next event; `None` = all of it was taken.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<SseEvent>, TooLarge> {
        while !input.is_empty() {
            if std::mem::take(&mut self.after_cr) && input[0] == b'\n' {
                input.advance(1);
                continue;
            }
            let end = input.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let part = input.split_to(end.unwrap_or(input.len()));
            if self.size() + part.len() > MAX_EVENT_BYTES {
                return Err(TooLarge);
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

    /// The data of an event that the end of the stream cut off; `None` = it ended between events.
    pub fn unfinished(&mut self) -> Option<String> {
        if !self.line.is_empty() {
            self.end_line();
        }
        (!self.data.is_empty()).then(|| self.take_event().data)
    }

    fn size(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len()
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let begun = std::mem::replace(&mut self.begun, true);
        let text = if begun { &line } else { line.strip_prefix(BOM).unwrap_or(&line) };
        if text.is_empty() {
            return self.end_block();
        }
        self.field(text);
        // Its memory serves the next line, unless it was an uncommonly long one.
        if line.capacity() <= 64 * 1024 {
            self.line = line;
            self.line.clear();
        }
        None
    }

    /// A comment is a field without a name.
    fn field(&mut self, line: &[u8]) {
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
            _ => {}
        }
    }

    fn end_block(&mut self) -> Option<SseEvent> {
        if self.data.is_empty() {
            self.name.clear();
            return None;
        }
        Some(self.take_event())
    }

    fn take_event(&mut self) -> SseEvent {
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        data.pop();
        SseEvent { name: text(name), data: text(data) }
    }
}

/// Event streams are UTF-8; what is not becomes U+FFFD (WHATWG Encoding, section 6).
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events, and what the end cut off, of a stream that comes in these pieces.
    fn parse<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<(String, String)>, Option<String>) {
        let (mut parser, mut events) = (SseParser::default(), Vec::new());
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(event) = parser.next(&mut input).expect("small") {
                events.push((event.name, event.data));
            }
            assert!(input.is_empty());
        }
        (events, parser.unfinished())
    }

    /// A stream, its events as names and data, and what its end cuts off.
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
    fn what_is_not_utf8_is_replaced() {
        let (events, _) = parse([&b"data: a\xffb\n\n"[..]]);
        assert_eq!(events, [(String::new(), "a\u{fffd}b".to_owned())]);
    }

    #[test]
    fn an_event_is_bounded_however_it_grows() {
        for piece in ["x", "data: xxxxxxxxxx\n", "data\n", "event: x"] {
            let mut parser = SseParser::default();
            let piece = piece.repeat(1024);
            let refused = (0..=2 * MAX_EVENT_BYTES / 1024)
                .any(|_| parser.next(&mut Bytes::from(piece.clone())) == Err(TooLarge));
            assert!(refused, "{:?}", &piece[..16]);
            assert!(parser.size() <= MAX_EVENT_BYTES + 1);
        }
    }
}
