//! A parser of newline-delimited JSON, which takes a stream in pieces of any size.

use bytes::{Buf, Bytes};

use super::event::MAX_EVENT_BYTES;
use crate::protocol::strip_bom;
use crate::sse::EventTooLarge;

/// Invariant: an unfinished line never takes more than [`MAX_EVENT_BYTES`].
#[derive(Default)]
pub(super) struct LineParser {
    line: Vec<u8>,
    /// The first line, which may start with a byte order mark, has ended.
    is_past_first_line: bool,
}

impl LineParser {
    /// Takes bytes from `input` up to the end of the next line that is not blank, or all of them, and then
    /// returns `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<String>, EventTooLarge> {
        while !input.is_empty() {
            let end = input.iter().position(|b| *b == b'\n');
            let part = input.split_to(end.unwrap_or(input.len()));
            if self.line.len() + part.len() > MAX_EVENT_BYTES {
                return Err(EventTooLarge);
            }
            self.line.extend_from_slice(&part);
            if end.is_some() {
                input.advance(1);
                if let Some(line) = self.take_unfinished() {
                    return Ok(Some(line));
                }
            }
        }
        Ok(None)
    }

    /// Returns the unfinished line without surrounding white space; `None` = it is blank.
    pub fn take_unfinished(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.is_past_first_line, true);
        let text = if is_first { strip_bom(&line) } else { &line };
        let text = String::from_utf8_lossy(text.trim_ascii());
        (!text.is_empty()).then(|| text.into_owned())
    }
}

#[cfg(test)]
mod tests;
