//! The heads of frames (RFC 6455 section 5.2), collected byte by byte, and checked as soon as each byte is there.

use super::frame::{Opcode, RSV1};
use crate::protocol::CloseReason;

/// Two bytes, an extended length of eight and a mask of four.
pub(super) const MAX_HEAD: usize = 14;

/// The bits that an extension may give a meaning.
const RSV_BITS: u8 = 0x70;

/// A whole head.
#[derive(Debug)]
pub(super) struct Head {
    pub opcode: Opcode,
    pub fin: bool,
    /// Whether this is the first frame of a compressed message.
    pub is_compressed: bool,
    /// The length of the payload in bytes.
    pub length: u64,
    /// Zeros if the frame is not masked.
    pub mask: [u8; 4],
}

/// Collects a head that may come in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    head: [u8; MAX_HEAD],
    len: u8,
    /// Whether the frames come from a server. It must not mask them; one that does is understood all the same.
    is_from_server: bool,
    /// Whether compression was negotiated.
    allows_compressed: bool,
}

impl HeadReader {
    /// Whether nothing of the next head has come.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the frames come from a server, and whether messages may be compressed.
    pub fn new(is_from_server: bool, allows_compressed: bool) -> Self {
        Self { is_from_server, allows_compressed, ..Self::default() }
    }

    /// Takes bytes from the front of `input` until a head is whole. Returns how many bytes were taken, and
    /// the head once it is whole; then the next call begins the next head.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Head>), CloseReason> {
        // Most heads come whole, and are parsed where they are.
        if let (0, [_, second, ..]) = (self.len, input) {
            let is_masked = !self.is_from_server || second & 0x80 != 0;
            let need = head_size(&input[..2], is_masked, self.allows_compressed)?;
            if let Some(head) = input.get(..need) {
                return Ok((need, Some(parse(head, is_masked)?)));
            }
        }
        let mut taken = 0;
        loop {
            let have = usize::from(self.len);
            let has_mask_bit = have > 1 && self.head[1] & 0x80 != 0;
            let is_masked = !self.is_from_server || has_mask_bit;
            let need = head_size(&self.head[..have], is_masked, self.allows_compressed)?;
            if have >= need {
                self.len = 0;
                return Ok((taken, Some(parse(&self.head[..need], is_masked)?)));
            }
            let more = (need - have).min(input.len() - taken);
            if more == 0 {
                return Ok((taken, None));
            }
            self.head[have..have + more].copy_from_slice(&input[taken..taken + more]);
            self.len += more as u8;
            taken += more;
        }
    }
}

/// Parses a whole head, whose bits [`head_size`] has checked.
pub(super) fn parse(head: &[u8], is_masked: bool) -> Result<Head, CloseReason> {
    let fin = head[0] & 0x80 != 0;
    let opcode = Opcode::from_bits(head[0] & 0x0f).ok_or(CloseReason::ProtocolError)?;
    let mut mask = [0; 4];
    if is_masked {
        mask.copy_from_slice(&head[head.len() - 4..]);
    }
    let is_compressed = head[0] & RSV1 != 0;
    Ok(Head { opcode, fin, is_compressed, length: payload_length(head)?, mask })
}

/// The size of the head that begins with `head`, as far as it is known. Checks each bit as soon as it is
/// there. Frames of clients are masked, those of servers are not. Where messages may be compressed, the first frame of one
/// has RSV1, and no other frame has (RFC 7692 section 6.1).
pub(super) fn head_size(
    head: &[u8],
    is_masked: bool,
    allows_compressed: bool,
) -> Result<usize, CloseReason> {
    let Some(&first) = head.first() else { return Ok(2) };
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseReason::ProtocolError)?;
    let fin = first & 0x80 != 0;
    let begins_compressed = || {
        allows_compressed
            && first & RSV_BITS == RSV1
            && matches!(opcode, Opcode::Text | Opcode::Binary)
    };
    if (first & RSV_BITS != 0 && !begins_compressed()) || (opcode.is_control() && !fin) {
        return Err(CloseReason::ProtocolError);
    }
    let Some(&second) = head.get(1) else { return Ok(2) };
    if (second & 0x80 != 0) != is_masked || (opcode.is_control() && second & 0x7f > 125) {
        return Err(CloseReason::ProtocolError);
    }
    let mask = if is_masked { 4 } else { 0 };
    Ok(match second & 0x7f {
        126 => 2 + 2 + mask,
        127 => 2 + 8 + mask,
        _ => 2 + mask,
    })
}

/// The payload length of a whole head. An encoding that is not minimal is an error.
fn payload_length(head: &[u8]) -> Result<u64, CloseReason> {
    let (length, minimum) = match head[1] & 0x7f {
        126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 126),
        127 => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[2..10]);
            (u64::from_be_bytes(bytes), 1 << 16)
        }
        length => (u64::from(length), 0),
    };
    if length < minimum || length > i64::MAX as u64 {
        return Err(CloseReason::ProtocolError);
    }
    Ok(length)
}
