//! A Django Channels layer in Redis, as channels_redis 4 writes it, and this node as one of its readers:
//! the names of groups and their hosts, the node's membership in them, its mailbox, and messages.
//!
//! This module owns what is on the layer's Redis servers. It leaves to the broker which channels are joined,
//! where a message goes, and what a loss means. Invariants: nothing here waits for anything but Redis, and for
//! that with a deadline; a message that cannot be read is a value to be counted, which neither panics nor takes
//! more memory than a multiple of its length.

mod fernet;
mod json;
mod mailbox;
mod memberships;
pub mod message;
mod names;

pub use mailbox::{MESSAGES_PER_POP, Mailbox, MailboxMessage};
pub use memberships::Memberships;
pub use message::Serializer;
pub use names::{GroupChannels, MailboxNames, host_of};
