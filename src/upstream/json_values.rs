//! A parser of a body of JSON values, which takes it in pieces of any size: one value, several one after the other, or the
//! elements of one array.
//!
//! It finds where values end, and does not check what they are. Invariant: an unfinished value never takes more than
//! [`MAX_EVENT_BYTES`].

use bytes::{Buf, Bytes};

use super::event::MAX_EVENT_BYTES;
use crate::sse::EventTooLarge;

#[derive(Default)]
pub(super) struct JsonValues {
    value: Vec<u8>,
    /// The objects and arrays of the value that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// The value began with neither a brace nor a bracket, and ends with its line.
    is_line: bool,
}

impl JsonValues {
    /// Takes bytes from `input` up to the end of the next value, or all of them, and then returns `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<String>, EventTooLarge> {
        while !input.is_empty() {
            if self.value.is_empty() {
                let is_between = |byte: &u8| {
                    byte.is_ascii_whitespace()
                        || matches!(byte, b',' | b'[' | b']' | 0xef | 0xbb | 0xbf)
                };
                let start = input.iter().position(|byte| !is_between(byte)).unwrap_or(input.len());
                input.advance(start);
                let Some(first) = input.first() else { break };
                self.is_line = *first != b'{';
            }
            let end = self.find_end(input);
            let part = input.split_to(end.unwrap_or(input.len()));
            if self.value.len() + part.len() > MAX_EVENT_BYTES {
                return Err(EventTooLarge);
            }
            self.value.extend_from_slice(&part);
            if end.is_some()
                && let Some(value) = self.take_unfinished()
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Returns the value that the end of the body cut off.
    pub fn take_unfinished(&mut self) -> Option<String> {
        let value = std::mem::take(self).value;
        let text = String::from_utf8_lossy(value.trim_ascii());
        (!text.is_empty()).then(|| text.into_owned())
    }

    /// Returns how many of these bytes the value has, if it ends in them.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_line {
            return bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        }
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.in_string = self.is_escaped || *byte != b'"';
                self.is_escaped = !self.is_escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
