//! What has ended lately, so that it does not end twice.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::Position;

/// Ends that are remembered, about 4 MB; beyond it the oldest are forgotten.
const MAX_ENDS: usize = 64 * 1024;

/// Ends by a number that stands for whatever ended. Bounded by count and time.
pub(super) struct Ended {
    /// For how long an end is remembered.
    time: Duration,
    /// When, and where that publication was: one that is seen again is no second end.
    ends: HashMap<u64, (Instant, Option<Position>)>,
    /// Oldest first. Holds some that were forgotten or ended again since.
    order: VecDeque<(Instant, u64)>,
}

impl Ended {
    pub fn new(time: Duration) -> Self {
        Self { time, ends: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether it ended before, by another publication than the one at `position`.
    pub fn ended_before(&self, what: u64, position: Option<Position>, now: Instant) -> bool {
        self.ends.get(&what).is_some_and(|(at, place)| {
            now.duration_since(*at) < self.time && (position.is_none() || *place != position)
        })
    }

    /// Whether it has ended at all.
    pub fn contains(&self, what: u64, now: Instant) -> bool {
        self.ended_before(what, None, now)
    }

    pub fn insert(&mut self, what: u64, position: Option<Position>, now: Instant) {
        self.sweep(now);
        self.ends.insert(what, (now, position));
        self.order.push_back((now, what));
    }

    /// Forgets what is too old, and the oldest where there are too many for one more.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((at, oldest)) = self.order.front().copied()
            && (self.order.len() >= MAX_ENDS || now.duration_since(at) >= self.time)
        {
            self.order.pop_front();
            if self.ends.get(&oldest).is_some_and(|(end, _)| *end == at) {
                self.ends.remove(&oldest);
            }
        }
    }

    /// It has begun anew.
    pub fn forget(&mut self, what: u64) {
        self.ends.remove(&what);
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Epoch;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_end_is_remembered_for_its_time() {
        let (mut ended, now) = (Ended::new(MINUTE), Instant::now());
        ended.insert(1, None, now);
        assert!(ended.contains(1, now + MINUTE / 2) && !ended.contains(2, now));
        assert!(!ended.contains(1, now + MINUTE));
        ended.forget(1);
        assert!(!ended.contains(1, now));
        ended.insert(2, None, now + 2 * MINUTE);
        assert_eq!((ended.ends.len(), ended.order.len()), (1, 1));
    }

    #[test]
    fn the_same_publication_is_no_second_end() {
        let place = |offset| Some(Position { epoch: Epoch::new(1).unwrap(), offset });
        let (mut ended, now) = (Ended::new(MINUTE), Instant::now());
        ended.insert(1, place(7), now);
        assert!(!ended.ended_before(1, place(7), now));
        assert!(ended.ended_before(1, place(8), now));
        assert!(ended.ended_before(1, None, now));
    }

    #[test]
    fn the_oldest_make_way() {
        let (mut ended, now) = (Ended::new(MINUTE), Instant::now());
        for what in 0..2 * MAX_ENDS as u64 {
            ended.insert(what, None, now);
        }
        assert_eq!((ended.ends.len(), ended.order.len()), (MAX_ENDS, MAX_ENDS));
        assert!(!ended.contains(0, now) && ended.contains(2 * MAX_ENDS as u64 - 1, now));
    }
}
