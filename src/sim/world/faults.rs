//! Faults: partitions, flapping links, crashes, old disks, full disks, clocks.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Event, World};
use crate::replication::LinkId;
use crate::sim::disk::SimDisk;
use crate::sim::history::Step;
use crate::sim::nodes::NodeId;
use crate::sim::plan::millis;

impl World {
    /// Gives the dice of the next fault, unless it is not to happen.
    fn fault(&mut self) -> Option<ChaCha8Rng> {
        if self.healed {
            return None;
        }
        self.schedule.next()
    }

    fn happened(&mut self, what: impl Into<String>) {
        self.schedule.note(self.now, what);
    }

    fn drawn(&self, dice: &mut ChaCha8Rng) -> NodeId {
        NodeId(dice.random_range(0..self.nodes.len()))
    }

    pub(super) fn partition(&mut self) {
        self.schedule_after(self.plan.partitions, Event::Partition);
        let Some(mut dice) = self.fault() else { return };
        let lasts = millis(&mut dice, 100, 6_000);
        let side: Vec<bool> = self.nodes.ids().map(|_| dice.random_bool(0.5)).collect();
        let on = |node: NodeId| side.get(node.0).copied().unwrap_or_default();
        let mut cut = Vec::new();
        for a in self.nodes.ids() {
            for b in self.nodes.ids() {
                let apart = on(a) != on(b) && (on(a) || !self.plan.one_way);
                if apart && self.network.blocked.insert((a, b)) {
                    cut.push(format!("{} -> {}", a.0, b.0));
                    self.schedule_in(lasts, Event::Unblock { pair: (a, b) });
                    for link in self.network.between(a, b) {
                        let delay = self.brief(4_000);
                        self.schedule_in(delay, Event::Starve { link });
                    }
                }
            }
        }
        self.tally.partitions += 1;
        self.happened(format!("partition for {lasts:?}: {}", cut.join(", ")));
    }

    /// Ends a link that a partition has cut for longer than its idle timeout.
    pub(super) fn starve(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get(&id) else { return };
        let [a, b] = crate::sim::network::Side::BOTH.map(|side| link.end(side).node);
        if !self.network.reaches(a, b) || !self.network.reaches(b, a) {
            self.reset(id);
        }
    }

    pub(super) fn flap(&mut self) {
        self.schedule_after(self.plan.flaps, Event::Flap);
        let Some(mut dice) = self.fault() else { return };
        let links: Vec<LinkId> = self.network.links.keys().copied().collect();
        let Some(link) = crate::sim::plan::pick(&mut dice, &links) else { return };
        self.tally.flaps += 1;
        self.happened(format!("link {} is reset", link.0));
        self.reset(link);
    }

    pub(super) fn crash_someone(&mut self) {
        self.schedule_after(self.plan.crashes, Event::Crash);
        let Some(mut dice) = self.fault() else { return };
        let node = self.drawn(&mut dice);
        if self.nodes[node].process.is_none() {
            return;
        }
        if dice.random_bool(self.plan.torn) {
            let operations = dice.random_range(1..60);
            self.happened(format!("{node}: the power fails at write {operations} from now"));
            return self.nodes[node].disk.crash_after(operations);
        }
        // Half of the crashes come between the sync and the news of it.
        if dice.random_bool(0.5) {
            self.commit_silently(node);
        }
        self.stop(node, "crash");
        if dice.random_bool(self.plan.rollbacks) {
            self.roll_back(node);
        } else if dice.random_bool(self.plan.destroyed) {
            self.replace_disk(node);
        }
    }

    fn commit_silently(&mut self, id: NodeId) {
        let life = self.nodes[id].life;
        let Some(process) = self.process(id, life) else { return };
        process.commit();
        let batches = process.take_published();
        self.note_durable(id, &batches);
    }

