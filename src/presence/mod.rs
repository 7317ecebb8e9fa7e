//! Presence: the connections and users of a channel, over all nodes.
//!
//! The members of a channel are connections. Each has a lease that the thread of the connection renews, so
//! that the leases of a node that died expire; the next call for the channel removes such members. A user is
//! present while one of its connections is. The engine decides atomically with each change whether a user joined
//! or left, and reports that to exactly one caller, which has to publish it on the channel.

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

/// The most expired members that one call removes, so that no call occupies the engine for long.
const SWEEP_LIMIT: usize = 1000;

/// Why a call of the engine failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceError {
    /// The engine cannot be reached.
    Unavailable,
    /// The engine refuses the call, or has no room.
    Refused,
}

/// A join or a leave to publish on a channel with events: of a user with its first or last connection, or of an
/// anonymous connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub joined: bool,
    pub member: Member,
}

/// A part of the members of a channel, in the order of their connections' ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The members, each with the number of connections that its user has in the channel.
    pub members: Vec<(Member, u64)>,
    /// Whether there are more members after the last.
    pub more: bool,
    pub total_connections: u64,
    /// Anonymous connections do not count as users.
    pub total_users: u64,
}
