//! Finds the frames in a stream of bytes that is passed on as it arrives, without collecting messages.
//!
//! Heads are checked as strictly as those of [`Decoder`](super::Decoder): bits, lengths, order and the size of the whole
//! message. Payloads are passed on unread, so text that is not UTF-8 is left to its receiver. A client's frames get fresh
//! masks in place: as the mask of a frame has a fixed length, a frame takes as many bytes with one as with another.
//! Invariant: only the bytes of an unfinished head or control frame are kept, at most [`MAX_KEPT`] of them.

use std::cell::RefCell;

use fastwebsockets::unmask;

use super::frame::Opcode;
use super::head::{self, MAX_HEAD};
use crate::protocol::CloseReason;

/// The payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

/// The most bytes that are kept: a control frame that is not complete.
pub const MAX_KEPT: usize = MAX_HEAD + MAX_CONTROL;

/// Random bytes are fetched for this many masks at once.
const MASKS: usize = 256;

/// The frames of one direction.
#[derive(Debug)]
pub struct FrameScanner {
    /// Whether the sender is a client, whose frames are masked.
    is_from_client: bool,
    /// How many bytes of the current frame's payload are still to come.
    remaining: u64,
    /// What the payload is combined with: the sender's mask and the new one together, so that its first byte belongs to the
    /// next payload byte.
    mask: [u8; 4],
    /// Whether the current frame is the last of its message.
    is_last: bool,
    /// The bytes of the message that is not complete, with those that are still to come of its current frame.
    message: Option<u64>,
    kept: Vec<u8>,
}

/// Where a stream of frames has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Between two messages.
    #[default]
    Between,
    /// Between two frames of a message.
    InMessage,
    InFrame,
}

/// The payload of a control frame.
#[derive(Debug, Clone, Copy)]
pub struct ControlPayload {
    bytes: [u8; MAX_CONTROL],
    length: u8,
}

impl AsRef<[u8]> for ControlPayload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The head of a data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFrame {
    /// Whether it is the first of its message.
    pub is_first: bool,
    /// Whether it is the last of its message.
    pub is_last: bool,
    pub is_text: bool,
    pub length: u64,
}

/// What is at the front of the bytes.
#[derive(Debug)]
pub enum Scanned {
    /// `length` bytes of a data frame. With `begins`, its head is the first of them.
    Data { length: usize, begins: Option<DataFrame> },
    /// A whole control frame of `length` bytes.
    Control { opcode: Opcode, length: usize, payload: ControlPayload },
    /// The beginning of a head or control frame, or nothing.
    Partial,
}

/// Why no frame of the sender is passed on any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanFault {
    /// A frame that RFC 6455 forbids.
    Protocol,
    /// The message has at least this many bytes.
    TooBig(u64),
}

impl FrameScanner {
    pub fn of_client() -> Self {
        Self::new(true)
    }

    pub fn of_server() -> Self {
        Self::new(false)
    }

    fn new(is_from_client: bool) -> Self {
        Self {
            is_from_client,
            remaining: 0,
            mask: [0; 4],
            is_last: true,
            message: None,
            kept: Vec::new(),
        }
    }

    /// Where the bytes end that were scanned.
    pub fn place(&self) -> Place {
        if self.remaining > 0 {
            Place::InFrame
        } else if self.message.is_some() {
            Place::InMessage
        } else {
            Place::Between
        }
    }

