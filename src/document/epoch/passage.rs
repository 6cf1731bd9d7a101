//! Causal stability: when every region is past something.
//!
//! A region is past what it has made durable. What it admitted before that was admitted without
//! knowing, so this node has to have that as well: whatever it then hears of, knew.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_crdt::ids::RegionName;
use anabranch_crdt::version::VersionVector;

use crate::replication::ClusterView;

/// One wait until every region that counts is past a vector.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    target: VersionVector,
    /// What each region had when it was first seen to have the target.
    passed: BTreeMap<RegionName, Arc<VersionVector>>,
}

impl Passage {
    pub(super) fn new(target: VersionVector) -> Self {
        Self { target, passed: BTreeMap::new() }
    }

    /// Takes a look at the cluster; `own` is what is durable here.
    ///
    /// # Errors
    /// The regions that are waited for: those that are not past the target, or else those that had
    /// more than this node has by now.
    pub(super) fn look(
        &mut self,
        view: &ClusterView,
        own: &VersionVector,
    ) -> Result<(), Vec<RegionName>> {
        self.passed.retain(|name, _| view.voters().any(|region| region.region == *name));
        for region in view.voters() {
            let known = self.passed.contains_key(&region.region);
            if !known && region.held.includes(&self.target) {
                self.passed.insert(region.region.clone(), Arc::clone(&region.held));
            }
        }
        let behind = view.voters().map(|region| &region.region);
        let behind: Vec<_> =
            behind.filter(|name| !self.passed.contains_key(*name)).cloned().collect();
        if !behind.is_empty() {
            return Err(behind);
        }
        let ahead = self.passed.iter().filter(|(_, held)| !own.includes(held));
        let ahead: Vec<_> = ahead.map(|(name, _)| name.clone()).collect();
        if ahead.is_empty() { Ok(()) } else { Err(ahead) }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::replication::views::{self, vector};
    use crate::replication::{MemberState, RegionView};

    fn region(name: &str, state: MemberState, held: &[(u8, u64)]) -> RegionView {
        views::region(name, state, vector(held))
    }

    fn names(names: &[&str]) -> Result<(), Vec<RegionName>> {
        Err(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[test]
    fn every_region_that_counts_has_to_be_past_it() {
        let own = vector(&[(1, 5), (2, 2)]);
        let mut passage = Passage::new(own.clone());
        let here = || region("eu", MemberState::Active, &[(1, 5), (2, 2)]);
        let view = |regions| ClusterView { regions };
        let both = view(vec![here(), region("us", MemberState::Active, &[(1, 4), (2, 9)])]);
        assert_eq!(passage.look(&both, &own), names(&["us"]));
        let left = view(vec![here(), region("us", MemberState::Forgotten, &[(1, 4)])]);
        assert_eq!(passage.look(&left, &own), Ok(()), "a forgotten region is not waited for");
    }

    #[test]
    fn what_a_region_admitted_before_it_knew_has_to_be_here() {
        let own = vector(&[(1, 5)]);
        let mut passage = Passage::new(own.clone());
        let here = region("eu", MemberState::Active, &[(1, 5)]);
        let us = region("us", MemberState::Draining, &[(1, 5), (2, 3)]);
        let view = ClusterView { regions: vec![here.clone(), us] };
        assert_eq!(passage.look(&view, &own), names(&["us"]));
        // What it admits later it admits knowing of the target.
        let us = region("us", MemberState::Active, &[(1, 5), (2, 4)]);
        let view = ClusterView { regions: vec![here, us] };
        assert_eq!(passage.look(&view, &vector(&[(1, 5), (2, 2)])), names(&["us"]));
        assert_eq!(passage.look(&view, &vector(&[(1, 5), (2, 3)])), Ok(()));
    }
}
