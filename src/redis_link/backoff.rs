//! How long to wait before the next attempt to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(1);

/// Waits that double from 50 ms to 1 s. Each is drawn from the upper half of its range, so that the nodes
/// that lost the same Redis at the same moment do not reconnect at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Self { ceiling: FIRST }
    }

    /// Returns the next wait: between half of the current ceiling and all of it.
    pub fn next(&mut self) -> Duration {
        let half = self.ceiling / 2;
        self.ceiling = (self.ceiling * 2).min(CAP);
        half + half.mul_f64(random_fraction())
    }

    /// Starts over. To be called once a connection has held for a while.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }
}

/// A number in `0.0..1.0`. Where the system gives no random bytes, the waits are merely not spread.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_and_stay_in_the_upper_half() {
        let mut backoff = Backoff::new();
        for ceiling in [50, 100, 200, 400, 800, 1000, 1000] {
            let ceiling = Duration::from_millis(ceiling);
            let wait = backoff.next();
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits: std::collections::HashSet<_> =
            (0..20).map(|_| Backoff::new().next().as_nanos()).collect();
        assert!(waits.len() > 1);
    }
}
