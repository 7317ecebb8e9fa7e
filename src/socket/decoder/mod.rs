//! Frames that clients send, parsed strictly and as they arrive (RFC 6455 sections 5 and 7.4).
//!
//! Checks come before buffering: a head is refused for its bits, its length encoding, its order or the size
//! of its whole message before a byte of its payload is kept. Text is checked byte by byte. A message that
//! lies whole in the read buffer is passed on from there; only the bytes of an unfinished message are kept,
//! and never more than were received.

mod head;
#[cfg(test)]
mod tests;

use fastwebsockets::unmask;

use super::frame::Opcode;
use super::utf8::{InvalidUtf8, Utf8};
use crate::protocol::{CloseReason, is_valid_close_code};
use head::{Head, HeadReader};

/// A complete message or control frame of the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The code and reason of a close frame. `None` if the close frame has neither.
    Close(Option<(u16, &'a str)>),
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    remaining: usize,
    /// Rotated as payload is consumed, so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
}

/// A data message that is not complete yet.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    utf8: Utf8,
    bytes: Vec<u8>,
}

/// The parser of one connection. Between messages it holds no heap memory.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    head: HeadReader,
    frame: Option<Frame>,
    message: Option<Box<Partial>>,
    /// The payload so far of a control frame that comes in pieces.
    control: Vec<u8>,
}

impl Decoder {
    /// `max_message` bounds a whole message, all fragments together, in bytes.
    pub fn new(max_message: usize) -> Self {
        Self {
            max_message,
            head: HeadReader::default(),
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// How many bytes are kept of a message or control frame that is not complete.
    pub fn buffered_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        message + self.control.capacity()
    }

    /// Consumes `input` (unmasking it in place) and passes on what is complete. After an error, or after
    /// `on_event` received a close, nothing more may be fed.
    pub fn feed(
        &mut self,
        mut input: &mut [u8],
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        loop {
            if self.frame.is_none() {
                let (taken, head) = self.head.read(input)?;
                input = &mut input[taken..];
                let Some(head) = head else { return Ok(()) };
                self.frame = Some(self.begin_frame(head)?);
            }
            let Some(frame) = &mut self.frame else { return Ok(()) };
            let available = frame.remaining.min(input.len());
            if available == 0 && frame.remaining > 0 {
                return Ok(());
            }
            let (payload, rest) = input.split_at_mut(available);
            input = rest;
            unmask(payload, frame.mask);
            frame.mask.rotate_left(available % 4);
            frame.remaining -= available;
            let finished = frame.remaining == 0;
            let (opcode, fin) = (frame.opcode, frame.fin);
            if finished {
                self.frame = None;
            }
            if opcode.is_control() {
                let closed = opcode == Opcode::Close && finished;
                self.control_payload(opcode, payload, finished, on_event)?;
                if closed {
                    return Ok(());
                }
            } else {
                self.data_payload(opcode, payload, finished && fin, on_event)?;
            }
        }
    }

    /// Checks a head against the frames before it: their order, and the size of the whole message.
    fn begin_frame(&self, head: Head) -> Result<Frame, CloseReason> {
        let Head { opcode, fin, length, mask } = head;
        if !opcode.is_control() {
            if (opcode == Opcode::Continuation) != self.message.is_some() {
                return Err(CloseReason::ProtocolError);
            }
            let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
            if length > (self.max_message - before) as u64 {
                return Err(CloseReason::MessageTooBig);
            }
        }
        Ok(Frame { opcode, fin, remaining: length as usize, mask })
    }

    fn control_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        if !finished {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.control);
        let payload = if joined.is_empty() {
            payload
        } else {
            joined.extend_from_slice(payload);
            &joined
        };
        on_event(match opcode {
            Opcode::Ping => Incoming::Ping(payload),
            Opcode::Pong => Incoming::Pong,
            _ => Incoming::Close(parse_close(payload)?),
        });
        Ok(())
    }

    fn data_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), CloseReason> {
        if self.message.is_none() {
            let is_text = opcode == Opcode::Text;
            if finished {
                return pass_on(is_text, payload, on_event);
            }
            self.message =
                Some(Box::new(Partial { is_text, utf8: Utf8::default(), bytes: Vec::new() }));
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.is_text {
            message.utf8.feed(payload).map_err(|InvalidUtf8| CloseReason::InvalidUtf8)?;
        }
        message.bytes.extend_from_slice(payload);
        if finished && let Some(message) = self.message.take() {
            if !message.utf8.is_complete() {
                return Err(CloseReason::InvalidUtf8);
            }
            return pass_on(message.is_text, &message.bytes, on_event);
        }
        Ok(())
    }
}

/// Passes on a complete data message.
fn pass_on(
    is_text: bool,
    payload: &[u8],
    on_event: &mut dyn FnMut(Incoming<'_>),
) -> Result<(), CloseReason> {
    if is_text {
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| CloseReason::InvalidUtf8)?;
        on_event(Incoming::Text(text));
    } else {
        on_event(Incoming::Binary(payload));
    }
    Ok(())
}

/// Parses the payload of a close frame (RFC 6455 section 7.4, with the codes that IANA has registered since).
fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseReason> {
    match payload {
        [] => Ok(None),
        [_] => Err(CloseReason::ProtocolError),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_valid_close_code(code) {
                return Err(CloseReason::ProtocolError);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| CloseReason::InvalidUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}
