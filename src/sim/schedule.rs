//! The faults of a run: numbered, described, and each with dice of its own, so that leaving one out
//! does not change what the others are.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// One fault that happened, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the run.
    pub number: u32,
    /// When, in virtual time.
    pub at: Duration,
    /// What.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s  #{:<3} {}", self.at.as_secs_f64(), self.number, self.what)
    }
}

/// The faults of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedule {
    seed: u64,
    masked: BTreeSet<u32>,
    next: u32,
    pub(crate) faults: Vec<Fault>,
}

impl Schedule {
    /// Makes the schedule of a seed in which some faults are left out.
    pub(crate) fn new(seed: u64, masked: BTreeSet<u32>) -> Self {
        Self { seed, masked, next: 0, faults: Vec::new() }
    }

    /// Gives the dice of the next fault; `None` if it is to be left out.
    pub(crate) fn next(&mut self) -> Option<ChaCha8Rng> {
        self.next += 1;
        let dice = self.seed.rotate_left(17) ^ u64::from(self.next);
        (!self.masked.contains(&self.next)).then(|| ChaCha8Rng::seed_from_u64(dice))
    }

    /// Takes note of what the last fault is.
    pub(crate) fn note(&mut self, at: Duration, what: impl Into<String>) {
        self.faults.push(Fault { number: self.next, at, what: what.into() });
    }
}
