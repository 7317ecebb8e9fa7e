//! When a certificate is renewed, and when what has failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

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

/// The attempts that have failed since one succeeded.
#[derive(Default)]
pub(super) struct Failures {
    count: u32,
    /// When the next attempt may begin.
    until: Option<Instant>,
}

impl Failures {
    /// Counts one more. `wanted` is the pause that the authority asks for. Returns the pause.
    pub fn add(&mut self, now: Instant, wanted: Option<Duration>) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.count.min(16)).min(LONGEST_PAUSE);
        let pause = doubled.max(wanted.unwrap_or_default().min(LONGEST_WANTED));
        self.count += 1;
        self.until = Some(now + pause);
        pause
    }

    /// How long the pause still lasts.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Forgets all of them.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
