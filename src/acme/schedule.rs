//! When a certificate is renewed, and when what has failed is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The pause after a first failure. It doubles with each further one: an authority such as Let's Encrypt allows a name five
/// failed validations an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4 * 3600);

/// The longest pause that an authority can ask for.
const LONGEST_WANTED: Duration = Duration::from_secs(24 * 3600);

/// Spreads the renewals of gateways with certificates of the same age.
pub(super) struct Spread {
    /// From 0 to 1.
    share: f64,
}

impl Spread {
    pub fn random() -> Self {
        Self { share: rand::random() }
    }

    #[cfg(test)]
    fn exactly(share: f64) -> Self {
        Self { share }
    }

    /// The time at which a certificate is renewed, all in seconds since 1970: when at most a third of its lifetime is left,
    /// and up to a thirtieth of it earlier.
    pub fn renewal(&self, not_before: u64, not_after: u64) -> u64 {
        let lifetime = not_after.saturating_sub(not_before);
        let earlier = (lifetime as f64 / 30.0 * self.share) as u64;
        (not_before + lifetime / 3 * 2).saturating_sub(earlier)
    }
}

/// The attempts that have failed since one succeeded, of all gateways that share the directory, and over restarts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    count: u32,
    /// When the next attempt may begin, in seconds since 1970.
    until: u64,
}

impl Failures {
    /// Counts one more at `now`, in seconds since 1970. `wanted` is the pause that the authority asks for. Returns the pause.
    pub fn add(&mut self, now: u64, wanted: Option<Duration>) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.count.min(16)).min(LONGEST_PAUSE);
        let pause = doubled.max(wanted.unwrap_or_default().min(LONGEST_WANTED));
        self.count = self.count.saturating_add(1);
        self.until = now + pause.as_secs();
        pause
    }

    /// How long the pause still lasts. A clock that was set back makes it no longer than any pause.
    pub fn remaining(&self, now: u64) -> Option<Duration> {
        let left = Duration::from_secs(self.until.saturating_sub(now)).min(LONGEST_WANTED);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests;
