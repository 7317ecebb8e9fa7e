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
mod tests {
    use std::future::ready;

    use super::*;

    async fn run(
        attempts: usize,
        outcomes: &[Result<u8, &'static str>],
    ) -> (Result<u8, &'static str>, usize) {
        let mut calls = 0;
        let outcome = retry(
            attempts,
            Duration::ZERO,
            |error| *error == "away",
            || {
                calls += 1;
                ready(outcomes[calls - 1])
            },
        );
        let outcome = outcome.await;
        (outcome, calls)
    }

    #[tokio::test]
    async fn only_transient_errors_are_tried_again_and_not_for_ever() {
        assert_eq!(run(3, &[Err("away"), Err("away"), Ok(7)]).await, (Ok(7), 3));
        assert_eq!(run(3, &[Err("away"), Err("refused")]).await, (Err("refused"), 2));
        assert_eq!(run(2, &[Err("away"), Err("away")]).await, (Err("away"), 2));
    }

    #[tokio::test]
    async fn without_a_bound_it_is_tried_until_it_succeeds() {
        let mut left = 5;
        let outcome = retry_forever(Duration::ZERO, || {
            left -= 1;
            ready(if left == 0 { Ok(7) } else { Err("away") })
        });
        assert_eq!(outcome.await, 7);
    }
}
