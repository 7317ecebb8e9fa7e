//! Messages that are relayed once, and replies that always end.
//!
//! This module knows which of a sender's messages have been relayed, and which generations this node
//! runs. It relays nothing and writes to no socket; the session asks before it relays, and tells how it
//! went. Invariants: of any number of
//! sends of one message, on all nodes, one is relayed at a time and none after one was taken, within
//! the route's `dedup_ttl`; nothing here outlives its time, so a node that dies blocks nothing for long.

mod ended;
mod event;
mod once;
mod running;
mod tracker;

pub use once::{Claim, MessageKey, NoTurn, Once, Sender, Turn};
pub use running::{Run, Running, Task};
pub use tracker::{Begun, Expected, Heard, Tracked, Tracker};
