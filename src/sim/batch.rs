//! Many seeds: over a few threads, some of them twice, and what they came to together.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Outcome, Tally, run_seed, run_without};

/// Which seeds to run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
}

/// What many seeds came to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// What was tried.
    pub tally: Tally,
    /// The seeds that failed.
    pub failures: Vec<Outcome>,
    /// How long it took.
    pub elapsed: Duration,
    /// Seeds that were run twice.
    pub replayed: u64,
    /// Those that did not go the same way again; there must be none.
    pub diverged: Vec<u64>,
}

impl Summary {
    /// Seeds per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.tally.seeds as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Tells whether every promise held, and every replay was one.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.diverged.is_empty()
    }

    fn add(&mut self, ran: Ran) {
        self.tally.add(&ran.outcome.tally);
        if let Some(trace) = ran.replayed {
            self.replayed += 1;
            if trace != ran.outcome.trace {
                self.diverged.push(ran.outcome.seed);
            }
        }
        if !ran.outcome.violations.is_empty() {
            self.failures.push(ran.outcome);
        }
    }
}

/// One seed that was run, and the trace of the second time.
struct Ran {
    outcome: Outcome,
    replayed: Option<u64>,
}

impl Batch {
    /// Runs the seeds until they are done or `stop` is set, and tells `each` of every one.
    pub fn run(self, stop: &AtomicBool, mut each: impl FnMut(&Outcome)) -> Summary {
        let (started, next) = (Instant::now(), AtomicU64::new(0));
        let mut summary = Summary::default();
        let (sender, ran) = channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (sender, next) = (sender.clone(), &next);
                let worker = thread::Builder::new().name("simulator".to_owned());
                let spawned = worker.spawn_scoped(scope, move || self.work(next, stop, &sender));
                if spawned.is_err() {
                    break;
                }
            }
            drop(sender);
            for ran in ran {
                each(&ran.outcome);
                summary.add(ran);
            }
        });
        summary.elapsed = started.elapsed();
        summary.failures.sort_by_key(|outcome| outcome.seed);
        summary
    }

    fn work(self, next: &AtomicU64, stop: &AtomicBool, sender: &Sender<Ran>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.seeds || stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.from.wrapping_add(number);
            let outcome = run_seed(seed);
            let again = number % REPLAYED == REPLAYED / 2 || self.seeds == 1;
            let replayed = again.then(|| run_seed(seed).trace);
            if sender.send(Ran { outcome, replayed }).is_err() {
                return;
            }
        }
    }
}

/// Finds faults that a failing seed does not need: leaves out some and looks whether the same
/// checker still finds something. Returns the outcome with the fewest faults that was found.
#[must_use]
pub fn minimise(failed: &Outcome, patience: Duration) -> Outcome {
    let started = Instant::now();
    let Some(check) = failed.violations.first().map(|violation| violation.check) else {
        return failed.clone();
    };
    let mut best = failed.clone();
    let mut masked = BTreeSet::new();
    let mut share = 2;
    while started.elapsed() < patience {
        let left: BTreeSet<u32> = best.faults.iter().map(|fault| fault.number).collect();
        let left: Vec<u32> = left.difference(&masked).copied().collect();
        let size = left.len().div_ceil(share).max(1);
        let smaller = left.chunks(size).find_map(|some| {
            let more: BTreeSet<u32> = masked.iter().chain(some).copied().collect();
            if started.elapsed() >= patience {
                return None;
            }
            let outcome = run_without(failed.seed, &more);
            let fails = outcome.violations.iter().any(|violation| violation.check == check);
            fails.then_some((more, outcome))
        });
        match smaller {
            Some((more, outcome)) => (masked, best) = (more, outcome),
            None if size == 1 => break,
            None => share = share.saturating_mul(2),
        }
    }
    best
}

/// One of so many seeds is run twice.
const REPLAYED: u64 = 100;
