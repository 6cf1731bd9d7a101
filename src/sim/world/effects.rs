//! What a node does when it is let: its owners, its disk, its state machine, its timers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::entry::Entry;
use anabranch_crdt::version::VersionVector;
use rand::Rng;

use super::{CLOCK_JUDGED_EVERY, Event, Want, World};
use crate::journal::{CommitBatch, Source};
use crate::replication::frame::Frame;
use crate::replication::{Effect, Input, LinkId, Ticket};
use crate::sim::history::{Logged, Step, Whom};
use crate::sim::node::{self, Appended};
use crate::sim::nodes::NodeId;

impl World {
    /// Gives a node an input and carries out what it wants done.
    pub(super) fn give(&mut self, id: NodeId, life: u64, input: Input) {
        let now = self.clocks(id);
        let Some(process) = self.process(id, life) else { return };
        let mut effects = Vec::new();
        process.replication.handle(input, now, &mut effects);
        if effects.len() > MAX_EFFECTS {
            return self.violated("bounded", format!("{id}: {} effects", effects.len()));
        }
        for effect in effects {
            self.carry_out(id, life, effect);
        }
        self.set_timer(id, life);
        self.go_on(id, life);
    }

    fn carry_out(&mut self, id: NodeId, life: u64, effect: Effect) {
        match effect {
            Effect::Send { link, bytes, .. } => self.send(id, link, &bytes),
            Effect::Close { link, .. } => self.close(id, link),
            Effect::Append { ticket, entries } => {
                if let Some(process) = self.process(id, life) {
                    process.append(ticket, entries);
                }
            }
            Effect::Read { ticket, origin, after, entries, bytes } => {
                let (delay, want) = (self.disk_delay(), Want { origin, after, entries, bytes });
                self.schedule_in(delay, Event::Read { node: id, life, ticket, want });
            }
            Effect::NameOrigin { origin, region } => {
                if let Some(process) = self.process(id, life) {
                    process.journal.name_origin(origin, &region);
                }
            }
            Effect::ObserveClock { seen } => {
                if let Some(process) = self.process(id, life) {
                    process.clock.observe(seen);
                }
            }
            Effect::RenewOrigin => {
                let delay = self.disk_delay();
                self.schedule_in(delay, Event::Renew { node: id, life });
            }
        }
    }

    // The owner and the disk

    /// Sees to it that a node goes on with what waits for its owners or its disk.
    pub(super) fn go_on(&mut self, id: NodeId, life: u64) {
        let (serve, commit) = (self.brief(1), self.disk_delay());
        let Some(process) = self.process(id, life) else { return };
        let serves = !process.serving && process.wants_to_serve();
        let commits = !process.committing && process.wants_to_commit();
        process.serving |= serves;
        process.committing |= commits;
        if serves {
            self.schedule_in(serve, Event::Serve { node: id, life });
        }
        if commits {
            self.schedule_in(commit, Event::Commit { node: id, life });
        }
    }

    pub(super) fn serve(&mut self, id: NodeId, life: u64) {
        let Some(process) = self.process(id, life) else { return };
        process.serving = false;
        process.serve();
        self.settle(id);
    }

    pub(super) fn commit(&mut self, id: NodeId, life: u64) {
        let Some(process) = self.process(id, life) else { return };
        process.committing = false;
        process.commit();
        self.settle(id);
    }

    /// Lets everyone hear of what a node has done.
    pub(super) fn settle(&mut self, id: NodeId) {
        let life = self.nodes[id].life;
        if self.nodes[id].disk.is_off() {
            self.tally.torn_commits += 1;
            // What was answered before the power failed was heard.
            self.collect_replies(id, life);
            return self.stop(id, "the power fails at a write");
        }
        let Some(process) = self.process(id, life) else { return };
        let (batches, appended) = (process.take_published(), process.take_appended());
        self.note_durable(id, &batches);
        self.tell_replication(id, life, &batches, appended);
        self.collect_replies(id, life);
        self.go_on(id, life);
    }

    pub(super) fn note_durable(&mut self, id: NodeId, batches: &[Arc<CommitBatch>]) {
        for (source, entry) in batches.iter().flat_map(|batch| &batch.entries) {
            let change = (*source == Source::Local).then(|| entry.change.clone());
            let (document, entry) = (entry.document.0.as_u128(), logged(entry));
            self.note(("durable", id, entry.origin, entry.sequence, entry.content));
            let durable = Step::Durable { node: id.0, entry, document, change };
            self.history.note(self.now, durable);
        }
    }

    fn tell_replication(
        &mut self,
        id: NodeId,
        life: u64,
        batches: &[Arc<CommitBatch>],
        appended: Vec<Appended>,
    ) {
        if let Some(last) = batches.last() {
            let omitted = self.rng.random_bool(self.plan.omitted);
            let local = if omitted { Vec::new() } else { node::local(batches) };
            let vector = last.position.vector.clone();
            self.give(id, life, Input::Committed { local, vector });
        }
        for (ticket, error) in appended {
            self.give(id, life, Input::Appended { ticket, error });
        }
    }

    fn collect_replies(&mut self, id: NodeId, life: u64) {
        let Some(process) = self.process(id, life) else { return };
        let replies = process.poll();
        for (call, reply) in replies {
            self.tell(id, Whom::Client, &reply.position.vector);
            self.answered(call, reply);
        }
    }

