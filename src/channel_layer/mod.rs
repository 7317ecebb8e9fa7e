//! Reads a Django Channels layer in Redis, in the format of channels_redis 4: the names of groups and their hosts,
//! the node's memberships in groups, its mailbox, and messages.
//!
//! This module owns the data on the layer's Redis servers. The broker decides which channels are joined, where a
//! message goes, and what a loss means. Invariants: nothing here waits for anything but Redis, and for Redis only
//! with a deadline; a message that cannot be read is an error value, never a panic, and needs no more memory than a
//! fixed multiple of its length.

mod fernet;
mod mailbox;
mod memberships;
pub mod message;
mod names;
mod other_mailbox;

pub use mailbox::{MESSAGES_PER_TAKE, Mailbox, MailboxMessage};
pub use memberships::Memberships;
pub use message::Serializer;
pub use names::{GroupChannels, MailboxNames, host_of};
pub use other_mailbox::{MailboxPosition, Unconfirmed};
