//! The formats that divide a body into events.

use bytes::{Buf, Bytes};

use super::event::{self, MAX_EVENT_BYTES};
use super::json_values::JsonValues;
use super::ndjson::LineParser;
use crate::protocol::strip_bom;
use crate::sse::{self, EventTooLarge, SseParser};

pub(super) enum Format {
    Sse(Box<SseParser>),
    Ndjson(LineParser),
    /// The data stream of AI SDK 4: lines of a name and JSON, `0:"Hi"`.
    DataStream(LineParser),
    /// One JSON value, several, or an array of them.
    Json(JsonValues),
    /// The first bytes decide, because the header does not say. It keeps them until they are enough, at most three.
    Undecided(Vec<u8>),
}

/// The beginning of lines that only a data stream has.
const AI_SDK_UI: &[u8] = b"aui-";

/// One event of the body.
pub(super) struct Frame {
    /// The name that an event stream gives it; empty if there is none.
    pub name: String,
    pub data: String,
    /// A JSON value in an event stream that is no event of it, as some servers write an error.
    pub is_bare: bool,
}

/// What the end of a body leaves.
pub(super) enum Rest {
    Nothing,
    /// An event that only lacks its last line feeds.
    Frame(Frame),
    /// A part of an event.
    Cut,
}

impl Frame {
    fn unnamed(data: String) -> Self {
        Self { name: String::new(), data, is_bare: false }
    }
}

impl Format {
    pub fn sse() -> Self {
        Self::Sse(Box::new(SseParser::new(MAX_EVENT_BYTES)))
    }

    pub fn ndjson() -> Self {
        Self::Ndjson(LineParser::default())
    }

    pub fn data_stream() -> Self {
        Self::DataStream(LineParser::default())
    }

    pub fn json() -> Self {
        Self::Json(JsonValues::default())
    }

    /// The format of a body whose header does not name it.
    pub fn undecided() -> Self {
        Self::Undecided(Vec::new())
    }

    /// Returns the format of a body that begins with `start`; `None` = more of it decides.
    ///
    /// Backends that write a data stream by themselves may lack its header: it begins with a line such as `0:"Hi"`.
    fn of_beginning(start: &[u8]) -> Option<Self> {
        let is_code = |code: &u8| code.is_ascii_digit() || code.is_ascii_lowercase();
        match start {
            [b'{' | b'[' | b'"', ..] => Some(Self::json()),
            [code, b':', b'"' | b'{' | b'[', ..] if is_code(code) => Some(Self::data_stream()),
            [code] | [code, b':'] if is_code(code) => None,
            _ if start.starts_with(AI_SDK_UI) => Some(Self::data_stream()),
            _ if AI_SDK_UI.starts_with(start) || sse::BOM.starts_with(start) => None,
            _ => Some(Self::sse()),
        }
    }

    /// Takes bytes from `input` up to the end of the next event, or all of them, and then returns `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, EventTooLarge> {
        Ok(match self {
            Self::Sse(parser) => parser.next(input)?.map(Frame::of_stream),
            Self::Ndjson(parser) => parser.next(input)?.map(Frame::unnamed),
            Self::DataStream(parser) => parser.next(input)?.map(Frame::of_line),
            Self::Json(parser) => parser.next(input)?.map(Frame::unnamed),
            Self::Undecided(kept) => {
                if !kept.is_empty() {
                    kept.extend_from_slice(input);
                    *input = std::mem::take(kept).into();
                }
                skip_blank(input);
                match Self::of_beginning(input) {
                    Some(format) => *self = format,
                    None => {
                        *kept = std::mem::take(input).into();
                        return Ok(None);
                    }
                }
                return self.next(input);
            }
        })
    }

    /// Returns what the end of the body left. `is_delimited`: all of the body has come.
    pub fn finish(&mut self, is_delimited: bool) -> Rest {
        let frame = match self {
            Self::Sse(parser) => parser.take_unfinished().map(Frame::of_stream),
            Self::Ndjson(parser) => parser.take_unfinished().map(Frame::unnamed),
            Self::DataStream(parser) => parser.take_unfinished().map(Frame::of_line),
            Self::Json(parser) => parser.take_unfinished().map(Frame::unnamed),
            // No format has an event of so few bytes.
            Self::Undecided(_) => None,
        };
        match frame {
            None => Rest::Nothing,
            Some(frame) if frame.is_whole(is_delimited && matches!(self, Self::Sse(_))) => {
                Rest::Frame(frame)
            }
            Some(_) => Rest::Cut,
        }
    }
}

/// Removes what a body may have before its first event: white space and byte order marks.
fn skip_blank(input: &mut Bytes) {
    loop {
        let start = strip_bom(input).trim_ascii_start();
        if start.len() == input.len() {
            return;
        }
        input.advance(input.len() - start.len());
    }
}

impl Frame {
    fn of_stream(event: sse::SseEvent) -> Self {
        Self { name: event.name, data: sse::to_text(event.data), is_bare: event.is_bare }
    }

    /// Reads a line of a data stream. One without a name is no event of it, and not JSON.
    fn of_line(line: String) -> Self {
        match line.split_once(':') {
            Some((name, data)) => {
                Self { name: name.to_owned(), data: data.to_owned(), is_bare: false }
            }
            None => Self::unnamed(line),
        }
    }

    /// Whether an event whose end did not come is whole nevertheless: JSON that can have no continuation, or any text that
    /// the server has finished and that is not the beginning of JSON.
    fn is_whole(&self, is_finished: bool) -> bool {
        let data = self.data.trim();
        let is_enclosed = data.starts_with(['{', '[', '"']);
        match event::is_json(data) {
            true => is_enclosed || is_finished || self.name.is_empty(),
            false => event::is_done(data) || (is_finished && !is_enclosed),
        }
    }
}

#[cfg(test)]
mod tests;
