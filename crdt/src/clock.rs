//! The hybrid logical clock.

use crate::ids::Timestamp;

/// A hybrid logical clock: microseconds of the wall clock, advanced by one where that has not
/// moved, and never behind what was seen.
#[derive(Debug, Clone, Default)]
pub struct HybridClock {
    last: Timestamp,
}

impl HybridClock {
    /// Makes a clock that never gives a timestamp at or below `last`.
    #[must_use]
    pub fn resume(last: Timestamp) -> Self {
        Self { last }
    }

    /// Gives the timestamp of an event that happens now.
    pub fn tick(&mut self, wall: Timestamp) -> Timestamp {
        let _ = wall;
        todo!()
    }

    /// Takes note of a peer's timestamp, so that later ticks are greater; one that is more than
    /// `skew` microseconds ahead of the wall clock moves the clock by no more than that.
    pub fn observe(&mut self, seen: Timestamp, wall: Timestamp, skew: u64) {
        let _ = (seen, wall, skew);
        todo!()
    }
}
