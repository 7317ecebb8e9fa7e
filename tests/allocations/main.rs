//! How often the gateway allocates for a message, an event, a handshake and a publication.
//!
//! A gateway runs in this process, and the allocator counts for all threads of it. The clients and the upstream allocate
//! nothing while they are measured.
//!
//! The counts are those of a debug build, which removes no allocation. They do not depend on the machine's speed, only
//! on whether events arrive together; so each peer waits for the answer to the last one before it goes on.

mod operations;
mod peers;

use std::alloc::System;
use std::sync::mpsc;
use std::thread;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::internals::Config;
use tidegate::internals::gateway::{Addresses, Inherited, Outcome, Process, log_filter, run};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use operations::{Gateway, settings};
use peers::{DEADLINE, Upstream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most allocations of each operation, over all threads of the gateway: a few more than there are, because the order
/// in which its threads run varies. Lower a limit with each change that allows it. To raise one, say in the commit what
/// the allocation is for. `cargo test --test allocations -- --nocapture` prints the counts.
const LIMITS: [(&str, u64); 11] = [
    ("a message, answered by 202", 51),
    ("a message with an id, answered by 202", 63),
    ("a message, answered by 200 without a reply", 38),
    ("a message, answered by a streamed reply of one event", 77),
    ("a streamed event that comes alone", 10),
    ("a streamed event that comes with others", 8),
    ("an anonymous handshake", 53),
    ("a handshake with a token", 91),
    ("a publication by the API, to one client", 31),
    ("a publication by the API, of 16 in one call, to one client", 8),
    ("a delivery of a publication to one more client", 0),
];

/// Starts a gateway in this process. It runs until it is drained.
fn start(toml: &str) -> (Addresses, thread::JoinHandle<Outcome>) {
    let config = Config::from_toml(toml).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let (log, filter) = log_filter("warn", None).expect("a level");
    tracing_subscriber::registry().with(filter).with(tracing_subscriber::fmt::layer()).init();
    let (ready, addresses) = mpsc::channel();
    let gateway = thread::spawn(move || {
        let process = Process { inherited: Inherited::default(), log, read: None };
        let started = run(config, process, |addresses| ready.send(addresses).expect("the test"));
        started.expect("a gateway")
    });
    (addresses.recv_timeout(DEADLINE).expect("a gateway that listens"), gateway)
}

/// The allocations of the process so far. A block that grows counts as a new one.
fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

#[test]
fn operations_allocate_no_more_than_their_limits() {
    let upstream = Upstream::start();
    let (Addresses { public, admin, .. }, thread) = start(&settings(upstream.address()));
    let gateway = Gateway { public, admin };
    let counts = gateway.count_operations(&upstream, &mut allocations);
    gateway.drain();
    assert_eq!(thread.join().expect("the gateway's thread"), Outcome::Drained);
    let mut exceeded = Vec::new();
    for ((name, limit), (counted, count)) in LIMITS.into_iter().zip(counts) {
        assert_eq!(name, counted);
        println!("{count:8.2} (at most {limit}): {name}");
        if count.round() > limit as f64 {
            exceeded.push(format!("{name}: {count:.2} allocations, at most {limit}"));
        }
    }
    assert!(exceeded.is_empty(), "more than before:\n{}", exceeded.join("\n"));
}