    pub(super) fn read(&mut self, id: NodeId, life: u64, ticket: Ticket, want: Want) {
        let fails = !self.healed && self.rng.random_bool(self.plan.failed_reads);
        let Some(process) = self.process(id, life) else { return };
        let Want { origin, after, entries, bytes } = want;
        let read = process.journal.entries(origin, after, entries, bytes).unwrap_or_default();
        let entries = if fails { Vec::new() } else { read };
        self.give(id, life, Input::Read { ticket, entries });
    }

    pub(super) fn renew(&mut self, id: NodeId, life: u64) {
        let Some(process) = self.process(id, life) else { return };
        match process.renew_origin() {
            Ok(origin) => {
                self.tally.renewals += 1;
                self.note(("renewed", id, origin));
                self.give(id, life, Input::Renewed { origin });
                self.settle(id);
            }
            // A node without an origin cannot go on.
            Err(_) => self.stop(id, "no new origin"),
        }
    }

    pub(super) fn judge_clock(&mut self, id: NodeId, life: u64) {
        let now = self.clocks(id);
        let Some(process) = self.process(id, life) else { return };
        process.judge_clock(now);
        self.schedule_in(CLOCK_JUDGED_EVERY, Event::JudgeClock { node: id, life });
    }

    // Timers

    fn set_timer(&mut self, id: NodeId, life: u64) {
        let now = self.now;
        let Some(process) = self.process(id, life) else { return };
        let at = process.replication.poll_timeout().map(|at| (process.booted + at).max(now));
        if process.timer == at {
            return;
        }
        process.timer = at;
        if let Some(at) = at {
            self.schedule_at(at, Event::Timer { node: id, life, at });
        }
    }

    pub(super) fn timer(&mut self, id: NodeId, life: u64, at: Duration) {
        let Some(process) = self.process(id, life).filter(|process| process.timer == Some(at))
        else {
            return;
        };
        process.timer = None;
        self.give(id, life, Input::Timeout);
        let now = self.now;
        let Some(process) = self.process(id, life) else { return };
        let moves_on = process.timer.is_none_or(|next| next > now);
        process.hurried = if moves_on { 0 } else { process.hurried + 1 };
        if process.hurried > MAX_HURRIED {
            self.violated("liveness", format!("{id}: a timer that does not move on"));
        }
    }

    // What a node says

    fn send(&mut self, id: NodeId, link: LinkId, bytes: &bytes::Bytes) {
        let Ok(frame) = Frame::decode(bytes) else {
            return self.violated("bounded", format!("{id} sends a frame that cannot be read"));
        };
        self.note_said(id, &frame);
        let one = matches!(&frame, Frame::Entries(batch) if batch.entries.len() == 1);
        if matches!(frame, Frame::Entries(_)) && !one && bytes.len() > self.plan.frame_bytes {
            return self.violated("bounded", format!("{id} sends {} bytes at once", bytes.len()));
        }
        self.tally.bytes += bytes.len() as u64;
        self.tally.frames += 1;
        let plan = (&self.plan, self.healed);
        let flights = self.network.send((link, id), bytes, self.now, plan, &mut self.rng);
        for flight in flights {
            self.schedule_at(flight.at, Event::Arrive(flight));
        }
        if self.network.flying(link, id) > MAX_FLYING {
            self.violated("bounded", format!("the queue of a link of {id} is not bounded"));
        }
    }

    fn note_said(&mut self, id: NodeId, frame: &Frame) {
        match frame {
            Frame::Hello(hello) => self.tell(id, Whom::Hello, &hello.vector),
            Frame::Ack { vector } => self.tell(id, Whom::Acknowledgement, vector),
            Frame::Digest(digest) => self.tell(id, Whom::Digest, &digest.vector),
            Frame::Pull(pull) => {
                let mut vector = VersionVector::new();
                vector.raise(pull.origin, pull.after);
                self.tell(id, Whom::Pull, &vector);
            }
            Frame::Entries(batch) => {
                for entry in &batch.entries {
                    self.history.note(self.now, Step::Sent { node: id.0, entry: logged(entry) });
                }
            }
            Frame::Names(_) => {}
        }
    }

    /// Takes note of what a node says that it has, where that is news.
    pub(super) fn tell(&mut self, id: NodeId, whom: Whom, vector: &VersionVector) {
        let told = self.told.entry(id).or_default();
        let mut upto = Vec::new();
        for dot in vector.iter() {
            let (origin, sequence) = (dot.origin.0.as_u128(), dot.sequence.0);
            let before = told.entry(origin).or_default();
            if sequence > *before {
                *before = sequence;
                upto.push((origin, sequence));
            }
        }
        if !upto.is_empty() {
            self.history.note(self.now, Step::Told { node: id.0, whom, upto });
        }
    }
}

/// An entry as an observer notes it.
pub(super) fn logged(entry: &Entry) -> Logged {
    let mut hasher = DefaultHasher::new();
    let name = entry.name.as_ref().map(ToString::to_string);
    (entry.document, name, entry.admitted, &entry.change).hash(&mut hasher);
    Logged {
        origin: entry.origin.0.as_u128(),
        sequence: entry.sequence.0,
        content: hasher.finish(),
    }
}

/// Effects of one input: a window of frames to four peers, and then some.
const MAX_EFFECTS: usize = 3_000;

/// Timeouts in a row that may ask for another one at the same moment.
const MAX_HURRIED: u32 = 3;

/// Frames on their way to one end of a link.
const MAX_FLYING: usize = 2_000;
