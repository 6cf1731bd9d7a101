//! Faults: partitions, flapping links, crashes, old disks.

use std::time::Duration;

use anabranch::replication::LinkId;
use rand::Rng;

use super::{Event, World};
use crate::storage::Storage;

impl World {
    pub(super) fn partition(&mut self) {
        self.schedule_after(self.plan.partitions, Event::Partition);
        if self.healed {
            return;
        }
        self.report.partitions += 1;
        let lasts = Duration::from_millis(self.rng.random_range(100..8_000));
        let side: Vec<bool> = (0..self.plan.nodes).map(|_| self.rng.random_bool(0.5)).collect();
        for a in 0..self.plan.nodes {
            for b in 0..self.plan.nodes {
                let cut = side[a] != side[b] && (side[a] || !self.plan.one_way);
                if cut && self.network.blocked.insert((a, b)) {
                    self.schedule_in(lasts, Event::Unblock { pair: (a, b) });
                    for link in self.network.between(a, b) {
                        let delay = self.brief(4_000);
                        self.schedule_in(delay, Event::Starve { link });
                    }
                }
            }
        }
    }

    /// Ends a link that a partition has cut for longer than its idle timeout.
    pub(super) fn starve(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get(&id) else { return };
        let [a, b] = link.ends;
        if !self.network.reaches(a, b) || !self.network.reaches(b, a) {
            self.reset(id);
        }
    }

    pub(super) fn flap(&mut self) {
        self.schedule_after(self.plan.flaps, Event::Flap);
        let links: Vec<LinkId> = self.network.links.keys().copied().collect();
        if !self.healed && !links.is_empty() {
            let link = links[self.rng.random_range(0..links.len())];
            self.reset(link);
        }
    }

    pub(super) fn crash_someone(&mut self) {
        self.schedule_after(self.plan.crashes, Event::Crash);
        let node = self.any_node();
        if self.healed || self.processes[node].is_none() {
            return;
        }
        self.report.crashes += 1;
        if self.rng.random_bool(0.5) {
            self.end(node);
        } else {
            self.stop(node);
        }
        let pause = Duration::from_millis(self.rng.random_range(500..4_000));
        self.schedule_in(pause, Event::Restart { node });
        if self.rng.random_bool(self.plan.rollbacks) {
            self.roll_back(node);
        }
    }

    /// Ends a node at once.
    pub(super) fn stop(&mut self, node: usize) {
        // Half of the crashes come between the sync and the news of it.
        if self.rng.random_bool(0.5) {
            self.sync(node, false);
        }
        self.disks[node].crash();
        self.processes[node] = None;
        self.lives[node] += 1;
        let links = self.network.links.iter().filter(|(_, link)| link.ends.contains(&node));
        let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        links.into_iter().for_each(|link| self.close(node, link));
    }

    /// Stops a node in order; half of the time a backup is made of it then.
    fn end(&mut self, node: usize) {
        if let Some(process) = self.processes[node].as_mut() {
            process.syncing = self.disks[node].staged();
        }
        self.sync(node, false);
        self.disks[node].end();
        if self.rng.random_bool(0.5) {
            self.images[node] = self.disks[node].image();
        }
        self.stop(node);
    }

    pub(super) fn roll_back(&mut self, node: usize) {
        let image = self.images[node].image();
        let others = self.disks.iter().enumerate().filter(|(other, _)| *other != node);
        let others: Vec<&dyn Storage> = others.map(|(_, disk)| &**disk).collect();
        self.oracle.rolled_back(&self.disks[node].vector(), &image.vector(), &others);
        self.disks[node] = image;
    }

    pub(super) fn restart(&mut self, node: usize) {
        if self.processes[node].is_none() && self.absent != Some(node) {
            self.start(node);
        }
    }
}
