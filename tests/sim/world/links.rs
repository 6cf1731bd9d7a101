//! Links: dialling, sending, arriving, ending.

use std::time::Duration;

use anabranch::replication::frame::Frame;
use anabranch::replication::{Input, LinkId};
use bytes::Bytes;
use rand::Rng;

use super::{Event, World};
use crate::network::Flight;

impl World {
    pub(super) fn dial(&mut self, a: usize, b: usize) {
        let pause = Duration::from_millis(self.rng.random_range(100..1_000));
        self.schedule_in(pause, Event::Dial { a, b });
        let up = self.processes[a].is_some() && self.processes[b].is_some();
        let reachable = self.network.reaches(a, b) && self.network.reaches(b, a);
        let second = !self.healed && self.rng.random_bool(self.plan.second_links);
        if !up || !reachable || (self.network.joined(a, b) && !second) {
            return;
        }
        let seen = [self.now + self.brief(20), self.now + self.brief(20)];
        let link = self.network.open([a, b], seen);
        for (node, at) in [(a, seen[0]), (b, seen[1])] {
            let life = self.lives[node];
            self.schedule_at(at, Event::Connected { node, life, link });
        }
    }

    pub(super) fn connected(&mut self, node: usize, life: u64, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if self.lives[node] != life || link.dead {
            link.dead = true;
            return;
        }
        let side = usize::from(link.ends[1] == node);
        link.open[side] = true;
        let region = self.regions[link.ends[1 - side]].clone();
        self.give(node, life, Input::Connected { link: id, region });
    }

    pub(super) fn disconnected(&mut self, node: usize, life: u64, id: LinkId) {
        if let Some(link) = self.network.links.get_mut(&id) {
            let side = usize::from(link.ends[1] == node);
            link.open[side] = false;
            if link.open == [false; 2] {
                self.network.links.remove(&id);
            }
        }
        self.give(node, life, Input::Disconnected { link: id, reason: "reset".to_owned() });
    }

    /// Closes a node's end of a link; the other end hears of it some time later.
    pub(super) fn close(&mut self, node: usize, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.dead = true;
        let side = usize::from(link.ends[1] == node);
        link.open[side] = false;
        self.tell_end(id, 1 - side);
    }

    pub(super) fn reset(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if !link.dead {
            link.dead = true;
            self.tell_end(id, 0);
            self.tell_end(id, 1);
        }
    }

    pub(super) fn tell_end(&mut self, id: LinkId, side: usize) {
        let node = self.network.links[&id].ends[side];
        let (life, delay) = (self.lives[node], self.brief(400));
        self.schedule_in(delay, Event::Disconnected { node, life, link: id });
    }

    pub(super) fn send(&mut self, node: usize, link: LinkId, bytes: &Bytes) {
        let frame = Frame::decode(bytes).expect("nodes send well-formed frames");
        self.oracle.sent(&frame, &*self.disks[node]);
        let one = matches!(&frame, Frame::Entries(batch) if batch.entries.len() == 1);
        let control = !matches!(frame, Frame::Entries(_));
        assert!(bytes.len() <= self.plan.frame_bytes || one || control, "a frame is too long");
        let plan = (&self.plan, self.healed);
        let flights = self.network.send(link, node, bytes, self.now, plan, &mut self.rng);
        for flight in flights {
            self.schedule_at(flight.at, Event::Arrive(flight));
        }
    }

    pub(super) fn arrive(&mut self, flight: Flight) {
        let link = flight.link;
        let harsh = self.plan.loss > 0.0;
        let Some((node, bytes)) = self.network.arrive(flight, harsh) else { return };
        self.note(("frame", node, link, &bytes));
        let frame = Frame::decode(&bytes).unwrap();
        self.oracle.delivered(node, &frame);
        let life = self.lives[node];
        self.give(node, life, Input::Frame { link, bytes });
    }

    pub(super) fn release(&mut self) {
        for flight in self.network.release(self.now) {
            self.schedule_at(flight.at, Event::Arrive(flight));
        }
    }
}
