//! What this node knows of the cluster: which regions there are, and what is durable in each.
//!
//! It is a view for the rest of the node (write concern, retention, purging, status), built from
//! what the state machine knows. What it says of a region is a lower bound: the region may have
//! more, never less, unless its disk was rolled back and it has not yet said so.

use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::{Now, Replication};

/// Where a region stands in the life of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It takes writes, and counts.
    Active,
    /// It is about to leave: it takes no writes, but still counts.
    Draining,
    /// It has left by itself, with everything it had admitted handed over.
    Left,
    /// It was given up by the others.
    Forgotten,
}

impl MemberState {
    /// Tells whether majorities count the region, and nothing is cleaned up before it is there.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            Self::Active | Self::Draining => true,
            Self::Left | Self::Forgotten => false,
        }
    }
}

/// What this node knows of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionView {
    /// The region.
    pub region: RegionName,
    /// Where it stands as a member.
    pub state: MemberState,
    /// Whether a link to it is up, or it is this node's own.
    pub connected: bool,
    /// Its present origin, if it is known.
    pub origin: Option<Origin>,
    /// What is durable there, as far as known here. The own region's is what is durable here.
    pub held: Arc<VersionVector>,
    /// When it last said what it has, by the wall clock of this node; `None` if never since this
    /// node started.
    pub as_of: Option<Timestamp>,
    /// Up to when this node has everything that the region had admitted, on the monotonic clock
    /// of this process; `None` if that is not known.
    pub current: Option<Duration>,
}

/// What this node knows of every region, its own included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// The regions: the own one first, then the others in the order of their names.
    pub regions: Vec<RegionView>,
}

impl ClusterView {
    /// Returns what is known of a region.
    #[must_use]
    pub fn region(&self, name: &RegionName) -> Option<&RegionView> {
        self.regions.iter().find(|view| view.region == *name)
    }

    /// Iterates over the regions that majorities count.
    pub fn voters(&self) -> impl Iterator<Item = &RegionView> {
        self.regions.iter().filter(|view| view.state.counts())
    }

    /// Returns what every region that counts has: per origin the least of all. It is worked out
    /// on every call, so callers that need it often keep it.
    #[must_use]
    pub fn stable(&self) -> VersionVector {
        let mut voters = self.voters();
        let Some(first) = voters.next() else { return VersionVector::new() };
        let others: Vec<&RegionView> = voters.collect();
        let least = |origin, sequence: Sequence| {
            let held = others.iter().map(|view| view.held.sequence(origin));
            held.fold(sequence, Sequence::min)
        };
        let mut stable = VersionVector::new();
        for dot in first.held.iter() {
            stable.raise(dot.origin, least(dot.origin, dot.sequence));
        }
        stable
    }
}

impl Replication {
    /// Returns what is known of every region.
    #[must_use]
    pub fn cluster(&self, now: Now) -> ClusterView {
        let own = RegionView {
            region: self.settings.region.clone(),
            state: self.members.own_standing().state,
            connected: true,
            origin: Some(self.origin),
            held: Arc::new(self.durable.clone()),
            as_of: Some(now.wall),
            current: Some(now.monotonic),
        };
        let ago = |moment: Duration| {
            let ago = now.monotonic.saturating_sub(moment).as_micros();
            Timestamp(now.wall.0.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
        };
        let peers = self.peers.iter().map(|(region, peer)| {
            let row = self.rows.get(region);
            RegionView {
                region: region.clone(),
                state: self.state_of(region),
                connected: peer.link.is_some(),
                origin: row.map(|row| row.origin),
                held: row.map(|row| Arc::clone(&row.held)).unwrap_or_default(),
                as_of: row.and_then(|row| row.as_of).map(ago),
                current: row.and_then(|row| row.current),
            }
        });
        ClusterView { regions: std::iter::once(own).chain(peers).collect() }
    }

    fn state_of(&self, region: &RegionName) -> MemberState {
        // A region whose record is lost counts until it is given up.
        self.members.get(region).map_or(MemberState::Active, |member| member.standing.state)
    }

    /// Returns a number that grows whenever [`Replication::cluster`] has something new to say.
    #[must_use]
    pub fn knowledge(&self) -> u64 {
        self.knowledge
    }
}

#[cfg(test)]
pub(crate) mod views {
    use anabranch_crdt::entry::Dot;
    use anabranch_crdt::ids::Sequence;

    use super::*;

    /// A region that is connected, and has what is said.
    pub(crate) fn region(name: &str, state: MemberState, held: VersionVector) -> RegionView {
        RegionView {
            region: name.parse().unwrap(),
            state,
            connected: true,
            origin: None,
            held: Arc::new(held),
            as_of: None,
            current: None,
        }
    }

    /// A vector of origins that are one byte repeated.
    pub(crate) fn vector(pairs: &[(u8, u64)]) -> VersionVector {
        let dot = |&(byte, sequence): &(u8, u64)| Dot {
            origin: Origin::from_bytes([byte; 16]),
            sequence: Sequence(sequence),
        };
        pairs.iter().map(dot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, state: MemberState, held: &[(u8, u64)]) -> RegionView {
        views::region(name, state, views::vector(held))
    }

    #[test]
    fn what_every_region_that_counts_has_is_stable() {
        let view = ClusterView {
            regions: vec![
                region("eu", MemberState::Active, &[(1, 9), (2, 4), (3, 1)]),
                region("us", MemberState::Draining, &[(1, 5), (2, 7)]),
                region("ap", MemberState::Forgotten, &[]),
            ],
        };
        let expected = region("x", MemberState::Active, &[(1, 5), (2, 4)]).held;
        assert_eq!(view.stable(), *expected);
        assert_eq!(view.voters().count(), 2);
        assert_eq!(ClusterView::default().stable(), VersionVector::new());
    }
}