    /// Ends a node at once, and starts it again some time later.
    pub(super) fn stop(&mut self, id: NodeId, why: &str) {
        let Some(process) = self.nodes[id].process.take() else { return };
        self.tally.crashes += 1;
        self.note(("stopped", id));
        self.schedule.note(self.now, format!("{id} stops: {why}"));
        self.forget_calls(&process);
        self.nodes[id].disk.power_cycle();
        if self.plan.disks_may_lose() {
            // Whoever cannot trust the disk takes the file for another one.
            self.nodes[id].file += 1;
        }
        self.nodes[id].life += 1;
        drop(process);
        for link in self.network.of(id) {
            self.close(id, link);
        }
        let pause = Duration::from_millis(self.rng.random_range(200..2_500));
        self.schedule_in(pause, Event::Restart { node: id });
    }

    pub(super) fn restart(&mut self, id: NodeId) {
        if !self.healed && self.rng.random_bool(self.plan.failing_restarts) {
            let operations = self.rng.random_range(1..12);
            self.nodes[id].disk.crash_after(operations);
        }
        self.start(id);
    }

    pub(super) fn photograph(&mut self) {
        self.schedule_after(self.plan.crashes, Event::Photograph);
        let node = self.any_node();
        let held = self.nodes[node].process.as_ref().map(|process| process.reach());
        if let Some(held) = held {
            self.nodes[node].image = Some((self.nodes[node].disk.image(), held));
        }
    }

    /// Restores an older image of a disk: another file, with less in it.
    fn roll_back(&mut self, id: NodeId) {
        let Some((image, left)) = self.nodes[id].image.clone() else { return };
        self.tally.rollbacks += 1;
        self.happened(format!("{id}: its disk is restored from an older copy"));
        let seed = self.rng.random();
        self.change_disk(id, SimDisk::holding(seed, image));
        self.history.note(self.now, Step::Replaced { node: id.0, left });
    }

    /// Gives a node an empty disk.
    pub(super) fn replace_disk(&mut self, id: NodeId) {
        self.tally.destroyed += 1;
        self.happened(format!("{id}: its disk is destroyed"));
        let seed = self.rng.random();
        self.change_disk(id, SimDisk::new(seed));
        let left = crate::sim::history::Reach::new();
        self.history.note(self.now, Step::Replaced { node: id.0, left });
    }

    fn change_disk(&mut self, id: NodeId, disk: SimDisk) {
        let lies = if self.healed { 0 } else { self.plan.lies };
        let node = &mut self.nodes[id];
        node.file += 1;
        node.disk = disk;
        node.disk.lie(lies);
    }

    pub(super) fn jump_a_clock(&mut self) {
        self.schedule_after(self.plan.clock_jumps, Event::ClockJump);
        let Some(mut dice) = self.fault() else { return };
        let node = self.drawn(&mut dice);
        let skew = skew(&mut dice, true);
        self.nodes[node].skew = skew;
        self.tally.clock_jumps += 1;
        self.happened(format!("{node}: its clock is {} s off from now on", skew / 1_000_000));
    }

    pub(super) fn fill_a_disk(&mut self) {
        self.schedule_after(self.plan.full_disks, Event::FillDisk);
        let Some(mut dice) = self.fault() else { return };
        let (node, lasts) = (self.drawn(&mut dice), millis(&mut dice, 100, 3_000));
        let disk = &self.nodes[node].disk;
        if dice.random_bool(0.5) {
            disk.fill();
        } else {
            disk.fill_after(dice.random_range(0..40));
        }
        self.tally.full_disks += 1;
        self.happened(format!("{node}: its disk is full for {lasts:?}"));
        self.schedule_in(lasts, Event::MakeSpace { node });
    }
}

/// Draws how wrong a clock is: by anything from microseconds to ten years.
pub(super) fn skew(dice: &mut ChaCha8Rng, skewed: bool) -> i64 {
    let most = match dice.random_range(0..3) {
        0 => 2_000_000,
        1 => 24 * 3_600 * 1_000_000,
        _ => 10 * 365 * 24 * 3_600 * 1_000_000_i64,
    };
    let skew = dice.random_range(-most..=most);
    if skewed { skew } else { 0 }
}
