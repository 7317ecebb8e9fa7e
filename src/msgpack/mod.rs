//! MessagePack, read and transcoded into JSON text.
//!
//! This module owns the bytes: the reader of single items, and the transcoding of whole values. What the
//! members of a message mean is for others. Invariants, whatever the bytes: no panic, no recursion, no
//! allocation for a length that the input does not have, and at most `MAX_GROWTH` bytes of JSON for
//! each byte read.
//!
//! JSON says less than MessagePack, so some things are choices (docs/channels.md repeats them for users):
//!
//! | MessagePack | JSON |
//! |---|---|
//! | map | object, members in their order; repeated keys are kept |
//! | key that is an integer, a float, a bool, nil or bytes | its JSON text as a string |
//! | key that is an array, a map or an extension | refused |
//! | str | string; where it is no UTF-8, as bytes |
//! | bin | string in standard, padded base64 |
//! | integer | all its digits, beyond 2^53 too |
//! | float 32, float 64 | the shortest decimal that reads back as the same float |
//! | NaN, Infinity, -Infinity | the strings `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | extension | `{"$ext":type,"data":"base64"}` |
//! | over [`MAX_DEPTH`] arrays and maps in each other | refused |

mod json;
mod reader;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "internals"))]
pub use json::to_json;
pub use json::{write_key, write_value};
pub use reader::{Item, Reader};

use std::fmt;

/// Arrays and maps that may be open at once.
pub const MAX_DEPTH: usize = 512;

/// Bytes of JSON that one byte of MessagePack can become: an empty extension has 3 and becomes 24.
#[cfg(any(test, feature = "internals"))]
pub const MAX_GROWTH: usize = 10;

/// Why bytes are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The input ends within an item, or an item claims more than there is.
    Truncated,
    /// The byte 0xc1, which starts nothing.
    Reserved,
    /// More than [`MAX_DEPTH`] arrays and maps in each other.
    TooDeep,
    /// A key that is an array, a map or an extension.
    Key,
    /// Something follows the value.
    Trailing,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "MessagePack that ends early",
            Self::Reserved => "not MessagePack: a byte that starts nothing",
            Self::TooDeep => "MessagePack that nests too deeply",
            Self::Key => "a MessagePack map key that is an array, a map or an extension",
            Self::Trailing => "more than one MessagePack value",
        })
    }
}

impl std::error::Error for Malformed {}
