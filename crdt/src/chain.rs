//! Chains: what the origins of a region imply of each other, so that vectors stay short.
//!
//! A leader that takes a new origin notes what it has of the earlier origins of its region. That
//! note goes with the name of the origin everywhere, and nobody appends an entry of the origin
//! before all that the note names. So a vector with the new origin includes the old ones as far as
//! noted, and need not say so: [`Chains::compact`] leaves it out, [`Chains::expand`] puts it back.
//!
//! # Why a vector in short form can be compared
//!
//! Whoever keeps that rule includes a short vector exactly when it includes the long one. So a
//! session token is waited for as it is. Only who counts or sends what a vector lacks expands it.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Dot;
use crate::ids::{Origin, Sequence};
use crate::version::VersionVector;

/// For each origin, what every holder of its entries has of other origins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chains {
    after: BTreeMap<Origin, Vec<Dot>>,
}

impl Chains {
    /// Makes chains of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what stands before an origin, unless something is noted already or it would
    /// go in a circle; answers whether it was noted. Of what is too much the rest is left out:
    /// that only makes vectors longer.
    pub fn note(&mut self, origin: Origin, mut after: Vec<Dot>) -> bool {
        after.truncate(MAX_AFTER);
        if after.is_empty() || self.after.contains_key(&origin) || self.leads_to(&after, origin) {
            return false;
        }
        self.after.insert(origin, after);
        true
    }

    /// Returns what stands right before an origin; nothing for one that starts a chain.
    #[must_use]
    pub fn after(&self, origin: Origin) -> &[Dot] {
        self.after.get(&origin).map_or(&[], Vec::as_slice)
    }

    /// Tells whether entries of an origin may follow on `vector`.
    #[must_use]
    pub fn allow(&self, origin: Origin, vector: &VersionVector) -> bool {
        self.after(origin).iter().all(|dot| vector.contains(*dot))
    }

    /// Tells whether a vector includes all that its origins imply.
    #[must_use]
    pub fn are_kept_by(&self, vector: &VersionVector) -> bool {
        vector.iter().all(|dot| self.allow(dot.origin, vector))
    }

    /// Leaves out what the rest of a vector implies.
    #[must_use]
    pub fn compact(&self, vector: &VersionVector) -> VersionVector {
        let implied = vector.iter().flat_map(|dot| self.after(dot.origin)).copied();
        let implied: VersionVector = implied.collect();
        vector.iter().filter(|dot| !implied.contains(*dot)).collect()
    }

    /// Adds all that a vector implies, as far as it is known here.
    #[must_use]
    pub fn expand(&self, vector: &VersionVector) -> VersionVector {
        let mut whole = vector.clone();
        let mut open: Vec<Origin> = vector.iter().map(|dot| dot.origin).collect();
        while let Some(origin) = open.pop() {
            for dot in self.after(origin) {
                // What is there was followed, or is about to be.
                if whole.sequence(dot.origin) == Sequence::ZERO {
                    open.push(dot.origin);
                }
                whole.raise(dot.origin, dot.sequence);
            }
        }
        whole
    }

    /// Merges a vector in any form into one that keeps the chains, as far as they are known here.
    /// Costs time with what is new.
    pub fn merge(&self, whole: &mut VersionVector, vector: &VersionVector) {
        for dot in vector.iter() {
            if whole.sequence(dot.origin) == Sequence::ZERO {
                let new = [dot].into_iter().collect();
                whole.merge(&self.expand(&new));
            } else {
                whole.raise(dot.origin, dot.sequence);
            }
        }
    }

    /// Brings a short form in step with a vector that has grown by `dot`; `first` says whether
    /// that is the first that it has of the origin, which implies what stands before it.
    pub fn lengthen(
        &self,
        short: &mut VersionVector,
        whole: &VersionVector,
        dot: Dot,
        first: bool,
    ) {
        match first && !self.after(dot.origin).is_empty() {
            true => *short = self.compact(whole),
            false => short.raise(dot.origin, dot.sequence),
        }
    }

    /// Tells whether a chain that goes on from here comes to `origin`.
    fn leads_to(&self, after: &[Dot], origin: Origin) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<Origin> = after.iter().map(|dot| dot.origin).collect();
        while let Some(next) = open.pop() {
            if next == origin {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.after(next).iter().map(|dot| dot.origin));
            }
        }
        false
    }
}

