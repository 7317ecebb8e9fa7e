//! Frames that the server writes: unmasked, never fragmented, with minimal lengths (RFC 6455 section 5.2).

use bytes::Bytes;

use super::frame_scanner::fresh_mask;
use crate::protocol::CloseReason;

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
    let mut frame = Vec::with_capacity(len + 10);
    frame.push(0x80 | opcode.bits());
    if len < 126 {
        frame.push(len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        frame.push(126);
        frame.extend_from_slice(&len.to_be_bytes());
    } else {
        frame.push(127);
        frame.extend_from_slice(&(len as u64).to_be_bytes());
    }
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Bytes::from(frame)
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
    let frame = close(code, reason);
    let mask = fresh_mask();
    let mut masked = vec![frame[0], frame[1] | 0x80];
    masked.extend_from_slice(&mask);
    masked.extend(payload(&frame).iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    masked.into()
}

impl From<CloseReason> for Bytes {
    fn from(reason: CloseReason) -> Self {
        close(reason.code(), reason.text())
    }
}

#[cfg(test)]
mod tests;
