//! How old the oldest entry is that a peer has not acknowledged.
//!
//! Ages are measured on the monotonic clock from the commit on, so a wall clock that jumps does
//! not bend them. Entries older than this process count from its start.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_crdt::ids::Sequence;

/// Sparse marks of when the own log had grown to which sequence.
#[derive(Debug)]
pub(super) struct Samples {
    /// Up to where the log had grown before this process, or the last renewal.
    before: Sequence,
    started: Option<Duration>,
    marks: VecDeque<(Sequence, Duration)>,
}

impl Samples {
    pub(super) fn new(before: Sequence) -> Self {
        Self { before, started: None, marks: VecDeque::new() }
    }

    /// Takes note of the first moment; later calls change nothing.
    pub(super) fn start(&mut self, now: Duration) {
        self.started.get_or_insert(now);
    }

    /// Takes note of how far the log has grown.
    pub(super) fn note(&mut self, durable: Sequence, now: Duration) {
        let last = self.marks.back().map_or(self.before, |mark| mark.0);
        if durable <= last {
            return;
        }
        if self.marks.len() >= MAX_MARKS {
            self.thin();
        }
        self.marks.push_back((durable, now));
    }

    /// Drops marks of which every peer has acknowledged more.
    pub(super) fn forget(&mut self, acknowledged: Sequence) {
        while self.marks.front().is_some_and(|mark| mark.0 <= acknowledged) {
            if let Some((sequence, _)) = self.marks.pop_front() {
                self.before = self.before.max(sequence);
            }
        }
    }

    /// Returns how long ago the entry became durable; after thinning, at most how long.
    pub(super) fn age(&self, sequence: Sequence, now: Duration) -> Duration {
        let since = if sequence <= self.before {
            self.started
        } else {
            let at = self.marks.partition_point(|mark| mark.0 < sequence);
            self.marks.get(at).map(|mark| mark.1)
        };
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Merges neighbours into the later sequence and the earlier moment, so ages are rounded up.
    fn thin(&mut self) {
        let marks = std::mem::take(&mut self.marks);
        let mut marks = marks.into_iter();
        while let Some((sequence, at)) = marks.next() {
            let sequence = marks.next().map_or(sequence, |later| later.0);
            self.marks.push_back((sequence, at));
        }
    }
}

/// Marks that are kept at most: a lag of an hour is still told to a few seconds.
const MAX_MARKS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_entry_is_as_old_as_its_commit() {
        let mut samples = Samples::new(Sequence(3));
        samples.start(seconds(1));
        samples.note(Sequence(5), seconds(10));
        samples.note(Sequence(9), seconds(20));
        assert_eq!(samples.age(Sequence(3), seconds(30)), seconds(29));
        assert_eq!(samples.age(Sequence(4), seconds(30)), seconds(20));
        assert_eq!(samples.age(Sequence(6), seconds(30)), seconds(10));
    }

    #[test]
    fn marks_are_bounded_and_ages_are_rounded_up() {
        let mut samples = Samples::new(Sequence::ZERO);
        samples.start(seconds(0));
        for at in 1..=100_000 {
            samples.note(Sequence(at), seconds(at));
            assert!(samples.marks.len() <= MAX_MARKS);
        }
        for at in [1, 2, 77, 5_000, 99_999] {
            let (age, exact) = (samples.age(Sequence(at), seconds(100_000)), seconds(100_000 - at));
            assert!(age >= exact && age <= exact + seconds(100_000 / 4), "{at}: {age:?}");
        }
    }
}
