//! Frames that the gateway writes: never fragmented, with minimal lengths, and masked only towards upstreams (RFC 6455
//! section 5.2).

use bytes::Bytes;
use fastwebsockets::unmask;

use super::frame_scanner::fresh_mask;
use super::head::MAX_HEAD;
use crate::protocol::CloseReason;

/// The bit of a head's first byte that says that a message is compressed (RFC 7692 section 6).
pub(super) const RSV1: u8 = 0x40;

/// The bit of a head's second byte that says that a mask follows.
const MASK_BIT: u8 = 0x80;

/// The bit of a head's first byte that says that the frame is the last one of its message.
const FIN: u8 = 0x80;

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// `None` if the opcode is reserved.
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Encodes a whole frame, which can be sent to any number of receivers.
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_parts(opcode, &[payload])
}

/// Encodes a whole frame whose payload is given in parts.
pub fn encode_parts(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    // Without room to spare, the bytes need no further allocation before they are shared.
    let mut frame = Vec::with_capacity(head_length(len) + len);
    push_head(&mut frame, FIN | opcode.bits(), len, 0);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Bytes::from(frame)
}

/// Appends a whole frame to `frames`.
pub fn append(frames: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_head(frames, FIN | opcode.bits(), payload.len(), 0);
    frames.extend_from_slice(payload);
}

/// Appends a whole frame whose payload is compressed.
pub(super) fn append_with_rsv1(frames: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_head(frames, FIN | RSV1 | opcode.bits(), payload.len(), 0);
    frames.extend_from_slice(payload);
}

/// Encodes a whole frame whose payload is compressed. `first` is the first byte of the frame in its plain form.
pub(super) fn with_rsv1(first: u8, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(head_length(payload.len()) + payload.len());
    push_head(&mut frame, first | RSV1, payload.len(), 0);
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// Appends a whole frame of a client, which is masked.
pub fn append_masked(frames: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    frames.reserve(payload.len() + MAX_HEAD);
    push_head(frames, FIN | opcode.bits(), payload.len(), MASK_BIT);
    let mask = fresh_mask();
    frames.extend_from_slice(&mask);
    let start = frames.len();
    frames.extend_from_slice(payload);
    unmask(&mut frames[start..], mask);
}

fn head_length(len: usize) -> usize {
    match len {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn push_head(frames: &mut Vec<u8>, first: u8, len: usize, mask_bit: u8) {
    frames.push(first);
    if len < 126 {
        frames.push(mask_bit | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        frames.push(mask_bit | 126);
        frames.extend_from_slice(&len.to_be_bytes());
    } else {
        frames.push(mask_bit | 127);
        frames.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

/// The payload of a frame that [`encode`] returned.
pub fn payload(frame: &[u8]) -> &[u8] {
    let head = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(head..).unwrap_or_default()
}

/// Encodes a text frame.
pub fn text(payload: &str) -> Bytes {
    encode(Opcode::Text, payload.as_bytes())
}

/// Encodes a close frame. A reason over 123 bytes is cut at a character boundary.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode(Opcode::Close, &payload)
}

/// Encodes a close frame of a client, which is masked.
pub fn masked_close(code: u16, reason: &str) -> Bytes {
    let mut masked = Vec::new();
    append_masked(&mut masked, Opcode::Close, payload(&close(code, reason)));
    masked.into()
}

impl From<CloseReason> for Bytes {
    fn from(reason: CloseReason) -> Self {
        close(reason.code(), reason.text())
    }
}

#[cfg(test)]
mod tests;
