//! Python pickles that hold data only: read with a closed set of opcodes, and written.
//!
//! This module owns the bytes of what Django's cache keeps: dicts, lists and sets of texts, numbers, booleans
//! and `None`. What a record must say is for others. It is no unpickler: every opcode that could import,
//! call or build anything is an unknown byte, as is every other that is not in `opcodes`. Invariants,
//! whatever the bytes: no panic, no recursion in reading, memory in proportion to the length.
//!
//! Narrower than Python, on purpose: integers are those of 64 bits; what the memo gives back is never a
//! dict, list or set (so no value contains itself, or another many times over); keys and elements of sets
//! are texts, numbers, booleans or `None`.

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

/// What every pickle that is read begins with, and no JSON text does.
pub const FIRST_BYTE: u8 = opcodes::PROTO;

/// Longer pickles are not read.
pub const MAX_BYTES: usize = 64 * 1024;

/// Bytes of text that the memo may give back, each time counted: a pickle can name one text many times over,
/// and what is made of it, JSON for one, holds as many copies.
pub const MAX_REPEATED_BYTES: usize = 16 * MAX_BYTES;

/// Dicts, lists and sets that may be in each other.
pub const MAX_DEPTH: u8 = 64;

/// Why bytes are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than [`MAX_BYTES`].
    TooLong,
    /// The memo gives back more than [`MAX_REPEATED_BYTES`].
    TooRepetitive,
    /// Not a pickle of protocol 2 to 5.
    Protocol,
    /// The input ends before the pickle does.
    Truncated,
    /// A byte that is no opcode of the closed set.
    Opcode(u8),
    /// An opcode that finds on the stack, or in the memo, not what it works on.
    Stack,
    /// Text that is no UTF-8.
    Text,
    /// An integer that does not fit 64 bits.
    Integer,
    /// More than [`MAX_DEPTH`] dicts, lists and sets in each other.
    TooDeep,
    /// Something follows the pickle.
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
