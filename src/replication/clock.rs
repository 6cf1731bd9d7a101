//! The wall clocks of peers, measured as NTP does it: over the digests that are sent anyway.
//!
//! A digest carries a reading of the sender's wall clock, a mark that the receiver sends back in
//! its own next digest, and the mark that it last got, with how long it has kept that. So every
//! digest that brings a mark back tells a round trip, and what the peer's clock shows after half
//! of it. The error is half the round trip at most, however lopsided the path is.
//!
//! Measurements are kept against the monotonic clock of this process, not against its wall clock:
//! when that is set, every offset changes at once, and no measurement has to be made again. They
//! outlive links, because a node that is cut off must not believe its wrong clock again. (A machine
//! that slept, where the monotonic clock stood still, takes the peers for slow until it hears them.)

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_crdt::clock::{ClockOffset, MeasuredClock};
use anabranch_crdt::ids::{RegionName, Timestamp};

use super::frame::{Echo, Reading};
use super::{Now, Replication, Turn};

/// What was measured of one peer's clock.
#[derive(Debug, Default)]
pub(super) struct PeerClock {
    /// The latest measurements, the newest last.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// What the peer's wall clock showed when the monotonic clock here was zero, in microseconds.
    zero: i64,
    round_trip: Duration,
}

impl PeerClock {
    /// Takes note of what the peer's wall clock shows now.
    fn note(&mut self, wall: Timestamp, round_trip: Duration, monotonic: Duration) {
        let sample = Sample { zero: signed(wall.0) - signed(micros(monotonic)), round_trip };
        // What neither's error explains is a clock that was set in between.
        if self.best().is_some_and(|best| !best.agrees(sample)) {
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Returns the measurement with the shortest round trip, and of these the newest.
    fn best(&self) -> Option<Sample> {
        self.samples.iter().rev().min_by_key(|sample| sample.round_trip).copied()
    }

    /// Returns when, on the monotonic clock here, the peer's wall clock showed `wall`; `None` before
    /// it was measured.
    pub(super) fn moment(&self, wall: Timestamp) -> Option<Duration> {
        let since = signed(wall.0).saturating_sub(self.best()?.zero);
        Some(Duration::from_micros(u64::try_from(since).unwrap_or_default()))
    }

    /// Returns how far the peer's wall clock is ahead of the own one now.
    pub(super) fn measured(&self, now: Now) -> Option<MeasuredClock> {
        let best = self.best()?;
        let shows = best.zero.saturating_add(signed(micros(now.monotonic)));
        let offset = ClockOffset(shows.saturating_sub(signed(now.wall.0)));
        Some(MeasuredClock { offset, round_trip: best.round_trip })
    }
}

impl Sample {
    fn agrees(self, other: Self) -> bool {
        let error = (self.round_trip + other.round_trip) / 2 + DRIFT;
        self.zero.abs_diff(other.zero) <= micros(error)
    }
}

/// The last mark that came over a link, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    mark: u64,
    at: Duration,
}

/// Reads the own clocks for a digest on a link.
pub(super) fn reading(heard: Option<Heard>, now: Now) -> Reading {
    let echo = heard.map(|heard| Echo {
        mark: heard.mark,
        held: micros(now.monotonic.saturating_sub(heard.at)),
    });
    Reading { wall: now.wall, mark: micros(now.monotonic), echo }
}

impl Replication {
    /// Takes a reading of a peer's clock.
    pub(super) fn handle_reading(
        &mut self,
        region: &RegionName,
        reading: Reading,
        turn: &mut Turn<'_>,
    ) {
        let (now, interval) = (turn.monotonic(), self.settings.digest_interval);
        let Some(peer) = self.peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let first = link.heard_mark.replace(Heard { mark: reading.mark, at: now }).is_none();
        if first {
            // The peer's first measurement waits for it, and a wrong clock does harm until then.
            link.hasten_digest(now, interval);
        }
        let Some(round_trip) = reading.echo.and_then(|echo| round_trip(echo, now)) else { return };
        let shows = reading.wall.0.saturating_add(micros(round_trip / 2));
        peer.clock.note(Timestamp(shows).min(Timestamp::MAX), round_trip, now);
    }
}

/// Returns how long the mark was on the way; `None` if it was never sent.
fn round_trip(echo: Echo, now: Duration) -> Option<Duration> {
    let away = micros(now).checked_sub(echo.mark)?;
    Some(Duration::from_micros(away.saturating_sub(echo.held)))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Measurements of which the best one counts: enough that one of them met no queue.
const SAMPLES: usize = 8;

/// By how much two clocks may drift apart while the measurements of one are kept.
const DRIFT: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(monotonic: u64, wall: u64) -> Now {
        Now { monotonic: millis(monotonic), wall: Timestamp(NOW + wall * 1_000) }
    }

    fn offset(clock: &PeerClock, now: Now) -> i64 {
        clock.measured(now).unwrap().offset.0
    }

    #[test]
    fn the_measurement_with_the_shortest_round_trip_counts() {
        let mut clock = PeerClock::default();
        clock.note(Timestamp(NOW + 40_000), millis(100), millis(1_000));
        clock.note(Timestamp(NOW + 1_009_000), millis(20), millis(2_000));
        clock.note(Timestamp(NOW + 2_060_000), millis(200), millis(3_000));
        assert_eq!(offset(&clock, at(3_500, 2_500)), 9_000);
        assert_eq!(clock.measured(at(3_500, 2_500)).unwrap().round_trip, millis(20));
    }

    #[test]
    fn a_peer_that_sets_its_clock_is_measured_anew() {
        let mut clock = PeerClock::default();
        clock.note(Timestamp(NOW), millis(2), millis(1_000));
        clock.note(Timestamp(NOW + 61_000_000), millis(90), millis(2_000));
        assert_eq!(offset(&clock, at(2_000, 1_000)), 60_000_000);
    }

    #[test]
    fn the_own_clock_that_is_set_changes_every_offset_at_once() {
        let mut clock = PeerClock::default();
        clock.note(Timestamp(NOW), millis(2), millis(1_000));
        assert_eq!(offset(&clock, at(1_500, 500)), 0);
        assert_eq!(offset(&clock, at(1_500, 60_500)), -60_000_000);
    }

    #[test]
    fn a_long_lived_clock_forgets_old_measurements() {
        let mut clock = PeerClock::default();
        clock.note(Timestamp(NOW), millis(1), millis(0));
        for second in 1..=SAMPLES as u64 {
            clock.note(Timestamp(NOW + second * 1_000_000), millis(30), millis(second * 1_000));
            assert!(clock.samples.len() <= SAMPLES);
        }
        assert_eq!(clock.best().unwrap().round_trip, millis(30));
    }

    #[test]
    fn a_mark_that_was_never_sent_measures_nothing() {
        assert_eq!(round_trip(Echo { mark: 5_000_001, held: 0 }, millis(5_000)), None);
        let echo = Echo { mark: 4_000_000, held: 990_000 };
        assert_eq!(round_trip(echo, millis(5_000)), Some(millis(10)));
        let echo = Echo { mark: 4_000_000, held: u64::MAX };
        assert_eq!(round_trip(echo, millis(5_000)), Some(Duration::ZERO));
    }
}
