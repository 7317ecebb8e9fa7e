//! Frames that a peer sends, parsed strictly and as they arrive (RFC 6455 sections 5 and 7.4).
//!
//! Checks come before buffering: a head is refused for its bits, its length encoding, its order or the size
//! of its whole message before a byte of its payload is kept. Text is checked byte by byte. A message that
//! lies whole in the read buffer is passed on from there; only the bytes of an unfinished message are kept,
//! and never more than were received.

#[cfg(test)]
mod tests;

use fastwebsockets::unmask;

use super::deflate::{MAX_OVERHEAD_SHIFT, inflate};
use super::frame::Opcode;
use super::head::{Head, HeadReader};
use super::utf8::{InvalidUtf8, Utf8};
use crate::protocol::{CloseReason, is_valid_close_code};
use crate::telemetry;
use crate::telemetry::compression::Outcome;

/// A fragment with less payload than this is reported, so that it can be counted: fragments with more are bounded by
/// the size of their message.
const SMALL_FRAGMENT: u64 = 64;

/// A complete message or control frame of the peer, or a part of a message that is worth counting.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// The head of a fragment of a message with little or no payload; of any data frame while messages are skipped.
    SmallFragment,
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The code and reason of a close frame. `None` if the close frame has neither.
    Close(Option<(u16, &'a str)>),
}

/// What becomes of the bytes after an [`Incoming`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proceed {
    Parse,
    /// Only control frames are passed on. The payload of data frames is neither checked nor kept.
    SkipMessages,
    /// Nothing more is parsed, now or later.
    Discard,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    /// Whether its message is compressed.
    is_compressed: bool,
    remaining: usize,
    /// Rotated as payload is consumed, so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
}

/// A data message that is not complete yet.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    /// It is inflated when it is complete. Until then only what was received is kept.
    is_compressed: bool,
    utf8: Utf8,
    bytes: Vec<u8>,
}

impl Partial {
    fn new(is_text: bool, is_compressed: bool) -> Self {
        Self { is_text, is_compressed, utf8: Utf8::default(), bytes: Vec::new() }
    }
}

/// The parser of one connection. Between messages it holds no heap memory.
#[derive(Debug)]
pub struct Decoder {
    /// In bytes. It has 32 bits because every connection has one.
    max_message: u32,
    proceed: Proceed,
    is_of_server: bool,
    /// Whether compression was negotiated.
    allows_compressed: bool,
    /// What is kept of a frame or message that is not complete; and of one that was refused for its size.
    kept: Option<Box<Parser>>,
}

/// What is known of the message and the frames in progress.
#[derive(Debug)]
struct Parser {
    max_message: usize,
    head: HeadReader,
    frame: Option<Frame>,
    message: Option<Partial>,
    /// The payload so far of a control frame that comes in pieces.
    control: Vec<u8>,
    proceed: Proceed,
    /// The size of a message that was refused for it, as far as it is known.
    refused_bytes: u64,
}

impl Decoder {
    /// The decoder of a client's frames. `max_message` bounds a whole message, all fragments together, in bytes; none has
    /// 4 GiB.
    pub fn new(max_message: usize) -> Self {
        let (max_message, proceed) = (max_message.try_into().unwrap_or(u32::MAX), Proceed::Parse);
        Self { max_message, proceed, is_of_server: false, allows_compressed: false, kept: None }
    }

    /// Messages may be compressed (RFC 7692). `max_message` bounds what they inflate to.
    pub fn allow_compressed(&mut self) {
        self.allows_compressed = true;
    }

    /// The decoder of a server's frames.
    pub fn of_server(max_message: usize) -> Self {
        Self { is_of_server: true, ..Self::new(max_message) }
    }

    fn new_parser(&self) -> Parser {
        let head = HeadReader::new(self.is_of_server, self.allows_compressed);
        Parser::new(head, self.max_message as usize, self.proceed)
    }

    /// Switches to what `proceed` says, and frees what is no longer needed then.
    pub fn set(&mut self, proceed: Proceed) {
        self.proceed = proceed;
        if let Some(mut parser) = self.kept.take() {
            parser.set(proceed);
            self.kept = (!parser.is_unused()).then_some(parser);
        }
    }

