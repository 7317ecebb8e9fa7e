//! Who is connected to a channel, over all nodes.
//!
//! The members of a channel are connections. Each has a lease that the thread which holds the
//! connection renews, so that the members of a node that died are gone when their leases expire. Whoever
//! touches a channel next takes them out. A user is present while one of its connections is; that it
//! came or went is decided in the engine, in one step with the change, and told to exactly one caller.
//! How joins and leaves reach the channel is left to those who publish.

mod announcements;
mod member;
mod members;
mod memory;
mod redis;
mod store;
#[cfg(test)]
mod tests;

pub use announcements::Announcement;
pub use member::Member;
pub use members::Members;
pub use store::PresenceStore;

/// Expired members that one call takes out at most, so that none holds up the engine.
const SWEEP: usize = 1000;

/// Why the engine did not carry out a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceError {
    /// It cannot be reached.
    Unavailable,
    /// It refuses the call, or has no room.
    Refused,
}

/// Somebody came or went, as a channel with events is told: a user's first or last connection, or any
/// connection of nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub joined: bool,
    pub member: Member,
}

/// A part of the members of a channel, in the order of their connections' ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// With the number of connections that the member's user has in the channel.
    pub members: Vec<(Member, u64)>,
    /// More follow the last of them.
    pub more: bool,
    pub total_connections: u64,
    /// Anonymous connections are no users.
    pub total_users: u64,
}
