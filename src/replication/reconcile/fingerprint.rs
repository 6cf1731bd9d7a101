//! The fingerprint of a set of documents, which two nodes compare instead of the set.
//!
//! # Why a keyed sum of hashes, hashed again
//!
//! A fingerprint must not depend on how the set was split or read, so it is made of a sum: each
//! document gives SHA-256 of (run, id, digest of its heads), and these are added modulo 2^256.
//! The count and the sum are hashed once more and cut to 16 bytes, so that nothing of the sum can
//! be computed with on the wire. Two different sets agree by chance in one of 2^128 comparisons.
//!
//! Sums of hashes can be steered by someone who chooses the members; clients do choose document
//! ids. That would take two replicas that differ already, at 256 bits more work than anyone has,
//! and it would have to be done anew for each comparison: every run has a name of its own. For the
//! same reason an accident cannot hide a difference from the next run.
//!
//! # Why each side marks what is pending in its own way
//!
//! The digest of a document with pending entries is out of date. Marked differently by the two
//! sides, it never counts as equal, and is looked at by itself.

use sha2::{Digest as _, Sha256};

use super::range::DocumentDigest;

/// What stands for a set of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

/// Names a comparison, and is mixed into its hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// Whose documents are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those of the node that asks.
    Asker,
    /// Those of the node that answers.
    Answerer,
}

impl Fingerprint {
    /// Computes the fingerprint of a set, in whatever order it comes.
    #[must_use]
    pub fn of(items: &[DocumentDigest], side: Side, run: RunId) -> Self {
        let sum = items.iter().fold(Sum::default(), |sum, item| sum.plus(hash(item, side, run)));
        let mut hasher = Sha256::new();
        hasher.update((items.len() as u64).to_be_bytes());
        sum.0.iter().for_each(|limb| hasher.update(limb.to_be_bytes()));
        let (first, _) = split(hasher.finalize().into());
        Self(first)
    }
}

/// A number modulo 2^256, its lowest limb first.
#[derive(Debug, Clone, Copy, Default)]
struct Sum([u64; 4]);

impl Sum {
    fn plus(mut self, hash: [u8; 32]) -> Self {
        let mut carry = false;
        let (limbs, _) = hash.as_chunks::<8>();
        for (limb, bytes) in self.0.iter_mut().zip(limbs) {
            let (sum, first) = limb.overflowing_add(u64::from_be_bytes(*bytes));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
        self
    }
}

fn hash(item: &DocumentDigest, side: Side, run: RunId) -> [u8; 32] {
    let mark: u8 = match (item.pending, side) {
        (false, _) => 0,
        (true, Side::Asker) => 1,
        (true, Side::Answerer) => 2,
    };
    let mut hasher = Sha256::new();
    hasher.update(run.0.to_be_bytes());
    hasher.update(item.document.as_bytes());
    hasher.update(item.digest);
    hasher.update([mark]);
    hasher.finalize().into()
}

fn split(hash: [u8; 32]) -> ([u8; 16], [u8; 16]) {
    let (mut first, mut rest) = ([0; 16], [0; 16]);
    first.iter_mut().chain(&mut rest).zip(hash).for_each(|(to, from)| *to = from);
    (first, rest)
}

#[cfg(test)]
mod tests {
    use anabranch_crdt::ids::DocumentId;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn items() -> impl Strategy<Value = Vec<DocumentDigest>> {
        let item = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<bool>());
        vec(item, 0..20).prop_map(|items| {
            let item = |(id, digest, pending)| DocumentDigest {
                document: DocumentId::from_bytes(id),
                digest,
                pending,
            };
            items.into_iter().map(item).collect()
        })
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter_but_everything_else_does(
            items in items(), salt in any::<u64>(), other in any::<[u8; 16]>(),
        ) {
            let of = |items: &[DocumentDigest]| Fingerprint::of(items, Side::Asker, RunId(salt));
            let mut reversed = items.clone();
            reversed.reverse();
            prop_assert_eq!(of(&items), of(&reversed));
            let mut changed = items.clone();
            if let Some(item) = changed.first_mut() {
                item.digest = other;
                prop_assert_eq!(of(&items) == of(&changed), items == changed);
                prop_assert_ne!(of(&items), of(items.get(1..).unwrap_or_default()));
            }
            let salted = Fingerprint::of(&items, Side::Asker, RunId(salt.wrapping_add(1)));
            prop_assert_eq!(of(&items) == salted, items.is_empty());
        }

        #[test]
        fn what_is_pending_is_equal_to_nothing(items in items()) {
            let here = Fingerprint::of(&items, Side::Asker, RunId(1));
            let there = Fingerprint::of(&items, Side::Answerer, RunId(1));
            prop_assert_eq!(here == there, items.iter().all(|item| !item.pending));
        }
    }

    /// Sums wrap around with the carry through all limbs.
    #[test]
    fn a_sum_carries() {
        let all = [u8::MAX; 32];
        let mut one = [0; 32];
        one[7] = 1;
        assert_eq!(Sum::default().plus(all).plus(one).0, [0; 4]);
        assert_eq!(Sum::default().plus(one).plus(all).plus(all).0, [u64::MAX; 4]);
    }
}
