//! The node's hybrid clock: one for all owners, so that timestamps never repeat on a node.
//!
//! It runs on the wall clock of this machine plus a correction, which is zero as long as that
//! agrees with the clocks of the other regions (see [`anabranch_crdt::clock::judge`]). Before the
//! others were heard the wall clock is all there is, and the greatest timestamp that this node
//! gave before its restart holds it up: a machine that starts in 1970 goes on from there. Once they
//! were heard, that floor counts no more than the allowed skew, because it may stem from a clock
//! that was wrong.
//!
//! A wall clock that is set by more than the skew while the node runs is not followed before it is
//! judged: until then time goes on by the monotonic clock from the last verdict.

mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anabranch_crdt::clock::{ClockOffset, HybridClock, MeasuredClock, Verdict, judge};
use anabranch_crdt::ids::{RegionName, Timestamp};

use watch::Watch;

/// Reads the wall clock; a component, so that tests can set it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Reads a clock that never goes back; only differences count.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The hybrid clock of a node; clones share it.
#[derive(Clone)]
pub struct NodeClock {
    shared: Arc<Shared>,
    wall: WallClock,
    monotonic: MonotonicClock,
    skew: u64,
}

/// Another region, and what was measured of its wall clock, if it was heard.
pub type PeerClock = (RegionName, Option<MeasuredClock>);

/// What an operator sees of the clock of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockStatus {
    /// By how much the wall clock is corrected.
    pub correction: ClockOffset,
    /// Changes admitted here whose writer claimed a time later than their admission.
    pub clamped: u64,
    /// How often a peer was found skewed and warned of, by region.
    pub warnings: BTreeMap<RegionName, u64>,
}

struct Shared {
    seat: Mutex<Seat>,
    watch: Mutex<Watch>,
    clamped: AtomicU64,
}

/// The clock and what it runs on.
struct Seat {
    hybrid: HybridClock,
    correction: ClockOffset,
    /// The corrected time of the last verdict, and when that was.
    judged: Option<(Timestamp, Duration)>,
}

impl NodeClock {
    /// Starts at `floor`, the greatest timestamp that this node ever gave.
    #[must_use]
    pub fn new(wall: WallClock, floor: Timestamp, skew: Duration) -> Self {
        let skew = u64::try_from(skew.as_micros()).unwrap_or(u64::MAX);
        let hybrid = HybridClock::resume(floor);
        let seat = Seat { hybrid, correction: ClockOffset::default(), judged: None };
        let shared = Shared {
            seat: Mutex::new(seat),
            watch: Mutex::new(Watch::new(skew)),
            clamped: AtomicU64::new(0),
        };
        let began = Instant::now();
        Self { shared: Arc::new(shared), wall, monotonic: Arc::new(move || began.elapsed()), skew }
    }

    /// Takes the monotonic time from another clock than this machine's.
    #[must_use]
    pub fn timed_by(mut self, monotonic: MonotonicClock) -> Self {
        self.monotonic = monotonic;
        self
    }

    /// Gives the timestamp of something that happens now.
    #[must_use]
    pub fn tick(&self) -> Timestamp {
        let reading = self.reading();
        let mut seat = self.seat();
        let now = seat.now(reading, self.skew);
        seat.hybrid.tick(now)
    }

    /// Reads the wall clock, for what is no timestamp of a change.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// Reads the corrected clock, if the clocks of the other regions have judged it.
    #[must_use]
    pub fn judged(&self) -> Option<Timestamp> {
        let reading = self.reading();
        let seat = self.seat();
        seat.judged.is_some().then(|| seat.now(reading, self.skew))
    }

    /// Takes note of a peer's timestamp, unless it is ahead by more than the allowed skew.
    pub fn observe(&self, seen: Timestamp) {
        let reading = self.reading();
        let mut seat = self.seat();
        let now = seat.now(reading, self.skew);
        seat.hybrid.observe(seen, now, self.skew);
    }

    /// Judges the wall clock by those of all other regions, corrects it if it is wrong, and warns
    /// of clocks that are. `now` is the monotonic clock of the process.
    ///
    /// A clock that was measured over a longer round trip than the allowed skew is not known well
    /// enough to count.
    pub fn judge(&self, peers: &[PeerClock], now: Duration) {
        let skew = Duration::from_micros(self.skew);
        let known: Vec<(&RegionName, MeasuredClock)> = peers
            .iter()
            .filter_map(|(region, clock)| Some((region, (*clock)?)))
            .filter(|(_, clock)| clock.round_trip <= skew)
            .collect();
        let offsets: Vec<ClockOffset> = known.iter().map(|(_, clock)| clock.offset).collect();
        let reading = self.reading();
        let mut seat = self.seat();
        let correction = match judge(seat.correction, &offsets, peers.len() + 1, self.skew) {
            Verdict::Undecided => seat.correction,
            Verdict::Believed => seat.correct(ClockOffset::default(), reading, self.skew),
            Verdict::Corrected(by) => seat.correct(by, reading, self.skew),
        };
        drop(seat);
        self.watch().look(correction, &known, now);
    }

    /// Counts changes whose writer claims a time later than their admission.
    pub(crate) fn count_clamped(&self, changes: usize) {
        let changes = u64::try_from(changes).unwrap_or(u64::MAX);
        self.shared.clamped.fetch_add(changes, Ordering::Relaxed);
    }

