//! The faults of docs/reliability.md that no other module of these tests has: each makes one happen, shows what
//! clients see of it, and that the gateway recovers by itself.

pub mod clock;
mod logs;
mod names;
mod network;
mod sleeping_node;
mod upstream_hangs;
