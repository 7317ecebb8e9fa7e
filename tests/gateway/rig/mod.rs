//! What the tests stand on: processes to start, clients to speak with, servers to be relayed to.
//!
//! The rig owns starting and ending these and waiting for what they do. It asserts nothing about the
//! gateway beyond what makes a conversation possible; that is left to the tests. Every wait has a
//! deadline and says what it waited for, and nothing sleeps for a time in order to be right.

#![allow(
    dead_code,
    reason = "a rig offers whole conversations, whichever of them today's tests hold"
)]

use std::future::Future;
use std::time::Duration;

pub mod backend;
pub mod client;
pub mod echo;
pub mod frame;
pub mod gateway;
pub mod http;
pub mod jwt;
pub mod raw;
pub mod redis;
pub mod settings;
mod smoke;
pub mod socket;
pub mod upstream;

pub use backend::Backend;
pub use client::Client;
pub use gateway::Gateway;
pub use raw::RawClient;
pub use redis::Redis;
pub use settings::{API_KEY, Settings};
pub use socket::{Event, Socket};
pub use upstream::{Reply, Upstream};

/// Longer than anything a working gateway needs on a busy machine, and than the patience that it has
/// with a silent peer; a test that waits this long fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at something that can only be looked at.
const POLL: Duration = Duration::from_millis(5);

/// `future`'s value, or a panic that names `what` did not happen in time.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("within {DEADLINE:?}: no {what}"),
    }
}

/// Looks at `probe` until it gives a value.
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