/// What can stand before one origin: the one before it, and those of which entries came back late.
pub const MAX_AFTER: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn origin(number: usize) -> Origin {
        // Scattered, so that the order of ids says nothing.
        let byte = u8::try_from(number).unwrap().wrapping_mul(167).wrapping_add(13);
        Origin::from_bytes([byte; 16])
    }

    fn dot(number: usize, sequence: u64) -> Dot {
        Dot { origin: origin(number), sequence: Sequence(sequence) }
    }

    /// Any chains that can come about: each origin notes something of those before it.
    fn chains() -> impl Strategy<Value = Chains> {
        let note = vec((any::<prop::sample::Index>(), 1_u64..6), 0..4);
        vec(note, 1..12).prop_map(|notes| {
            let mut chains = Chains::new();
            for (number, note) in notes.into_iter().enumerate().skip(1) {
                let note = note.into_iter().map(|(of, sequence)| dot(of.index(number), sequence));
                let note: VersionVector = note.collect();
                chains.note(origin(number), note.iter().collect());
            }
            chains
        })
    }

    fn vector() -> impl Strategy<Value = VersionVector> {
        vec(0_u64..9, 0..12).prop_map(|sequences| {
            sequences.into_iter().enumerate().map(|(number, n)| dot(number, n)).collect()
        })
    }

    #[test]
    fn a_thousand_origins_in_a_row_are_one() {
        let mut chains = Chains::new();
        let id = |n: u64| Origin::from_bytes(u128::from(n.wrapping_mul(0x9e37_79b9)).to_be_bytes());
        let mut all = VersionVector::new();
        for number in 0..1_000 {
            let before: Vec<Dot> = chains.compact(&all).iter().collect();
            assert!(before.len() <= 1);
            chains.note(id(number), before);
            all.raise(id(number), Sequence(number + 1));
        }
        let short = chains.compact(&all);
        assert_eq!((all.len(), short.len()), (1_000, 1));
        assert_eq!(chains.expand(&short), all);
        assert!(crate::token::encode(&short).len() < 64);
    }

    #[test]
    fn what_came_back_late_is_said_until_the_next_origin() {
        let mut chains = Chains::new();
        chains.note(origin(1), vec![dot(0, 7)]);
        let late: VersionVector = [dot(0, 10), dot(1, 2)].into_iter().collect();
        assert_eq!(chains.compact(&late), late);
        chains.note(origin(2), chains.compact(&late).iter().collect());
        let next: VersionVector = [dot(0, 10), dot(1, 2), dot(2, 1)].into_iter().collect();
        assert_eq!(chains.compact(&next), [dot(2, 1)].into_iter().collect());
        assert_eq!(chains.expand(&[dot(2, 1)].into_iter().collect()), next);
    }

    #[test]
    fn chains_never_go_in_a_circle() {
        let mut chains = Chains::new();
        assert!(chains.note(origin(1), vec![dot(0, 1)]));
        assert!(!chains.note(origin(1), vec![dot(5, 1)]), "what is noted stays");
        assert!(!chains.note(origin(0), vec![dot(1, 1)]));
        assert!(!chains.note(origin(2), vec![dot(2, 1)]));
        assert!(!chains.note(origin(0), Vec::new()));
        assert_eq!(chains.after(origin(0)), []);
    }

    proptest! {
        #[test]
        fn what_keeps_the_chains_comes_back(chains in chains(), vector in vector()) {
            let whole = chains.expand(&vector);
            prop_assert!(chains.are_kept_by(&whole) && whole.includes(&vector));
            prop_assert_eq!(chains.expand(&chains.compact(&whole)), whole);
        }

        #[test]
        fn a_short_vector_is_included_exactly_when_the_long_one_is(
            chains in chains(), one in vector(), other in vector(),
        ) {
            let (one, other) = (chains.expand(&one), chains.expand(&other));
            prop_assert_eq!(one.includes(&chains.compact(&other)), one.includes(&other));
        }

        #[test]
        fn a_short_form_grows_with_its_vector(chains in chains(), vector in vector()) {
            // The order of a journal: nothing before what it implies.
            let (mut whole, mut short) = (VersionVector::new(), VersionVector::new());
            let wanted = chains.expand(&vector);
            while whole != wanted {
                let next = wanted.iter().find(|dot| {
                    !whole.contains(*dot) && chains.allow(dot.origin, &whole)
                });
                let origin = next.unwrap().origin;
                let dot = Dot { origin, sequence: whole.sequence(origin).next() };
                let first = whole.sequence(origin) == Sequence::ZERO;
                whole.raise(origin, dot.sequence);
                chains.lengthen(&mut short, &whole, dot, first);
                prop_assert_eq!(chains.expand(&short), whole.clone());
                prop_assert_eq!(&short, &chains.compact(&whole));
            }
        }

        #[test]
        fn expanding_keeps_order_and_merges(chains in chains(), a in vector(), b in vector()) {
            let mut both = a.clone();
            both.merge(&b);
            let mut expanded = chains.expand(&a);
            expanded.merge(&chains.expand(&b));
            prop_assert_eq!(&chains.expand(&both), &expanded);
            let mut merged = chains.expand(&a);
            chains.merge(&mut merged, &b);
            prop_assert_eq!(merged, expanded);
            prop_assert_eq!(chains.expand(&chains.expand(&a)), chains.expand(&a));
        }

        #[test]
        fn who_knows_less_of_the_chains_learns_less_and_nothing_wrong(
            chains in chains(), vector in vector(), known in any::<u16>(),
        ) {
            let whole = chains.expand(&vector);
            let mut fewer = Chains::new();
            for number in (0..12).filter(|number| known >> number & 1 == 1) {
                fewer.note(origin(number), chains.after(origin(number)).to_vec());
            }
            let read = fewer.expand(&chains.compact(&whole));
            prop_assert!(whole.includes(&read));
            prop_assert_eq!(chains.expand(&fewer.compact(&whole)), whole);
        }
    }
}
