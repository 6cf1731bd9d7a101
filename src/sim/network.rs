//! The simulated links: ordered streams that stall under a partition and die with their frames;
//! in harsh seeds single frames are lost, repeated and overtaken too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::nodes::NodeId;
use super::plan::Plan;
use crate::replication::LinkId;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// Who dialled.
    Left,
    /// Who was dialled.
    Right,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Left, Self::Right];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What one end of a link knows, and what is on its way to it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: NodeId,
    /// Whether this end has the link up.
    pub(crate) open: bool,
    /// When the last frame to this end arrives.
    last: Duration,
    stalled: Vec<Bytes>,
    flying: usize,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    left: End,
    right: End,
    /// Nothing more is delivered.
    pub(crate) dead: bool,
}

impl Link {
    pub(crate) fn end(&self, side: Side) -> &End {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// Returns the side on which a node is.
    pub(crate) fn side_of(&self, node: NodeId) -> Side {
        if self.left.node == node { Side::Left } else { Side::Right }
    }

    pub(crate) fn is_of(&self, node: NodeId) -> bool {
        self.left.node == node || self.right.node == node
    }

    fn joins(&self, a: NodeId, b: NodeId) -> bool {
        self.is_of(a) && self.is_of(b)
    }
}

/// A frame that will come to an end of a link.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) at: Duration,
    pub(crate) link: LinkId,
    pub(crate) side: Side,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// Pairs of nodes of which the first does not reach the second.
    pub(crate) blocked: BTreeSet<(NodeId, NodeId)>,
    last_link: u64,
}

impl Network {
    pub(crate) fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        !self.blocked.contains(&(a, b))
    }

    /// Opens a link that each end will see at the given time.
    pub(crate) fn open(&mut self, left: (NodeId, Duration), right: (NodeId, Duration)) -> LinkId {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let end = |(node, last)| End { node, open: false, last, stalled: Vec::new(), flying: 0 };
        self.links.insert(id, Link { left: end(left), right: end(right), dead: false });
        id
    }

    /// Returns the links between two nodes that are not dead.
    pub(crate) fn between(&self, a: NodeId, b: NodeId) -> Vec<LinkId> {
        let live = self.links.iter().filter(|(_, link)| link.joins(a, b) && !link.dead);
        live.map(|(id, _)| *id).collect()
    }

    /// Returns the links of a node.
    pub(crate) fn of(&self, node: NodeId) -> Vec<LinkId> {
        let links = self.links.iter().filter(|(_, link)| link.is_of(node));
        links.map(|(id, _)| *id).collect()
    }

    /// Takes a frame from a node; returns when it comes to the other side, if and as often as it
    /// does.
    pub(crate) fn send(
        &mut self,
        (id, from): (LinkId, NodeId),
        bytes: &Bytes,
        now: Duration,
        (plan, healed): (&Plan, bool),
        rng: &mut ChaCha8Rng,
    ) -> Vec<Flight> {
        let Some(link) = self.links.get_mut(&id) else { return Vec::new() };
        let from = link.side_of(from);
        if link.dead || !link.end(from).open {
            return Vec::new();
        }
        let chance = |rng: &mut ChaCha8Rng, share: f64| !healed && rng.random_bool(share);
        if chance(rng, plan.loss) {
            return Vec::new();
        }
        let copies = if chance(rng, plan.duplication) { 2 } else { 1 };
        let (side, mut flights) = (from.other(), Vec::new());
        let end = link.end_mut(side);
        for _ in 0..copies {
            let latency = plan.latency.mul_f64(rng.random_range(0.8..1.5));
            let mut at = (now + latency).max(end.last);
            if chance(rng, plan.reordering) {
                at += plan.latency.mul_f64(rng.random_range(0.0..5.0));
            } else {
                end.last = at;
            }
            end.flying += 1;
            flights.push(Flight { at, link: id, side, bytes: bytes.clone() });
        }
        flights
    }

    /// Returns how many frames are on their way to the other end of a link.
    pub(crate) fn flying(&self, id: LinkId, from: NodeId) -> usize {
        self.links.get(&id).map_or(0, |link| link.end(link.side_of(from).other()).flying)
    }

    /// Takes a frame off its flight; returns the node and the frame if it arrives now.
    pub(crate) fn arrive(&mut self, flight: Flight, harsh: bool) -> Option<(NodeId, Bytes)> {
        let link = self.links.get_mut(&flight.link)?;
        let from = link.end(flight.side.other()).node;
        let dead = link.dead;
        let end = link.end_mut(flight.side);
        end.flying = end.flying.saturating_sub(1);
        if dead || !end.open {
            return None;
        }
        if self.blocked.contains(&(from, end.node)) {
            if !harsh {
                end.stalled.push(flight.bytes);
                end.flying += 1;
            }
            return None;
        }
        Some((end.node, flight.bytes))
    }

    /// Lets frames go on that a partition has held up.
    pub(crate) fn release(&mut self, now: Duration) -> Vec<Flight> {
        let mut flights = Vec::new();
        for (id, link) in &mut self.links {
            for side in Side::BOTH {
                let from = link.end(side.other()).node;
                let end = link.end_mut(side);
                if self.blocked.contains(&(from, end.node)) {
                    continue;
                }
                let stalled = std::mem::take(&mut end.stalled).into_iter();
                flights.extend(stalled.map(|bytes| Flight { at: now, link: *id, side, bytes }));
            }
        }
        flights
    }
}
