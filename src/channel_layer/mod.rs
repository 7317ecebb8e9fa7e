//! The Django Channels layer of channels_redis, as one of its readers: group names and hosts, the
//! membership of this node in groups, its mailbox, and what is in a message.
//!
//! Owns what is on the layer's Redis servers. Leaves to the broker which channels are joined, what
//! becomes of a message, and what a loss means. Invariant: nothing here waits for anything but Redis, and
//! for that with a deadline.

mod mailbox;
mod memberships;
mod names;

pub use mailbox::{Letter, Mailbox};
pub use memberships::Memberships;
pub use names::{GroupChannels, MailboxNames, host_of};
