//! Calls that are tried again after a pause while the engine is unavailable.

use std::time::Duration;

/// Calls `attempt` until it succeeds or fails with an error that is not `transient`, at most `attempts` times
/// and with `pause` between two. Returns the outcome of the last call.
pub async fn retry<T, E, F: Future<Output = Result<T, E>>>(
    attempts: usize,
    pause: Duration,
    transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let mut left = attempts;
    loop {
        left = left.saturating_sub(1);
        match attempt().await {
            Err(error) if left > 0 && transient(&error) => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
}

/// Calls `attempt` until it succeeds, with `pause` between two calls.
pub async fn retry_forever<T, E, F: Future<Output = Result<T, E>>>(
    pause: Duration,
    mut attempt: impl FnMut() -> F,
) -> T {
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(_) => tokio::time::sleep(pause).await,
        }
    }
}

#[cfg(test)]
mod tests;
