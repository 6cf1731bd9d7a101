//! The bandwidth cap of a link: a token bucket that both lanes draw from, the fresh one first.
//!
//! A cap slows a link and never closes it. What is fresh is served before what catches up, except
//! that catching up always gets a quarter of a link on which both wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::replication::Lane;

/// What may go to one region in a second.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes per second; zero for no cap.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Told whenever another lane may have its turn.
    turned: Notify,
    throttled_micros: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    /// What may be sent now; below zero while the last grant is being paid off.
    tokens: f64,
    filled: Instant,
    /// Callers of each lane that wait.
    fresh: u32,
    bulk: u32,
    /// The bytes that catching up may send before fresh ones, because it has waited for those.
    owed: f64,
}

impl Pacer {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let bucket = Bucket { tokens: 0.0, filled: Instant::now(), fresh: 0, bulk: 0, owed: 0.0 };
        let pacer = Self {
            rate: AtomicU64::new(0),
            bucket: Mutex::new(bucket),
            turned: Notify::new(),
            throttled_micros: AtomicU64::new(0),
        };
        pacer.set_rate(rate);
        pacer
    }

    /// Changes the cap, in bytes per second; `None` lifts it.
    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.map_or(0, |rate| rate.max(1)), Ordering::Relaxed);
        self.turned.notify_waiters();
    }

    /// Returns how many bytes to take at once, so that neither lane waits long for the other;
    /// `None` without a cap.
    pub(crate) fn piece(&self) -> Option<usize> {
        let rate = self.rate()?;
        Some(usize::try_from(rate / 64).unwrap_or(usize::MAX).clamp(MIN_PIECE, MAX_PIECE))
    }

    /// Waits until `bytes` of a lane may leave.
    ///
    /// # Cancel safety
    /// Nothing is taken when the future is dropped.
    pub(crate) async fn take(&self, lane: Lane, bytes: usize) {
        let began = Instant::now();
        let mut waiter: Option<Waiter<'_>> = None;
        loop {
            let turned = self.turned.notified();
            let Some(wait) = self.try_take(lane, bytes) else { break };
            waiter.get_or_insert_with(|| Waiter::new(self, lane));
            // Either moment is one to look again.
            let _ = timeout(wait, turned).await;
        }
        if waiter.take().is_some() {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.throttled_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Returns how long frames have waited for the cap, all together.
    pub(crate) fn throttled(&self) -> Duration {
        Duration::from_micros(self.throttled_micros.load(Ordering::Relaxed))
    }

    fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|&rate| rate > 0)
    }

    /// Takes the bytes, or says how long to wait before the next attempt.
    fn try_take(&self, lane: Lane, bytes: usize) -> Option<Duration> {
        let rate = self.rate()? as f64;
        let mut bucket = self.lock();
        bucket.fill(rate, Instant::now());
        if bucket.tokens <= 0.0 {
            return Some(Duration::from_secs_f64(-bucket.tokens / rate).max(SHORTEST_WAIT));
        }
        let piece = self.piece().unwrap_or(MAX_PIECE) as f64;
        if !bucket.has_turn(lane, piece) {
            return Some(LONGEST_TURN);
        }
        bucket.take(lane, bytes as f64);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn fill(&mut self, rate: f64, now: Instant) {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(rate * BURST_SECONDS);
    }

    /// Tells whether a lane goes first. Of two that wait, exactly one does.
    fn has_turn(&self, lane: Lane, piece: f64) -> bool {
        match lane {
            Lane::Fresh => self.bulk == 0 || self.owed < piece,
            Lane::Bulk => self.fresh == 0 || self.owed >= piece,
        }
    }

    fn take(&mut self, lane: Lane, bytes: f64) {
        self.tokens -= bytes;
        match lane {
            Lane::Fresh if self.bulk > 0 => self.owed += bytes * BULK_SHARE,
            Lane::Fresh => self.owed = 0.0,
            Lane::Bulk => self.owed = (self.owed - bytes).max(0.0),
        }
    }

    fn count(&mut self, lane: Lane) -> &mut u32 {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

/// Someone who waits, counted until it is dropped.
struct Waiter<'a> {
    pacer: &'a Pacer,
    lane: Lane,
}

impl<'a> Waiter<'a> {
    fn new(pacer: &'a Pacer, lane: Lane) -> Self {
        *pacer.lock().count(lane) += 1;
        Self { pacer, lane }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        *self.pacer.lock().count(self.lane) -= 1;
        self.pacer.turned.notify_waiters();
    }
}

/// What a link that was idle may send at once, in seconds of its rate.
const BURST_SECONDS: f64 = 0.05;

/// Bytes that catching up may send for each fresh byte, where both wait: a quarter of all.
const BULK_SHARE: f64 = 1.0 / 3.0;

/// Bytes that are taken at once: one packet at least.
const MIN_PIECE: usize = 1_200;

/// Bytes that are taken at once at most.
const MAX_PIECE: usize = 64 << 10;

/// Timers are no finer.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A lane whose turn it is not is told when it is; this is for when it is missed.
const LONGEST_TURN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    const RATE: u64 = 1_000_000;

    /// Takes pieces of a lane until `until`, and returns how many bytes that were.
    async fn greedy(pacer: Arc<Pacer>, lane: Lane, until: Instant) -> u64 {
        let mut bytes = 0;
        while Instant::now() < until {
            let piece = pacer.piece().unwrap();
            pacer.take(lane, piece).await;
            bytes += piece as u64;
        }
        bytes
    }

    async fn both(pacer: &Arc<Pacer>, lanes: &[Lane], time: Duration) -> Vec<u64> {
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for (index, &lane) in lanes.iter().enumerate() {
            let pacer = Arc::clone(pacer);
            tasks.spawn(async move { (index, greedy(pacer, lane, until).await) });
        }
        let mut shares = tasks.join_all().await;
        shares.sort_unstable();
        shares.into_iter().map(|(_, bytes)| bytes).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_lane_gets_the_whole_rate_and_no_more() {
        for lane in [Lane::Fresh, Lane::Bulk] {
            let pacer = Arc::new(Pacer::new(Some(RATE)));
            let sent = both(&pacer, &[lane], Duration::from_secs(10)).await[0] as f64;
            let share = sent / (10.0 * RATE as f64);
            assert!((0.97..1.02).contains(&share), "{lane:?}: {share}");
            assert!(pacer.throttled() > Duration::from_secs(9));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_goes_first_and_bulk_never_starves() {
        let pacer = Arc::new(Pacer::new(Some(RATE)));
        let shares = both(&pacer, &[Lane::Fresh, Lane::Bulk], Duration::from_secs(20)).await;
        let all: u64 = shares.iter().sum();
        let bulk = shares[1] as f64 / all as f64;
        assert!((0.2..0.3).contains(&bulk), "bulk has {bulk} of the link");
        assert!(all as f64 <= 20.5 * RATE as f64, "{all}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_frame_waits_for_one_piece_of_a_flood_and_not_for_the_flood() {
        let pacer = Arc::new(Pacer::new(Some(RATE)));
        let until = Instant::now() + Duration::from_secs(5);
        let mut flood = JoinSet::new();
        flood.spawn(greedy(Arc::clone(&pacer), Lane::Bulk, until));
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = Instant::now();
            pacer.take(Lane::Fresh, 500).await;
            worst = worst.max(asked.elapsed());
        }
        // A piece is a 64th of a second.
        assert!(worst < Duration::from_millis(60), "{worst:?}");
        assert!(flood.join_all().await[0] > 4 * RATE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cap_can_be_set_and_lifted_while_someone_waits() {
        let pacer = Arc::new(Pacer::new(Some(1)));
        pacer.take(Lane::Bulk, 1_000_000).await;
        let mut waiting = JoinSet::new();
        let waits = Arc::clone(&pacer);
        waiting.spawn(async move { waits.take(Lane::Fresh, 1).await });
        tokio::task::yield_now().await;
        let lifted = Instant::now();
        pacer.set_rate(None);
        waiting.join_all().await;
        assert_eq!(pacer.piece(), None);
        assert!(lifted.elapsed() < Duration::from_secs(1));
    }
}
