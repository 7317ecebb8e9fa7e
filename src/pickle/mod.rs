//! Reads and writes Python pickles that contain data only, with a closed set of opcodes.
//!
//! This module owns the byte format of what Django's cache stores: dicts, lists and sets of texts, numbers,
//! booleans and `None`. The callers decide what a record must contain. It is not an unpickler: an opcode that
//! could import, call or build anything is refused, as is every opcode that is not in `opcodes`. Invariants
//! for any input: no panic, no recursion in reading, memory proportional to the input's length.
//!
//! The reader accepts less than Python on purpose: integers have at most 64 bits; a memo reference never
//! gives a dict, list or set, so that no value contains itself or another one many times; dict keys and set
//! elements are texts, numbers, booleans or `None`.

mod opcodes;
mod reader;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::read;
pub use value::Value;
pub use writer::{write_json, write_text_set};

use std::fmt;

/// The first byte of every pickle that is accepted. No JSON text begins with it.
pub const FIRST_BYTE: u8 = opcodes::PROTO;

/// The longest accepted pickle, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most bytes of text that memo references may give in one pickle. A pickle can refer to one text many
/// times, and its conversion to JSON has as many copies.
pub const MAX_REPEATED_BYTES: usize = 16 * MAX_BYTES;

/// The deepest nesting of dicts, lists and sets.
pub const MAX_DEPTH: u8 = 64;

/// The reason why the input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than [`MAX_BYTES`].
    TooLong,
    /// Memo references give more than [`MAX_REPEATED_BYTES`].
    TooRepetitive,
    /// Not a pickle of protocol 2 to 5.
    Protocol,
    /// The input ends before the pickle does.
    Truncated,
    /// A byte that is not an opcode of the closed set.
    Opcode(u8),
    /// An opcode whose operands are not on the stack or in the memo.
    Stack,
    /// Text that is not valid UTF-8.
    Text,
    /// An integer that does not fit 64 bits.
    Integer,
    /// Dicts, lists and sets that are nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Bytes follow the pickle.
    Trailing,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a pickle of over {MAX_BYTES} bytes"),
            Self::TooRepetitive => {
                write!(
                    f,
                    "a pickle whose texts, as often as it names them, have over {MAX_REPEATED_BYTES} bytes"
                )
            }
            Self::Protocol => f.write_str("no pickle of protocol 2 to 5"),
            Self::Truncated => f.write_str("a pickle that ends early"),
            Self::Opcode(byte) => {
                write!(f, "a pickle with the opcode {byte:#04x}, which is not read")
            }
            Self::Stack => f.write_str("a pickle whose opcodes do not fit together"),
            Self::Text => f.write_str("a pickle with text that is no UTF-8"),
            Self::Integer => f.write_str("a pickle with an integer of over 64 bits"),
            Self::TooDeep => f.write_str("a pickle that nests too deeply"),
            Self::Trailing => f.write_str("a pickle with something after it"),
        }
    }
}

impl std::error::Error for Malformed {}
