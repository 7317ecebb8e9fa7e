//! Django Channels' channel layers in Redis, as channels_redis 4 writes them.
//!
//! [`message`] reads what `group_send` wrote. Invariant: a message that cannot be read is a value for
//! counting; it neither panics nor takes more memory than a multiple of its length.

mod fernet;
mod json;
pub mod message;

pub use message::{BadMessage, Format, LayerMessage, Serializer};
