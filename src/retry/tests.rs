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
