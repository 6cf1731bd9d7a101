//! The hybrid logical clock.
//!
//! It gives every event of one writer its own timestamp, in the order in which they happened, as
//! close to the wall clock as that allows. The wall clock is an argument, and may stand still or
//! run backwards.
//!
//! # Why timestamps may go back
//!
//! A node whose wall clock was ten years ahead has given timestamps of that time. When its clock
//! is set right, or corrected (see [`judge`]), its hybrid clock must come back with it, or the node
//! would go on winning every collision for ten years. So timestamps of one writer grow only as long
//! as its clock is not found wrong. Nothing relies on more: timestamps decide between writes that
//! do not know each other, and a later write of the same node to the same field supersedes the one
//! before by causality, whatever their timestamps.

mod verdict;

use std::time::Duration;

use crate::ids::Timestamp;

pub use verdict::{Verdict, judge};

/// How far one clock is ahead of another, in microseconds; negative if it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClockOffset(pub i64);

impl ClockOffset {
    /// Returns how far `one` is ahead of `other`.
    #[must_use]
    pub fn between(one: Timestamp, other: Timestamp) -> Self {
        Self(i64::try_from(i128::from(one.0) - i128::from(other.0)).unwrap_or(i64::MAX))
    }

    /// Returns what a clock shows that is so much ahead of one that shows `wall`.
    #[must_use]
    pub fn add_to(self, wall: Timestamp) -> Timestamp {
        Timestamp(wall.0.saturating_add_signed(self.0)).min(Timestamp::MAX)
    }
}

/// What was measured of another wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredClock {
    /// How far it is ahead of the own one, give or take half the round trip.
    pub offset: ClockOffset,
    /// The round trip over which that was measured.
    pub round_trip: Duration,
}

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
    ///
    /// It is greater than every one before, until [`Timestamp::MAX`] (in the year 2255), which
    /// repeats.
    pub fn tick(&mut self, wall: Timestamp) -> Timestamp {
        let next = Timestamp(self.last.0.saturating_add(1));
        self.last = wall.max(next).min(Timestamp::MAX);
        self.last
    }

    /// Takes note of a peer's timestamp, so that later ticks are greater; one that is more than
    /// `skew` microseconds ahead of the wall clock stems from a clock that is wrong, and moves
    /// nothing: a little from each such peer would keep every clock ahead by the skew.
    pub fn observe(&mut self, seen: Timestamp, wall: Timestamp, skew: u64) {
        if seen <= furthest(wall, skew) {
            self.last = self.last.max(seen);
        }
    }

    /// Comes back to the wall clock from a future that was wrong, which is more than `skew`
    /// microseconds ahead of it.
    pub fn reseat(&mut self, wall: Timestamp, skew: u64) {
        if self.last > furthest(wall, skew) {
            self.last = wall;
        }
    }
}

/// The latest timestamp that a clock within the skew can show.
fn furthest(wall: Timestamp, skew: u64) -> Timestamp {
    Timestamp(wall.0.saturating_add(skew)).min(Timestamp::MAX)
}

/// Reads a change time that another program wrote, in whatever unit its size tells: seconds (what
/// stock Automerge writes), milliseconds (what JavaScript writes) or microseconds.
///
/// A time before 1970 counts as 1970, because a timestamp has no sign.
#[must_use]
pub fn normalise(raw: i64) -> Timestamp {
    let raw = u64::try_from(raw).unwrap_or(0);
    let microseconds = match raw {
        0..SECONDS_END => raw.saturating_mul(1_000_000),
        SECONDS_END..MILLISECONDS_END => raw.saturating_mul(1_000),
        MILLISECONDS_END.. => raw,
    };
    Timestamp(microseconds).min(Timestamp::MAX)
}

/// As seconds the year 5138, as milliseconds the year 1973.
const SECONDS_END: u64 = 100_000_000_000;

