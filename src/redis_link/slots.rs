//! The slots of a Redis Cluster: which one a key belongs to, and keys that belong to the slot of a channel.

use std::sync::OnceLock;

use redis::{Arg, Cmd};

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16384;

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected.
const fn crc16(bytes: &[u8]) -> u16 {
    let (mut crc, mut at) = (0_u16, 0);
    while at < bytes.len() {
        crc = (crc << 8) ^ TABLE[((crc >> 8) ^ bytes[at] as u16) as usize];
        at += 1;
    }
    crc
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of `key`, or of a channel of sharded pub/sub. If it has a part in braces that is not empty, only this part
/// counts: what is between the first `{` and the first `}` after it.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The slot of the first key of `command`; `None` if it has none, so that any node of the cluster can run it.
pub(super) fn slot_of_command(command: &Cmd) -> Option<u16> {
    let mut arguments = command.args_iter().map(|argument| match argument {
        Arg::Simple(bytes) => bytes,
        _ => b"",
    });
    let key = match arguments.next()? {
        b"EVALSHA" | b"EVAL" => {
            let count = arguments.nth(1)?;
            if count == b"0" { None } else { arguments.next() }
        }
        b"TIME" | b"SCRIPT" | b"PING" | b"CLUSTER" | b"HELLO" | b"INFO" | b"DISCARD" => None,
        b"XINFO" | b"XGROUP" | b"OBJECT" | b"PUBSUB" => arguments.nth(1),
        _ => arguments.next(),
    };
    key.map(slot_of)
}

/// What stands between the first pair of braces in a key, so that the key is in the slot in which sharded pub/sub has
/// the channel `name`, followed by what else is to be in the key. A name without braces of its own is its own tag. Other
/// names have another tag of their slot, and come after it.
pub(super) fn tagged(name: &str) -> String {
    match name.contains(['{', '}']) {
        false => format!("{{{name}}}"),
        true => format!("{{{}}}{name}", tag_of_slot(slot_of(name.as_bytes()))),
    }
}

/// A short text whose slot is `slot`.
pub(super) fn tag_of_slot(slot: u16) -> String {
    /// Of each slot the smallest number with it.
    static TAGS: OnceLock<Box<[u32]>> = OnceLock::new();

    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; usize::from(SLOTS)].into_boxed_slice();
        let mut left = tags.len();
        for number in 0.. {
            let tag = &mut tags[usize::from(slot_of(number.to_string().as_bytes()))];
            if *tag == u32::MAX {
                (*tag, left) = (number, left - 1);
            }
            if left == 0 {
                break;
            }
        }
        tags
    });
    tags[usize::from(slot % SLOTS)].to_string()
}

#[cfg(test)]
mod tests;
