//! Links: dialling, arriving, ending.

use std::time::Duration;

use anabranch_crdt::entry::Entry;
use rand::Rng;

use super::{Event, World};
use crate::replication::frame::Frame;
use crate::replication::{Input, LinkId};
use crate::sim::network::{Flight, Side};
use crate::sim::nodes::NodeId;

impl World {
    pub(super) fn dial(&mut self, a: NodeId, b: NodeId) {
        let pause = Duration::from_millis(self.rng.random_range(100..1_000));
        self.schedule_in(pause, Event::Dial { a, b });
        let up = self.nodes[a].process.is_some() && self.nodes[b].process.is_some();
        let reachable = self.network.reaches(a, b) && self.network.reaches(b, a);
        let second = !self.healed && self.rng.random_bool(self.plan.second_links);
        if !up || !reachable || (!self.network.between(a, b).is_empty() && !second) {
            return;
        }
        let seen = [self.now + self.brief(20), self.now + self.brief(20)];
        let [left, right] = seen;
        let link = self.network.open((a, left), (b, right));
        for (node, at) in [(a, left), (b, right)] {
            let life = self.nodes[node].life;
            self.schedule_at(at, Event::Connected { node, life, link });
        }
    }

    pub(super) fn connected(&mut self, node: NodeId, life: u64, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if self.nodes[node].life != life || link.dead {
            link.dead = true;
            return;
        }
        let side = link.side_of(node);
        link.end_mut(side).open = true;
        let region = self.nodes[link.end(side.other()).node].region.clone();
        self.give(node, life, Input::Connected { link: id, region });
    }

    pub(super) fn disconnected(&mut self, node: NodeId, life: u64, id: LinkId) {
        if let Some(link) = self.network.links.get_mut(&id) {
            let side = link.side_of(node);
            link.end_mut(side).open = false;
            if Side::BOTH.iter().all(|side| !link.end(*side).open) {
                self.network.links.remove(&id);
            }
        }
        self.give(node, life, Input::Disconnected { link: id, reason: "reset".to_owned() });
    }

    /// Closes a node's end of a link; the other end hears of it some time later.
    pub(super) fn close(&mut self, node: NodeId, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.dead = true;
        let side = link.side_of(node);
        link.end_mut(side).open = false;
        self.tell_end(id, side.other());
    }

    pub(super) fn reset(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if !link.dead {
            link.dead = true;
            self.tell_end(id, Side::Left);
            self.tell_end(id, Side::Right);
        }
    }

    fn tell_end(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.network.links.get(&id) else { return };
        let node = link.end(side).node;
        let (life, delay) = (self.nodes[node].life, self.brief(400));
        self.schedule_in(delay, Event::Disconnected { node, life, link: id });
    }

    pub(super) fn arrive(&mut self, flight: Flight) {
        let link = flight.link;
        let harsh = self.plan.loss > 0.0;
        let Some((node, bytes)) = self.network.arrive(flight, harsh) else { return };
        self.note(("frame", node, link, &bytes));
        match Frame::decode(&bytes) {
            Ok(Frame::Entries(batch)) => {
                batch.entries.iter().for_each(|entry| self.count_delivery(node, entry));
            }
            Ok(Frame::Digest(_)) => self.tally.digests += 1,
            Ok(_) | Err(_) => {}
        }
        let life = self.nodes[node].life;
        self.give(node, life, Input::Frame { link, bytes });
    }

    fn count_delivery(&mut self, node: NodeId, entry: &Entry) {
        let dot = (node.0, entry.origin.0.as_u128(), entry.sequence.0);
        let times = self.tally.deliveries.entry(dot).or_default();
        *times += 1;
        let bytes = entry.change.len() as u64;
        self.tally.delivered_bytes += bytes;
        if *times > 1 {
            self.tally.repeated_bytes += bytes;
        }
    }

    pub(super) fn release(&mut self) {
        for flight in self.network.release(self.now) {
            self.schedule_at(flight.at, Event::Arrive(flight));
        }
    }
}
