//! Reads and writes Python pickles that contain data only, of every protocol, with a closed set of opcodes and
//! constructors.
//!
//! This module owns the byte format of what Django's cache stores: dicts, lists, tuples and sets of texts, numbers,
//! booleans and `None`. The callers decide what a record must contain. It is not an unpickler: nothing is ever
//! imported, called or built. The constructors of some types of Python's standard library, such as `datetime`, are
//! known by name; a value of such a type is read past, and nothing but the name of its type is kept. Any
//! other constructor refuses the whole pickle, wherever it stands.
//!
//! Invariants for any input: no panic, no recursion in reading and dropping, memory proportional to the input's length.
//! A container that a pickle refers to many times, or that contains itself, exists once; a conversion of it to JSON is
//! bounded in depth and size.

mod machine;
mod opcodes;
mod operands;
mod standard;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub use machine::read;
pub use value::{Pickle, Value};
pub use writer::{write_json, write_text_set};

use std::fmt;

/// The longest accepted pickle, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most bytes of JSON, about, that one pickle is converted to. A pickle can refer to one text or list many times,
/// and its conversion has as many copies.
pub const MAX_JSON_BYTES: usize = 16 * MAX_BYTES;

/// The deepest nesting of containers that is converted to JSON.
pub const MAX_DEPTH: usize = 64;

/// Whether the bytes may be a pickle rather than JSON: they begin with `PROTO`, or, as in the protocols 0 and 1, which
/// have no head, end with `STOP`. No JSON text does either.
pub fn is_pickle(bytes: &[u8]) -> bool {
    bytes.first() == Some(&opcodes::PROTO) || bytes.last() == Some(&opcodes::STOP)
}

/// The reason why the input is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than [`MAX_BYTES`].
    TooLong,
    /// Not a pickle of protocol 0 to 5.
    Protocol,
    /// The input ends before the pickle does.
    Truncated,
    /// A byte that is no opcode.
    Opcode(u8),
    /// An opcode whose operands are not on the stack or in the memo.
    Stack,
    /// A line with an operand that is not what its opcode needs.
    Operand,
    /// Bytes follow the pickle.
    Trailing,
    Refused(Refusal),
}

/// Something in a pickle that is never read, not even past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub what: Refused,
    /// The key of the outermost dict under which it stands, if it is known and is a name.
    pub field: Option<String>,
}

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A class or function that is not in the closed set: its module and name.
    Global(String),
    /// An opcode that imports, calls, or refers to what is outside of the pickle, by its name in `pickletools`.
    Opcode(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global(name) => write!(f, "{name}, which is not plain data"),
            Self::Opcode(name) => write!(f, "the opcode {name}, which is not read"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a pickle of over {MAX_BYTES} bytes"),
            Self::Protocol => f.write_str("not a pickle of protocol 0 to 5"),
            Self::Truncated => f.write_str("a pickle that ends early"),
            Self::Opcode(byte) => {
                write!(f, "a pickle with the byte {byte:#04x}, which is no opcode")
            }
            Self::Stack => f.write_str("a pickle whose opcodes do not fit together"),
            Self::Operand => f.write_str("a pickle with an operand that its opcode cannot have"),
            Self::Trailing => f.write_str("a pickle with something after it"),
            Self::Refused(Refusal { what, field: Some(field) }) => {
                write!(f, "the field {field} has {what}")
            }
            Self::Refused(Refusal { what, field: None }) => write!(f, "a pickle with {what}"),
        }
    }
}

impl std::error::Error for Malformed {}
