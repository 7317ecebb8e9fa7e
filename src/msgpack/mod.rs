//! Reads MessagePack and transcodes it to JSON text.
//!
//! This module owns the byte format: reading single items, and transcoding whole values. The callers know
//! what the members of a message mean. Invariants for any input: no panic, no recursion, no allocation for a
//! length that exceeds the input, and at most `MAX_GROWTH` bytes of JSON for each byte of input.
//!
//! JSON cannot express all of MessagePack. The mapping (docs/channels.md has it for users):
//!
//! | MessagePack | JSON |
//! |---|---|
//! | map | object, members in their order; repeated keys are kept |
//! | key that is an integer, a float, a bool, nil or bytes | its JSON text as a string |
//! | key that is an array, a map or an extension | refused |
//! | str | string; like bin if it is not valid UTF-8 |
//! | bin | string in standard, padded base64 |
//! | integer | all its digits, beyond 2^53 too |
//! | float 32, float 64 | the shortest decimal that reads back as the same float |
//! | NaN, Infinity, -Infinity | the strings `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | extension | `{"$ext":type,"data":"base64"}` |
//! | arrays and maps nested deeper than [`MAX_DEPTH`] | refused |

mod json;
mod reader;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "internals"))]
pub use json::to_json;
pub use json::{write_key, write_value};
pub use reader::{Item, Reader};

use std::fmt;

/// The deepest nesting of arrays and maps.
pub const MAX_DEPTH: usize = 512;

/// The most bytes of JSON for one byte of MessagePack: an empty extension has 3 bytes and becomes 24.
#[cfg(any(test, feature = "internals"))]
pub const MAX_GROWTH: usize = 10;

/// The reason why the input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The input ends within an item, or an item declares more bytes than are left.
    Truncated,
    /// The byte 0xc1, which the format never uses.
    Reserved,
    /// Arrays and maps that are nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A key that is an array, a map or an extension.
    Key,
    /// Bytes follow the value.
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