    /// Returns what an operator sees of the clock.
    #[must_use]
    pub fn status(&self) -> ClockStatus {
        ClockStatus {
            correction: self.seat().correction,
            clamped: self.shared.clamped.load(Ordering::Relaxed),
            warnings: self.watch().warnings(),
        }
    }

    fn reading(&self) -> Reading {
        Reading { wall: (self.wall)(), monotonic: (self.monotonic)() }
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.shared.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Reading {
    wall: Timestamp,
    monotonic: Duration,
}

impl Seat {
    fn correct(&mut self, by: ClockOffset, reading: Reading, skew: u64) -> ClockOffset {
        let now = by.add_to(reading.wall);
        self.correction = by;
        self.judged = Some((now, reading.monotonic));
        self.hybrid.reseat(now, skew);
        by
    }

    /// Returns the corrected time, unless the wall clock was set since the last verdict.
    fn now(&self, reading: Reading, skew: u64) -> Timestamp {
        let shown = self.correction.add_to(reading.wall);
        let Some((judged, at)) = self.judged else { return shown };
        let passed = reading.monotonic.saturating_sub(at).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let expected = ClockOffset(passed).add_to(judged);
        let was_set = shown.0.abs_diff(expected.0) > skew;
        if was_set { expected } else { shown }
    }
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeClock").field("skew_microseconds", &self.skew).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000;
    const TEN_YEARS: i64 = 10 * 365 * 86_400 * 1_000_000;
    const SKEW: u64 = 1_000_000;

    /// A clock whose wall clock stands still.
    fn clock(wall: u64, floor: u64) -> NodeClock {
        let skew = Duration::from_micros(SKEW);
        NodeClock::new(Arc::new(move || Timestamp(wall)), Timestamp(floor), skew)
    }

    fn peer(name: &str, offset: i64) -> PeerClock {
        let round_trip = Duration::from_millis(2);
        let measured = MeasuredClock { offset: ClockOffset(offset), round_trip };
        (name.parse().unwrap(), Some(measured))
    }

    fn judged(clock: &NodeClock, peers: &[PeerClock]) -> u64 {
        clock.judge(peers, Duration::ZERO);
        clock.tick().0
    }

    #[test]
    fn a_clock_ten_years_ahead_comes_back_once_it_has_heard_the_others() {
        let ahead = NOW.strict_add_signed(TEN_YEARS);
        let clock = clock(ahead, 0);
        assert_eq!(clock.tick().0, ahead);
        let peers = [peer("eu", -TEN_YEARS), peer("us", -TEN_YEARS)];
        assert_eq!(judged(&clock, &peers), NOW + 1);
        assert_eq!(clock.status().correction, ClockOffset(-TEN_YEARS));
    }

    #[test]
    fn a_clock_ten_years_behind_catches_up() {
        let clock = clock(NOW.strict_add_signed(-TEN_YEARS), 0);
        assert_eq!(judged(&clock, &[peer("eu", TEN_YEARS), peer("us", TEN_YEARS)]), NOW);
    }

    #[test]
    fn a_floor_of_a_wrong_clock_holds_only_until_the_others_are_heard() {
        let floor = NOW.strict_add_signed(TEN_YEARS);
        let clock = clock(NOW, floor);
        let silent = ("us".parse().unwrap(), None);
        assert_eq!(judged(&clock, &[("eu".parse().unwrap(), None), silent.clone()]), floor + 1);
        assert_eq!(judged(&clock, &[peer("eu", 3), silent]), NOW + 1);
    }

    #[test]
    fn a_healthy_clock_is_moved_by_no_peer() {
        let clock = clock(NOW, 0);
        clock.observe(Timestamp(NOW.strict_add_signed(TEN_YEARS)));
        assert_eq!(judged(&clock, &[peer("eu", 3), peer("us", TEN_YEARS)]), NOW);
        assert_eq!(judged(&clock, &[peer("eu", 3), peer("us", -TEN_YEARS)]), NOW + 1);
        assert_eq!(clock.status().correction, ClockOffset(0));
    }

    #[test]
    fn a_clock_that_is_set_while_it_runs_is_not_followed_before_it_is_judged() {
        let shown = Arc::new(AtomicU64::new(NOW));
        let wall = Arc::clone(&shown);
        let wall: WallClock = Arc::new(move || Timestamp(wall.load(Ordering::Relaxed)));
        let clock = NodeClock::new(wall, Timestamp(0), Duration::from_micros(SKEW));
        let near = |tick: u64| (NOW..NOW + 60 * SKEW).contains(&tick);
        assert!(near(judged(&clock, &[peer("eu", 0), peer("us", 0)])));
        for jump in [TEN_YEARS, -TEN_YEARS] {
            shown.store(NOW.strict_add_signed(jump), Ordering::Relaxed);
            assert!(near(clock.tick().0), "before");
            clock.observe(Timestamp(NOW.strict_add_signed(TEN_YEARS)));
            assert!(near(judged(&clock, &[peer("eu", -jump), peer("us", -jump)])), "after");
        }
    }

    #[test]
    fn a_clock_that_is_measured_too_coarsely_does_not_count() {
        let clock = clock(NOW, 0);
        let mut far = peer("eu", -TEN_YEARS);
        far.1 = far.1.map(|m| MeasuredClock { round_trip: Duration::from_secs(3), ..m });
        assert_eq!(judged(&clock, &[far]), NOW);
    }
}
