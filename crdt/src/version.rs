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

#[cfg(test)]
pub(crate) mod arbitrary {
    //! Arbitrary version vectors for property tests.

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    /// Vectors over a few origins, so that two of them share some.
    pub(crate) fn vector() -> impl Strategy<Value = VersionVector> {
        let sequence = prop_oneof![4 => 0_u64..5, 1 => any::<u64>()];
        btree_map(0_u8..8, sequence, 0..8).prop_map(|pairs| {
            let dot = |(byte, number)| Dot {
                origin: Origin::from_bytes([byte; 16]),
                sequence: Sequence(number),
            };
            pairs.into_iter().map(dot).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::arbitrary::vector;
    use super::*;

    fn merged(one: &VersionVector, other: &VersionVector) -> VersionVector {
        let mut merged = one.clone();
        merged.merge(other);
        merged
    }

    fn dot(byte: u8, number: u64) -> Dot {
        Dot { origin: Origin::from_bytes([byte; 16]), sequence: Sequence(number) }
    }

    #[test]
    fn an_absent_origin_stands_at_zero() {
        let mut vector = VersionVector::new();
        vector.raise(dot(1, 0).origin, Sequence::ZERO);
        assert!(vector.is_empty());
        assert_eq!(vector, VersionVector::from_iter([dot(1, 0), dot(2, 0)]));
        assert!(!vector.contains(dot(1, 1)));
        assert_eq!(vector.sequence(dot(1, 0).origin), Sequence::ZERO);
    }

    #[test]
    fn what_is_missing_is_counted() {
        let here = VersionVector::from_iter([dot(1, 5), dot(2, 9)]);
        let there = VersionVector::from_iter([dot(1, 7), dot(2, 3), dot(3, 4)]);
        assert_eq!((here.behind(&there), there.behind(&here)), (6, 6));
        let far = VersionVector::from_iter([dot(1, u64::MAX), dot(2, u64::MAX)]);
        assert_eq!(VersionVector::new().behind(&far), u64::MAX);
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in vector(), b in vector(), c in vector(),
        ) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        #[test]
        fn a_merge_is_the_least_vector_that_includes_both(
            a in vector(), b in vector(), c in vector(),
        ) {
            let both = merged(&a, &b);
            prop_assert!(both.includes(&a) && both.includes(&b));
            prop_assert_eq!(c.includes(&both), c.includes(&a) && c.includes(&b));
        }

        #[test]
        fn including_is_a_partial_order(a in vector(), b in vector(), c in vector()) {
            prop_assert!(a.includes(&a) && a.includes(&VersionVector::new()));
            prop_assert_eq!(a.includes(&b) && b.includes(&a), a == b);
            let above = merged(&merged(&a, &b), &c);
            prop_assert!(above.includes(&merged(&a, &b)) && merged(&a, &b).includes(&b));
            prop_assert!(above.includes(&b));
            if a.includes(&b) && b.includes(&c) {
                prop_assert!(a.includes(&c));
            }
        }

        #[test]
        fn nothing_is_missing_exactly_when_all_is_included(a in vector(), b in vector()) {
            prop_assert_eq!(a.behind(&b) == 0, a.includes(&b));
            prop_assert_eq!(merged(&a, &b).behind(&b), 0);
        }

        #[test]
        fn raising_includes_the_entry_and_all_before(
            mut a in vector(), byte in 0_u8..8, number in 1_u64..10,
        ) {
            let before = a.clone();
            a.raise(dot(byte, number).origin, Sequence(number));
            prop_assert!((1..=number).all(|number| a.contains(dot(byte, number))));
            prop_assert!(a.includes(&before));
            let origin = dot(byte, 1).origin;
            prop_assert_eq!(a.sequence(origin), before.sequence(origin).max(Sequence(number)));
            prop_assert_eq!(a.iter().collect::<VersionVector>(), a.clone());
            prop_assert_eq!(a.iter().count(), a.len());
        }
    }
}