    /// How many bytes are kept of a message or control frame that is not complete.
    pub fn buffered_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |parser| {
            let message = parser.message.as_ref().map_or(0, |message| message.bytes.capacity());
            message + parser.control.capacity()
        })
    }

    /// The size of the message that was refused with [`CloseReason::MessageTooBig`], as far as it is known.
    pub fn refused_bytes(&self) -> u64 {
        self.kept.as_ref().map_or(0, |parser| parser.refused_bytes)
    }

    /// Consumes `input` (unmasking it in place) and passes on what is complete. After an error, or after
    /// `on_event` received a close, nothing more may be fed. The rest of `input` is treated as `on_event` answers.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) -> Result<(), CloseReason> {
        // Whole frames, as most are, are parsed without a box.
        match self.kept.take() {
            Some(mut parser) => {
                let fed = parser.feed(input, on_event);
                self.proceed = parser.proceed;
                self.kept = (!parser.is_unused()).then_some(parser);
                fed
            }
            None => {
                let mut parser = self.new_parser();
                let fed = parser.feed(input, on_event);
                self.proceed = parser.proceed;
                self.kept = (!parser.is_unused()).then(|| Box::new(parser));
                fed
            }
        }
    }
}

impl Parser {
    fn new(head: HeadReader, max_message: usize, proceed: Proceed) -> Self {
        Self {
            max_message,
            head,
            frame: None,
            message: None,
            control: Vec::new(),
            proceed,
            refused_bytes: 0,
        }
    }

    /// Whether a new parser would do as well.
    fn is_unused(&self) -> bool {
        let is_over = self.proceed == Proceed::Discard;
        let is_between = self.head.is_empty()
            && self.frame.is_none()
            && self.message.is_none()
            && self.control.is_empty();
        (is_over || is_between) && self.refused_bytes == 0
    }

    fn set(&mut self, proceed: Proceed) {
        self.proceed = proceed;
        if proceed != Proceed::Parse {
            self.message = None;
        }
    }

    fn feed(
        &mut self,
        mut input: &mut [u8],
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) -> Result<(), CloseReason> {
        while self.proceed != Proceed::Discard {
            if self.frame.is_none() {
                let (taken, head) = self.head.read(input)?;
                input = &mut input[taken..];
                let Some(head) = head else { return Ok(()) };
                let is_counted = self.is_counted(&head);
                self.frame = Some(self.begin_frame(head)?);
                if is_counted {
                    self.pass_on(Incoming::SmallFragment, on_event);
                }
            }
            let Some(frame) = &mut self.frame else { return Ok(()) };
            let available = frame.remaining.min(input.len());
            if available == 0 && frame.remaining > 0 {
                return Ok(());
            }
            let (payload, rest) = input.split_at_mut(available);
            input = rest;
            let is_read = self.proceed == Proceed::Parse || frame.opcode.is_control();
            if is_read && frame.mask != [0; 4] {
                unmask(payload, frame.mask);
            }
            frame.mask.rotate_left(available % 4);
            frame.remaining -= available;
            let finished = frame.remaining == 0;
            let (opcode, fin, is_compressed) = (frame.opcode, frame.fin, frame.is_compressed);
            if finished {
                self.frame = None;
            }
            if opcode.is_control() {
                let closed = opcode == Opcode::Close && finished;
                self.control_payload(opcode, payload, finished, on_event)?;
                if closed {
                    return Ok(());
                }
            } else if self.proceed == Proceed::Parse {
                let is_last = finished && fin;
                match is_compressed {
                    false => self.data_payload(opcode, payload, is_last, on_event)?,
                    true => self.compressed_payload(opcode, payload, is_last, on_event)?,
                }
            }
        }
        Ok(())
    }

    /// Whether the frame is reported on its own. A message of one frame is reported as a message.
    fn is_counted(&self, head: &Head) -> bool {
        let is_fragment = head.opcode == Opcode::Continuation || !head.fin;
        let is_small_fragment = is_fragment && head.length < SMALL_FRAGMENT;
        !head.opcode.is_control() && (is_small_fragment || self.proceed != Proceed::Parse)
    }