/// As milliseconds the year 5138, as microseconds the year 1973.
const MILLISECONDS_END: u64 = 100_000_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const TEN_YEARS: u64 = 10 * 365 * 86_400 * 1_000_000;
    const NOW: u64 = 1_790_000_000_000_000;

    #[test]
    fn a_clock_that_stands_still_or_runs_back_still_advances() {
        let mut clock = HybridClock::resume(Timestamp(NOW));
        let ticks = [NOW, NOW, NOW - TEN_YEARS, NOW + 2, NOW + 9].map(|t| clock.tick(Timestamp(t)));
        assert_eq!(ticks.map(|tick| tick.0 - NOW), [1, 2, 3, 4, 9]);
    }

    #[test]
    fn a_peer_ten_years_ahead_does_not_move_the_clock() {
        let mut clock = HybridClock::default();
        clock.observe(Timestamp(NOW + TEN_YEARS), Timestamp(NOW), 500_000);
        assert_eq!(clock.tick(Timestamp(NOW)), Timestamp(NOW));
    }

    #[test]
    fn a_peer_within_the_skew_is_followed() {
        let mut clock = HybridClock::default();
        clock.observe(Timestamp(NOW + 20), Timestamp(NOW), 500_000);
        assert_eq!(clock.tick(Timestamp(NOW + 3)), Timestamp(NOW + 21));
    }

    #[test]
    fn a_clock_that_was_ten_years_ahead_comes_back() {
        let mut clock = HybridClock::resume(Timestamp(NOW + TEN_YEARS));
        assert_eq!(clock.tick(Timestamp(NOW)), Timestamp(NOW + TEN_YEARS + 1));
        clock.reseat(Timestamp(NOW), 500_000);
        assert_eq!(clock.tick(Timestamp(NOW)), Timestamp(NOW + 1));
    }

    #[test]
    fn a_clock_within_the_skew_keeps_its_place() {
        let mut clock = HybridClock::resume(Timestamp(NOW + 400_000));
        clock.reseat(Timestamp(NOW), 500_000);
        assert_eq!(clock.tick(Timestamp(NOW)), Timestamp(NOW + 400_001));
    }

    #[test]
    fn an_offset_takes_one_clock_to_the_other() {
        let (here, there) = (Timestamp(NOW), Timestamp(NOW - TEN_YEARS));
        assert_eq!(ClockOffset::between(there, here).add_to(here), there);
        assert_eq!(ClockOffset::between(here, there).add_to(there), here);
        assert_eq!(ClockOffset(i64::MIN).add_to(here), Timestamp(0));
        assert_eq!(ClockOffset(i64::MAX).add_to(here), Timestamp::MAX);
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let mut clock = HybridClock::default();
        clock.observe(Timestamp::MAX, Timestamp(u64::MAX), u64::MAX);
        assert_eq!(clock.tick(Timestamp(u64::MAX)), Timestamp::MAX);
        assert_eq!(clock.tick(Timestamp(0)), Timestamp::MAX);
        assert_eq!(HybridClock::resume(Timestamp(u64::MAX)).tick(Timestamp(0)), Timestamp::MAX);
    }

    #[test]
    fn foreign_units_are_told_apart() {
        let instant = Timestamp(1_790_000_000_000_000);
        assert_eq!(normalise(1_790_000_000), instant);
        assert_eq!(normalise(1_790_000_000_000), instant);
        assert_eq!(normalise(1_790_000_000_000_000), instant);
        assert_eq!(normalise(0), Timestamp(0));
        assert_eq!(normalise(-1), Timestamp(0));
        assert_eq!(normalise(i64::MIN), Timestamp(0));
        assert_eq!(normalise(99_999_999_999), Timestamp::MAX);
        assert_eq!(normalise(100_000_000_000), Timestamp(100_000_000_000_000));
        assert_eq!(normalise(99_999_999_999_999), Timestamp::MAX);
        assert_eq!(normalise(100_000_000_000_000), Timestamp(100_000_000_000_000));
        assert_eq!(normalise(i64::MAX), Timestamp::MAX);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Tick,
        Observe(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Tick), (0..NOW + TEN_YEARS).prop_map(Step::Observe)]
    }

    proptest! {
        #[test]
        fn ticks_grow_and_stay_near_the_wall(
            steps in vec((step(), NOW - 1000..NOW + 1000), 1..100),
            floor in NOW - 2000..NOW + 2000,
            skew in 0_u64..1_000_000,
        ) {
            let mut clock = HybridClock::resume(Timestamp(floor));
            let (mut last, mut ticks, mut furthest) = (floor, 0, floor);
            for (step, wall) in steps {
                match step {
                    Step::Observe(seen) => {
                        clock.observe(Timestamp(seen), Timestamp(wall), skew);
                        furthest = furthest.max(seen.min(wall + skew));
                    }
                    Step::Tick => {
                        let tick = clock.tick(Timestamp(wall)).0;
                        ticks += 1;
                        furthest = furthest.max(wall);
                        prop_assert!(tick > last && tick >= wall);
                        prop_assert!(tick <= furthest + ticks);
                        last = tick;
                    }
                }
            }
        }

        #[test]
        fn what_was_observed_within_the_skew_is_before_the_next_tick(
            ahead in 0_u64..1000, skew in 0_u64..1000, floor in 0..NOW + 1000,
        ) {
            let mut clock = HybridClock::resume(Timestamp(floor));
            clock.observe(Timestamp(NOW + ahead), Timestamp(NOW), skew);
            let tick = clock.tick(Timestamp(NOW)).0;
            let seen = if ahead <= skew { NOW + ahead + 1 } else { NOW };
            prop_assert_eq!(tick, seen.max(floor + 1));
        }

        #[test]
        fn every_foreign_time_becomes_a_timestamp(raw in any::<i64>()) {
            prop_assert!(normalise(raw) <= Timestamp::MAX);
        }
    }
}
