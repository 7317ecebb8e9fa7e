//! The test rig: processes to start, clients to connect with, servers to relay to.
//!
//! The rig starts and stops these and waits for what they do. It asserts nothing about the gateway except
//! what makes a connection possible; the rest is left to the tests. Every wait has a
//! deadline and names what it waited for, and no result depends on sleeping for long enough.

#![allow(
    dead_code,
    reason = "a rig offers whole conversations, whichever of them today's tests hold"
)]

use std::future::Future;
use std::time::{Duration, Instant};

pub mod backend;
pub mod client;
pub mod cluster;
pub mod deflate;
pub mod echo;
pub mod frame;
pub mod free_port;
pub mod gateway;
pub mod h2;
pub mod http;
pub mod jwt;
pub mod process;
pub mod raw;
pub mod raw_server;
pub mod redis;
pub mod sentinel;
pub mod settings;
mod smoke;
pub mod socket;
pub mod tcp_proxy;
pub mod tls_front;
pub mod tls_tunnel;
pub mod upstream;

pub use backend::Backend;
pub use client::Client;
pub use cluster::{AnyCluster, Cluster};
pub use free_port::free_address;
pub use gateway::Gateway;
pub use raw::RawClient;
pub use raw_server::{RawPeer, RawServer};
pub use redis::Redis;
pub use sentinel::Sentinels;
pub use settings::{API_KEY, CHAT_ROUTE, Settings};
pub use socket::{Event, Socket};
pub use tcp_proxy::{Direction, TcpProxy};
pub use tls_front::TlsFront;
pub use tls_tunnel::{TlsClient, TlsTunnel};
pub use upstream::{Reply, Upstream, in_turn};

/// Longer than anything that a working gateway needs on a busy machine, and longer than its own timeouts
/// for a silent peer. A test that waits this long fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The time between two checks of a condition that can only be polled.
const POLL: Duration = Duration::from_millis(5);

/// Waits for the value of `future`; panics and names `what` if it takes longer than [`DEADLINE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("within {DEADLINE:?}: no {what}"),
    }
}

/// Calls `probe` until it returns a value.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}

/// Prints how long a recovery from `fault` took, for docs/reliability.md. It is never asserted.
pub fn recovered(fault: &str, since: Instant) {
    eprintln!("recovery: {fault}: {:.1} s", since.elapsed().as_secs_f64());
}