    fn pass_on(
        &mut self,
        incoming: Incoming<'_>,
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) {
        let proceed = on_event(incoming);
        if proceed != self.proceed {
            self.set(proceed);
        }
    }

    /// Checks a head against the frames before it: their order, and the size of the whole message.
    fn begin_frame(&mut self, head: Head) -> Result<Frame, CloseReason> {
        let Head { opcode, fin, mut is_compressed, length, mask } = head;
        if !opcode.is_control() && self.proceed == Proceed::Parse {
            if (opcode == Opcode::Continuation) != self.message.is_some() {
                return Err(CloseReason::ProtocolError);
            }
            let mut before = 0;
            if let Some(message) = &self.message {
                before = message.bytes.len();
                is_compressed = message.is_compressed;
            }
            let max = match is_compressed {
                true => max_compressed(self.max_message),
                false => self.max_message,
            };
            if length > (max - before) as u64 {
                self.refused_bytes = length.saturating_add(before as u64);
                return Err(CloseReason::MessageTooBig);
            }
        }
        Ok(Frame { opcode, fin, is_compressed, remaining: length as usize, mask })
    }

    fn control_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
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
        let incoming = match opcode {
            Opcode::Ping => Incoming::Ping(payload),
            Opcode::Pong => Incoming::Pong,
            _ => Incoming::Close(parse_close(payload)?),
        };
        self.pass_on(incoming, on_event);
        Ok(())
    }

    fn data_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) -> Result<(), CloseReason> {
        if self.message.is_none() {
            let is_text = opcode == Opcode::Text;
            if finished {
                self.pass_on(whole_message(is_text, payload)?, on_event);
                return Ok(());
            }
            self.message = Some(Partial::new(is_text, false));
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
            self.pass_on(whole_message(message.is_text, &message.bytes)?, on_event);
        }
        Ok(())
    }

    /// Like [`Self::data_payload`], of a compressed message: nothing is checked before it is complete.
    #[inline(never)]
    fn compressed_payload(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        finished: bool,
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) -> Result<(), CloseReason> {
        let Some(mut message) = self.message.take() else {
            let is_text = opcode == Opcode::Text;
            if finished {
                return self.pass_on_inflated(is_text, payload, on_event);
            }
            let message = self.message.insert(Partial::new(is_text, true));
            message.bytes.extend_from_slice(payload);
            return Ok(());
        };
        message.bytes.extend_from_slice(payload);
        if finished {
            return self.pass_on_inflated(message.is_text, &message.bytes, on_event);
        }
        self.message = Some(message);
        Ok(())
    }

    /// Passes on a compressed message, which is complete.
    fn pass_on_inflated(
        &mut self,
        is_text: bool,
        compressed: &[u8],
        on_event: &mut dyn FnMut(Incoming<'_>) -> Proceed,
    ) -> Result<(), CloseReason> {
        let max = self.max_message;
        let passed = inflate(compressed, is_text, max, |payload| {
            telemetry::compression::inflated(compressed.len(), payload.len());
            self.pass_on(whole_message(is_text, payload)?, on_event);
            Ok(())
        });
        passed.unwrap_or_else(|reason| {
            telemetry::compression::not_inflated(match reason {
                CloseReason::MessageTooBig => Outcome::TooBig,
                _ => Outcome::Invalid,
            });
            if reason == CloseReason::MessageTooBig {
                self.refused_bytes = (max as u64).saturating_add(1);
            }
            Err(reason)
        })
    }
}

/// The most bytes of a compressed message that may inflate to `max_message` bytes.
fn max_compressed(max_message: usize) -> usize {
    max_message.saturating_add(max_message >> MAX_OVERHEAD_SHIFT).saturating_add(64)
}

fn whole_message(is_text: bool, payload: &[u8]) -> Result<Incoming<'_>, CloseReason> {
    if !is_text {
        return Ok(Incoming::Binary(payload));
    }
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| CloseReason::InvalidUtf8)?;
    Ok(Incoming::Text(text))
}

/// Parses the payload of a close frame (RFC 6455 section 7.4, with the codes that IANA has registered since).
pub fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseReason> {
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
