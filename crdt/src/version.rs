//! Version vectors: what a node has, as the highest contiguous sequence per origin.

use std::collections::BTreeMap;

use crate::entry::Dot;
use crate::ids::{Origin, Sequence};

/// The highest contiguous sequence per origin; an origin that is absent stands at zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector {
    sequences: BTreeMap<Origin, Sequence>,
}

impl VersionVector {
    /// Makes a vector that includes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the highest contiguous sequence of `origin`, zero if it is not known.
    #[must_use]
    pub fn sequence(&self, origin: Origin) -> Sequence {
        self.sequences.get(&origin).copied().unwrap_or_default()
    }

    /// Tells whether the entry is included.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.sequence <= self.sequence(dot.origin)
    }

    /// Tells whether everything in `other` is included here too.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|dot| self.contains(dot))
    }

    /// Raises `origin` to `sequence`; a lower sequence changes nothing.
    pub fn raise(&mut self, origin: Origin, sequence: Sequence) {
        if sequence > self.sequence(origin) {
            self.sequences.insert(origin, sequence);
        }
    }

    /// Raises every origin to the greater of both vectors.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|dot| self.raise(dot.origin, dot.sequence));
    }

    /// Counts the entries that `other` includes and this vector does not.
    #[must_use]
    pub fn behind(&self, other: &Self) -> u64 {
        let missing = |dot: Dot| dot.sequence.0.saturating_sub(self.sequence(dot.origin).0);
        other.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// Iterates over the origins in the order of their ids, each with its highest sequence.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.sequences.iter().map(|(&origin, &sequence)| Dot { origin, sequence })
    }

    /// Counts the origins.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Tells whether nothing is included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::new();
        dots.into_iter().for_each(|dot| vector.raise(dot.origin, dot.sequence));
        vector
    }
}