    /// Keeps what [`Scanned::Partial`] left.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.kept = bytes.to_vec();
    }

    /// Puts the kept bytes at the end of `room`, in front of those that follow it. Returns how many there are.
    pub fn restore(&mut self, room: &mut [u8]) -> usize {
        let kept = std::mem::take(&mut self.kept);
        let start = room.len().saturating_sub(kept.len());
        for (byte, kept) in room[start..].iter_mut().zip(&kept) {
            *byte = *kept;
        }
        kept.len()
    }

    /// Says what is at the front of `bytes`, and masks it for the receiver. After an error nothing may follow.
    /// `max_message` bounds a whole message, all fragments together, in bytes.
    pub fn next(&mut self, bytes: &mut [u8], max_message: usize) -> Result<Scanned, ScanFault> {
        if self.remaining > 0 {
            let length = self.pass_payload(bytes);
            return Ok(if length > 0 {
                Scanned::Data { length, begins: None }
            } else {
                Scanned::Partial
            });
        }
        let size = head::head_size(&bytes[..bytes.len().min(2)], self.is_from_client, false)?;
        if bytes.len() < size {
            return Ok(Scanned::Partial);
        }
        let head = head::parse(&bytes[..size], self.is_from_client)?;
        if head.opcode.is_control() {
            return Ok(self.control(bytes, size, &head));
        }
        if (head.opcode == Opcode::Continuation) != self.message.is_some() {
            return Err(ScanFault::Protocol);
        }
        let total = self.message.unwrap_or(0).saturating_add(head.length);
        if total > max_message as u64 {
            return Err(ScanFault::TooBig(total));
        }
        let begins = DataFrame {
            is_first: self.message.is_none(),
            is_last: head.fin,
            is_text: head.opcode == Opcode::Text,
            length: head.length,
        };
        (self.message, self.is_last, self.remaining) = (Some(total), head.fin, head.length);
        self.mask = self.replace_mask(&mut bytes[..size], head.mask);
        let length = size + self.pass_payload(&mut bytes[size..]);
        Ok(Scanned::Data { length, begins: Some(begins) })
    }

    /// Passes on what is there of the current frame's payload.
    fn pass_payload(&mut self, bytes: &mut [u8]) -> usize {
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        if self.is_from_client {
            unmask(&mut bytes[..length], self.mask);
            self.mask.rotate_left(length % 4);
        }
        self.remaining -= length as u64;
        if self.remaining == 0 && self.is_last {
            self.message = None;
        }
        length
    }

    fn control(&self, bytes: &mut [u8], size: usize, head: &head::Head) -> Scanned {
        // A head whose control frame is longer than 125 bytes is not valid.
        let payload_length = head.length as usize;
        let length = size + payload_length;
        if bytes.len() < length {
            return Scanned::Partial;
        }
        let (head_bytes, rest) = bytes.split_at_mut(size);
        let payload = &mut rest[..payload_length];
        let mut copy = ControlPayload { bytes: [0; MAX_CONTROL], length: head.length as u8 };
        copy.bytes[..payload_length].copy_from_slice(payload);
        if self.is_from_client {
            unmask(&mut copy.bytes[..payload_length], head.mask);
            unmask(payload, self.replace_mask(head_bytes, head.mask));
        }
        Scanned::Control { opcode: head.opcode, length, payload: copy }
    }

    /// Writes a fresh mask into a client's head. Returns what turns the masked payload into that of the new mask.
    fn replace_mask(&self, head: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
        if !self.is_from_client {
            return [0; 4];
        }
        let new = fresh_mask();
        let at = head.len() - 4;
        head[at..].copy_from_slice(&new);
        std::array::from_fn(|index| mask[index] ^ new[index])
    }
}

impl From<CloseReason> for ScanFault {
    /// Heads are refused for nothing but mistakes in them.
    fn from(_: CloseReason) -> Self {
        Self::Protocol
    }
}

/// A mask that nobody can predict (RFC 6455 section 5.3).
pub(super) fn fresh_mask() -> [u8; 4] {
    thread_local! {
        /// Random bytes, of which the last are taken first.
        static RANDOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    RANDOM.with_borrow_mut(|random| {
        if random.len() < 4 {
            random.resize(4 * MASKS, 0);
            getrandom::fill(random).expect("the operating system gives random bytes");
        }
        let mut mask = [0; 4];
        let at = random.len() - 4;
        mask.copy_from_slice(&random[at..]);
        random.truncate(at);
        mask
    })
}

#[cfg(test)]
mod tests;
