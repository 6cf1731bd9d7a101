//! The simulated links: ordered streams that stall under a partition and die with their frames;
//! in harsh seeds single frames are lost, repeated and overtaken too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch::replication::LinkId;
use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::plan::Plan;

/// One link; side 0 and side 1 are its ends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [usize; 2],
    /// Whether each end has it up.
    pub(crate) open: [bool; 2],
    /// Nothing more is delivered.
    pub(crate) dead: bool,
    /// When the last frame to each side arrives.
    last: [Duration; 2],
    stalled: [Vec<Bytes>; 2],
    flying: [usize; 2],
}

/// A frame that will come to a side of a link.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) at: Duration,
    pub(crate) link: LinkId,
    pub(crate) side: usize,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// Pairs of nodes of which the first does not reach the second.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    last_link: u64,
}

impl Network {
    pub(crate) fn reaches(&self, a: usize, b: usize) -> bool {
        !self.blocked.contains(&(a, b))
    }

    /// Opens a link that each end will see at the given time.
    pub(crate) fn open(&mut self, ends: [usize; 2], seen: [Duration; 2]) -> LinkId {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let (open, stalled) = ([false; 2], [Vec::new(), Vec::new()]);
        let link = Link { ends, open, dead: false, last: seen, stalled, flying: [0; 2] };
        self.links.insert(id, link);
        id
    }

    /// Tells whether a live link joins two nodes.
    pub(crate) fn joined(&self, a: usize, b: usize) -> bool {
        let joins = |link: &Link| link.ends == [a, b] || link.ends == [b, a];
        self.links.values().any(|link| joins(link) && !link.dead)
    }

    /// Returns the links between two nodes that are not dead.
    pub(crate) fn between(&self, a: usize, b: usize) -> Vec<LinkId> {
        let joins = |link: &Link| link.ends == [a, b] || link.ends == [b, a];
        let live = self.links.iter().filter(|(_, link)| joins(link) && !link.dead);
        live.map(|(id, _)| *id).collect()
    }

    /// Takes a frame from a node; returns when it comes to the other side, if and as often as it
    /// does.
    pub(crate) fn send(
        &mut self,
        id: LinkId,
        from: usize,
        bytes: &Bytes,
        now: Duration,
        (plan, healed): (&Plan, bool),
        rng: &mut ChaCha8Rng,
    ) -> Vec<Flight> {
        let Some(link) = self.links.get_mut(&id) else { return Vec::new() };
        let side = usize::from(link.ends[0] == from);
        if link.dead || !link.open[1 - side] {
            return Vec::new();
        }
        let chance = |rng: &mut ChaCha8Rng, share: f64| !healed && rng.random_bool(share);
        if chance(rng, plan.loss) {
            return Vec::new();
        }
        let copies = if chance(rng, plan.duplication) { 2 } else { 1 };
        let mut flights = Vec::new();
        for _ in 0..copies {
            let latency = plan.latency.mul_f64(rng.random_range(0.8..1.5));
            let mut at = (now + latency).max(link.last[side]);
            if chance(rng, plan.reordering) {
                at += plan.latency.mul_f64(rng.random_range(0.0..5.0));
            } else {
                link.last[side] = at;
            }
            link.flying[side] += 1;
            assert!(link.flying[side] < 2_000, "the queue of a link is not bounded");
            flights.push(Flight { at, link: id, side, bytes: bytes.clone() });
        }
        flights
    }

    /// Takes a frame off its flight; returns the node and the frame if it arrives now.
    pub(crate) fn arrive(&mut self, flight: Flight, harsh: bool) -> Option<(usize, Bytes)> {
        let link = self.links.get_mut(&flight.link)?;
        let side = flight.side;
        link.flying[side] -= 1;
        let (from, to) = (link.ends[1 - side], link.ends[side]);
        if link.dead || !link.open[side] {
            return None;
        }
        if self.blocked.contains(&(from, to)) {
            if !harsh {
                link.stalled[side].push(flight.bytes);
                link.flying[side] += 1;
            }
            return None;
        }
        Some((to, flight.bytes))
    }

    /// Lets frames go on that a partition has held up.
    pub(crate) fn release(&mut self, now: Duration) -> Vec<Flight> {
        let mut flights = Vec::new();
        for (id, link) in &mut self.links {
            for side in [0, 1] {
                if self.blocked.contains(&(link.ends[1 - side], link.ends[side])) {
                    continue;
                }
                let stalled = std::mem::take(&mut link.stalled[side]).into_iter();
                let flight = |bytes| Flight { at: now, link: *id, side, bytes };
                flights.extend(stalled.map(flight));
            }
        }
        flights
    }
}
