//! A parser of server-sent events (WHATWG HTML, section 9.2.6), which takes a stream in pieces of any size.
//!
//! This module owns lines, fields and their bounds. It does not interpret data, and ignores `retry`,
//! because its callers choose themselves when they reconnect. Invariant: an unfinished event never takes
//! more memory than the parser's bound.

use bytes::{Buf, Bytes};
use serde::de::IgnoredAny;

/// The byte order mark that a stream may begin with.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// A longer line buffer is not kept for the next line.
const MAX_KEPT_LINE_BYTES: usize = 64 * 1024;

/// An event with data or a name; other blocks are no events.
///
/// To a browser a block without data is none either, but some servers end a stream with a name alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field; empty if there was none.
    pub name: String,
    /// The `id` field of this event; empty if there was none.
    pub id: String,
    /// Should be UTF-8, which is for the caller to check.
    pub data: Vec<u8>,
    /// The data is JSON that was written into the stream without being an event of it.
    pub is_bare: bool,
}

/// What a line is.
enum Field {
    Known,
    Other,
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
    /// JSON that is no field of an event, whose end has not come.
    bare: Vec<u8>,
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
            bare: Vec::new(),
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
            let end = line_end(input);
            let part = &input[..end.unwrap_or(input.len())];
            if self.size() + part.len() > self.max_event_bytes {
                return Err(EventTooLarge);
            }
            let Some(length) = end else {
                self.line.extend_from_slice(part);
                input.clear();
                return Ok(None);
            };
            self.after_cr = input[length] == b'\r';
            // Most lines come whole, and need not be copied.
            let event = if self.line.is_empty() {
                self.end_line(part)
            } else {
                self.line.extend_from_slice(part);
                self.end_kept_line()
            };
            input.advance(length + 1);
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Returns an event that the end of the stream cut off; `None` = it ended between events.
    pub fn take_unfinished(&mut self) -> Option<SseEvent> {
        if !self.line.is_empty()
            && let Some(event) = self.end_kept_line()
        {
            return Some(event);
        }
        self.end_block()
    }

    fn size(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len() + self.id.len() + self.bare.len()
    }

    fn end_kept_line(&mut self) -> Option<SseEvent> {
        let mut line = std::mem::take(&mut self.line);
        let event = self.end_line(&line);
        if line.capacity() <= MAX_KEPT_LINE_BYTES {
            line.clear();
            self.line = line;
        }
        event
    }

    fn end_line(&mut self, line: &[u8]) -> Option<SseEvent> {
        let is_first = !std::mem::replace(&mut self.is_past_first_line, true);
        let text = match line.strip_prefix(BOM) {
            Some(text) if is_first => text,
            _ => line,
        };
        if text.is_empty() {
            return self.end_block();
        }
        match self.add_field(text) {
            Field::Known => None,
            Field::Other => self.add_bare(text),
        }
    }

    /// Adds a line to a JSON value that begins at the start of a line, as some servers write an error into the stream.
    /// Returns it when it is whole: on one line, or with a brace or bracket at the start of its last line.
    fn add_bare(&mut self, line: &[u8]) -> Option<SseEvent> {
        let is_first = self.bare.is_empty();
        if is_first && !matches!(line.first(), Some(b'{' | b'[')) {
            return None;
        }
        self.bare.extend_from_slice(line);
        self.bare.push(b'\n');
        let close = if self.bare.first() == Some(&b'[') { b']' } else { b'}' };
        let end = if is_first { line.trim_ascii_end().last() } else { line.first() };
        let may_end = end == Some(&close);
        if !may_end {
            return None;
        }
        let value = self.take_bare();
        if value.is_none() && is_first {
            self.bare.extend_from_slice(line);
            self.bare.push(b'\n');
        }
        value
    }

    /// `None` if what there is of it is not JSON, which is then dropped.
    fn take_bare(&mut self) -> Option<SseEvent> {
        let mut data = std::mem::take(&mut self.bare);
        data.pop();
        let is_json = serde_json::from_slice::<IgnoredAny>(&data).is_ok();
        is_json.then(|| SseEvent { data, is_bare: true, ..SseEvent::default() })
    }

    /// A comment is a field without a name.
    fn add_field(&mut self, line: &[u8]) -> Field {
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                self.data.reserve(value.len() + 1);
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.name = value.to_vec(),
            b"id" => self.id = value.to_vec(),
            b"" | b"retry" => {}
            _ => return Field::Other,
        }
        Field::Known
    }

    fn end_block(&mut self) -> Option<SseEvent> {
        if self.data.is_empty() && self.name.is_empty() {
            self.id.clear();
            return self.take_bare();
        }
        self.bare.clear();
        Some(self.take_event())
    }

    fn take_event(&mut self) -> SseEvent {
        let (name, id) = (std::mem::take(&mut self.name), std::mem::take(&mut self.id));
        let mut data = std::mem::take(&mut self.data);
        data.pop();
        SseEvent { name: to_text(name), id: to_text(id), data, is_bare: false }
    }
}

/// The offset of the first line feed or carriage return. It looks at eight bytes at a time.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let mut length = 0;
    for word in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // A byte that is 0 after the comparison leaves its highest bit set (Bit Twiddling Hacks, haszero). The lowest
        // bit found is exact; higher ones may come from a borrow.
        let is = |byte: u8| {
            let word = word ^ (ONES * u64::from(byte));
            word.wrapping_sub(ONES) & !word & HIGHS
        };
        let found = is(b'\n') | is(b'\r');
        if found != 0 {
            return Some(length + found.trailing_zeros() as usize / 8);
        }
        length += 8;
    }
    let tail = bytes.get(length..).unwrap_or_default();
    tail.iter().position(|byte| matches!(byte, b'\n' | b'\r')).map(|at| length + at)
}

/// Whether a line is a field or a comment of an event stream, and not JSON.
pub fn is_field(line: &[u8]) -> bool {
    let names = [&b"data:"[..], b"event:", b"id:", b"retry:", b":"];
    names.iter().any(|name| line.starts_with(name))
}

/// Replaces what is not UTF-8 with U+FFFD (WHATWG Encoding, section 6).
pub fn to_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests;
