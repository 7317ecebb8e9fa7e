//! The faults of docs/reliability.md that no other module of these tests has: each makes one happen, shows what
//! clients see of it, and that the gateway recovers by itself. The time that it took is printed, and never asserted.

mod clock;
mod logs;
mod names;
mod network;
mod sleeping_node;
mod upstream_hangs;

use std::time::Instant;

/// Prints how long a recovery took. `cargo test --test gateway faults -- --nocapture` shows it.
fn recovered(fault: &str, since: Instant) {
    eprintln!("recovery: {fault}: {:.1} s", since.elapsed().as_secs_f64());
}
