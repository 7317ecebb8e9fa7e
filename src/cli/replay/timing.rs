//! When each publication of a replay is due.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReplaySpeed {
    /// The factor by which recorded pauses are shortened.
    Factor(f64),
    /// No pauses.
    Max,
}

/// Parses a factor from 0.001 to 1000, or `max`.
pub fn parse_speed(text: &str) -> Result<ReplaySpeed, String> {
    if text == "max" {
        return Ok(ReplaySpeed::Max);
    }
    match text.parse::<f64>() {
        Ok(factor) if (0.001..=1000.0).contains(&factor) => Ok(ReplaySpeed::Factor(factor)),
        _ => {
            Err(format!("{text:?} is not a valid speed; write a number from 0.001 to 1000, or max"))
        }
    }
}

/// Computes when the next publication is due.
pub struct ReplayTiming {
    speed: ReplaySpeed,
    every: Option<Duration>,
    max_pause: Option<Duration>,
    /// When the last publication was due, and the last recorded time.
    last: Option<(Instant, Option<Duration>)>,
}

impl ReplayTiming {
    pub fn new(speed: ReplaySpeed, every: Option<Duration>, max_pause: Option<Duration>) -> Self {
        Self { speed, every, max_pause, last: None }
    }

    /// Waits until the publication that was recorded `at` this time is due. A late publication does not
    /// delay the ones after it.
    pub async fn wait(&mut self, at: Option<Duration>) {
        let due = self.due(at, Instant::now());
        tokio::time::sleep_until(due).await;
    }

    fn due(&mut self, at: Option<Duration>, now: Instant) -> Instant {
        let Some((due, before)) = self.last else {
            self.last = Some((now, at));
            return now;
        };
        let recorded = at.zip(before).map(|(at, before)| at.saturating_sub(before));
        let pause = match (self.every, self.speed, recorded) {
            (Some(every), _, _) => every,
            (None, ReplaySpeed::Factor(factor), Some(pause)) => pause.div_f64(factor),
            (None, ReplaySpeed::Max, _) | (None, _, None) => Duration::ZERO,
        };
        let due = due + self.max_pause.map_or(pause, |longest| pause.min(longest));
        self.last = Some((due, at.or(before)));
        due
    }
}

#[cfg(test)]
mod tests;
