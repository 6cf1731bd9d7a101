//! One run: virtual time, nodes, clients and faults, all drawn from one seed.

mod clocks;
mod faults;
mod links;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anabranch::replication::{
    Effect, Input, LinkId, Now, Replication, ReplicationSettings, Ticket,
};
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Origin, RegionName, Sequence, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::network::{Flight, Network};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::storage::{Draft, Memory, Storage, Work};

/// A node that runs; a crash drops it.
#[derive(Debug)]
struct Process {
    replication: Replication,
    booted: Duration,
    /// The hybrid clock.
    clock: u64,
    timer: Option<Duration>,
    /// Timeouts in a row that asked for another one at the same moment.
    hurried: u32,
    /// Works that the sync under way will make durable.
    syncing: usize,
}

#[derive(Debug)]
enum Event {
    Arrive(Flight),
    Connected { node: usize, life: u64, link: LinkId },
    Disconnected { node: usize, life: u64, link: LinkId },
    Dial { a: usize, b: usize },
    Write,
    Synced { node: usize, life: u64 },
    Read { node: usize, life: u64, ticket: Ticket, want: (Origin, Sequence, usize, usize) },
    Renewed { node: usize, life: u64 },
    Timer { node: usize, life: u64, at: Duration },
    Partition,
    Unblock { pair: (usize, usize) },
    Starve { link: LinkId },
    Flap,
    Crash,
    Restart { node: usize },
    Photograph,
    ClockJump,
}

/// What a run has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) recovered: usize,
    pub(crate) crashes: usize,
    pub(crate) partitions: usize,
    pub(crate) renewals: usize,
    pub(crate) deliveries: u64,
    pub(crate) repeated: u64,
    pub(crate) digests: u64,
    pub(crate) healed_in: Duration,
}

pub(crate) struct World {
    plan: Plan,
    rng: ChaCha8Rng,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    regions: Vec<RegionName>,
    disks: Vec<Box<dyn Storage>>,
    /// An older image of each disk.
    images: Vec<Box<dyn Storage>>,
    processes: Vec<Option<Process>>,
    lives: Vec<u64>,
    /// How wrong each wall clock is, in microseconds.
    skews: Vec<i64>,
    network: Network,
    oracle: Oracle,
    trace: DefaultHasher,
    healed: bool,
    /// A node that stays down when everything else is healed.
    absent: Option<usize>,
    written: u64,
    report: Report,
}

impl World {
    pub(crate) fn new(plan: Plan, mut rng: ChaCha8Rng) -> Self {
        let disk = |rng: &mut ChaCha8Rng| Memory::new(Origin::from_bytes(rng.random()));
        let disks: Vec<Memory> = (0..plan.nodes).map(|_| disk(&mut rng)).collect();
        let skewed = plan.clock_jumps.is_some();
        let mut world = Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            queued: 0,
            regions: (0..plan.nodes)
                .map(|node| format!("region-{node}").parse().unwrap())
                .collect(),
            images: disks.iter().map(Memory::image).collect(),
            disks: disks.iter().map(Memory::image).collect(),
            processes: (0..plan.nodes).map(|_| None).collect(),
            lives: vec![0; plan.nodes],
            skews: (0..plan.nodes).map(|_| skew(&mut rng, skewed)).collect(),
            network: Network::default(),
            oracle: Oracle::default(),
            trace: DefaultHasher::new(),
            healed: false,
            absent: None,
            written: 0,
            report: Report::default(),
            rng,
            plan,
        };
        world.schedule_start();
        world
    }

    fn schedule_start(&mut self) {
        for node in 0..self.plan.nodes {
            self.start(node);
            for other in node + 1..self.plan.nodes {
                if self.plan.topology.joins(node, other, self.plan.nodes) {
                    self.schedule_in(Duration::ZERO, Event::Dial { a: node, b: other });
                }
            }
        }
        self.schedule_in(Duration::ZERO, Event::Write);
        self.schedule_after(self.plan.partitions, Event::Partition);
        self.schedule_after(self.plan.flaps, Event::Flap);
        self.schedule_after(self.plan.crashes, Event::Crash);
        self.schedule_after(self.plan.crashes, Event::Photograph);
        self.schedule_after(self.plan.clock_jumps, Event::ClockJump);
    }

    /// Runs the time of trouble, heals everything, and judges the end.
    pub(crate) fn run(mut self) -> Report {
        self.run_until(self.plan.trouble);
        self.heal();
        let deadline = self.now + self.plan.interval * LIVENESS_INTERVALS + LIVENESS_FLOOR;
        let healed_at = self.now;
        while !self.has_converged() {
            assert!(self.now < deadline, "no convergence after healing: {}", self.differences());
            self.run_until(self.now + self.plan.interval / 2);
        }
        self.judge_clocks();
        let absent = self.absent.map(|node| self.disks.remove(node));
        self.oracle.judge(&self.disks, absent.as_deref());
        self.report.healed_in = self.now - healed_at;
        self.finish()
    }

    /// Runs without faults and without an end, to look at the steady state.
    pub(crate) fn run_steadily(mut self, warm_up: Duration) -> Report {
        self.run_until(warm_up);
        self.oracle.forget_deliveries();
        self.run_until(warm_up + self.plan.trouble);
        self.finish()
    }

    fn finish(mut self) -> Report {
        self.report.trace = self.trace.finish();
        self.report.acknowledged = self.oracle.acknowledged();
        self.report.lost = self.oracle.lost;
        self.report.digests = self.oracle.digests;
        self.report.recovered = self.oracle.recovered;
        (self.report.deliveries, self.report.repeated) = self.oracle.deliveries();
        self.report
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > end {
                break;
            }
            let event = entry.remove();
            self.now = at;
            self.take(event);
        }
        self.now = end;
    }

    fn heal(&mut self) {
        self.healed = true;
        self.network.blocked.clear();
        self.release();
        if self.plan.leaves_one_down {
            let absent = self.any_node();
            self.stop(absent);
            self.absent = Some(absent);
        }
        for node in self.present() {
            if self.processes[node].is_none() {
                self.start(node);
            }
        }
    }

    /// Returns the nodes that must agree in the end.
    fn present(&self) -> Vec<usize> {
        (0..self.plan.nodes).filter(|node| self.absent != Some(*node)).collect()
    }

    fn has_converged(&self) -> bool {
        let present = self.present();
        let vector = self.disks[present[0]].vector();
        let equal = |node: &usize| {
            let disk = &self.disks[*node];
            disk.vector() == vector && disk.staged() == 0
        };
        present.iter().all(equal) && present.iter().all(|node| self.status_is_clean(*node))
    }

    /// Tells whether a node sees itself level with every peer that it can have a link to.
    fn status_is_clean(&self, node: usize) -> bool {
        let Some(process) = &self.processes[node] else { return false };
        let status = process.replication.status(self.clocks(node));
        status.iter().all(|peer| {
            let other = self.regions.iter().position(|region| *region == peer.region);
            let joined =
                other.is_some_and(|other| self.plan.topology.joins(node, other, self.plan.nodes));
            let true_clock = other.is_none_or(|other| self.is_measured_rightly(node, other, peer));
            let level = true_clock
                && peer.entries_behind == 0
                && peer.seconds_behind == 0.0
                && peer.entries_missing == 0
                && peer.connected;
            level || !joined || other == self.absent
        })
    }

    fn differences(&self) -> String {
        let line = |node: usize| {
            let vector = self.disks[node].vector();
            let dots =
                vector.iter().map(|dot| format!("{:.4}: {}", dot.origin.to_string(), dot.sequence));
            let status =
                self.processes[node].as_ref().map(|p| p.replication.status(self.clocks(node)));
            format!("{} has {:?}, sees {status:?}", self.regions[node], dots.collect::<Vec<_>>())
        };
        (0..self.plan.nodes).map(line).collect::<Vec<_>>().join("\n")
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrive(flight) => self.arrive(flight),
            Event::Connected { node, life, link } => self.connected(node, life, link),
            Event::Disconnected { node, life, link } => self.disconnected(node, life, link),
            Event::Dial { a, b } => self.dial(a, b),
            Event::Write => self.write(),
            Event::Synced { node, life } => self.synced(node, life),
            Event::Read { node, life, ticket, want } => self.read(node, life, ticket, want),
            Event::Renewed { node, life } => {
                let origin = self.disks[node].origin();
                self.give(node, life, Input::Renewed { origin });
            }
            Event::Timer { node, life, at } => self.timer(node, life, at),
            Event::Partition => self.partition(),
            Event::Unblock { pair } => {
                self.network.blocked.remove(&pair);
                self.release();
            }
            Event::Starve { link } => self.starve(link),
            Event::Flap => self.flap(),
            Event::Crash => self.crash_someone(),
            Event::Restart { node } => self.restart(node),
            Event::Photograph => {
                let node = self.any_node();
                self.images[node] = self.disks[node].image();
                self.schedule_after(self.plan.crashes, Event::Photograph);
            }
            Event::ClockJump => {
                let node = self.any_node();
                self.skews[node] = skew(&mut self.rng, true);
                self.schedule_after(self.plan.clock_jumps, Event::ClockJump);
            }
        }
    }

    // Time

    fn schedule_at(&mut self, at: Duration, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    fn schedule_in(&mut self, delay: Duration, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    /// Schedules a fault that comes again and again, until everything is healed.
    fn schedule_after(&mut self, mean: Option<Duration>, event: Event) {
        if let Some(mean) = mean.filter(|_| !self.healed) {
            let delay = mean.mul_f64(self.rng.random_range(0.2..1.8));
            self.schedule_in(delay, event);
        }
    }

    fn clocks(&self, node: usize) -> Now {
        let booted = self.processes[node].as_ref().map_or(Duration::ZERO, |process| process.booted);
        let wall = EPOCH + i64::try_from(self.now.as_micros()).unwrap() + self.skews[node];
        Now { monotonic: self.now - booted, wall: Timestamp(u64::try_from(wall).unwrap()) }
    }

    fn brief(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most * 1_000))
    }

    fn any_node(&mut self) -> usize {
        self.rng.random_range(0..self.plan.nodes)
    }

    // Nodes

    fn start(&mut self, node: usize) {
        let disk = &self.disks[node];
        let others = self.regions.iter().enumerate().filter(|(other, _)| *other != node);
        let settings = ReplicationSettings {
            region: self.regions[node].clone(),
            origin: disk.origin(),
            peers: others.map(|(_, region)| region.clone()).collect(),
            frame_bytes: self.plan.frame_bytes,
            batch_entries: self.plan.batch_entries,
            digest_interval: self.plan.interval,
            names: disk.names(),
        };
        let newest = disk.entries().iter().map(|entry| entry.admitted.0).max();
        self.processes[node] = Some(Process {
            replication: Replication::new(settings, disk.vector()),
            booted: self.now,
            clock: newest.unwrap_or_default(),
            timer: None,
            hurried: 0,
            syncing: 0,
        });
    }

    /// Gives a node an input and carries out what it wants done.
    fn give(&mut self, node: usize, life: u64, input: Input) {
        if self.lives[node] != life {
            return;
        }
        let clocks = self.clocks(node);
        let Some(process) = &mut self.processes[node] else { return };
        let mut effects = Vec::new();
        process.replication.handle(input, clocks, &mut effects);
        assert!(effects.len() < MAX_EFFECTS, "{} effects of one input", effects.len());
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.set_timer(node);
    }

    fn set_timer(&mut self, node: usize) {
        let life = self.lives[node];
        let Some(process) = &mut self.processes[node] else { return };
        let at = process.replication.poll_timeout().map(|at| (process.booted + at).max(self.now));
        if process.timer == at {
            return;
        }
        process.timer = at;
        if let Some(at) = at {
            self.schedule_at(at, Event::Timer { node, life, at });
        }
    }

    fn timer(&mut self, node: usize, life: u64, at: Duration) {
        let Some(process) = self.processes[node].as_mut().filter(|p| p.timer == Some(at)) else {
            return;
        };
        process.timer = None;
        self.give(node, life, Input::Timeout);
        let Some(process) = self.processes[node].as_mut() else { return };
        let moves_on = process.timer.is_none_or(|next| next > self.now);
        process.hurried = if moves_on { 0 } else { process.hurried + 1 };
        assert!(process.hurried < 3, "a timer that does not move on");
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let life = self.lives[node];
        match effect {
            Effect::Send { link, bytes, .. } => self.send(node, link, &bytes),
            Effect::Append { ticket, entries } => self.stage(node, Work::Append(ticket, entries)),
            Effect::Read { ticket, origin, after, entries, bytes } => {
                let delay = self.disk_delay();
                let want = (origin, after, entries, bytes);
                self.schedule_in(delay, Event::Read { node, life, ticket, want });
            }
            Effect::Close { link, .. } => self.close(node, link),
            Effect::NameOrigin { origin, region } => self.disks[node].name_origin(origin, region),
            Effect::ObserveClock { seen } => {
                let limit = self.clocks(node).wall.0 + ALLOWED_SKEW;
                let process = self.processes[node].as_mut().unwrap();
                process.clock = process.clock.max(seen.0.min(limit));
            }
            Effect::RenewOrigin => {
                self.report.renewals += 1;
                self.disks[node].renew(Origin::from_bytes(self.rng.random()));
                let delay = self.disk_delay();
                self.schedule_in(delay, Event::Renewed { node, life });
            }
        }
    }

    fn disk_delay(&mut self) -> Duration {
        self.plan.disk_delay.mul_f64(self.rng.random_range(0.3..1.7))
    }

    fn stage(&mut self, node: usize, work: Work) {
        self.disks[node].stage(work);
        self.start_sync(node);
    }

    fn start_sync(&mut self, node: usize) {
        let (life, staged) = (self.lives[node], self.disks[node].staged());
        let delay = self.disk_delay();
        let Some(process) = self.processes[node].as_mut() else { return };
        if process.syncing == 0 && staged > 0 {
            process.syncing = staged;
            self.schedule_in(delay, Event::Synced { node, life });
        }
    }

    fn synced(&mut self, node: usize, life: u64) {
        if self.lives[node] != life {
            return;
        }
        self.sync(node, true);
        self.start_sync(node);
    }

    /// Makes what is under way durable, and tells of it unless the node dies at that moment.
    fn sync(&mut self, node: usize, tell: bool) {
        let Some(process) = self.processes[node].as_mut() else { return };
        let count = std::mem::take(&mut process.syncing);
        let fail = !self.healed && self.rng.random_bool(self.plan.disk_failures);
        let synced = self.disks[node].sync(count, fail);
        self.oracle.synced(node, &synced, &self.disks);
        self.note(("synced", node, self.disks[node].vector().iter().collect::<Vec<_>>()));
        if !tell {
            return;
        }
        let life = self.lives[node];
        let omit = self.rng.random_bool(self.plan.omitted);
        let local = if omit { Vec::new() } else { synced.local };
        let vector = self.disks[node].vector();
        self.give(node, life, Input::Committed { local, vector });
        for (ticket, error) in synced.appended {
            self.give(node, life, Input::Appended { ticket, error });
        }
    }

    fn read(
        &mut self,
        node: usize,
        life: u64,
        ticket: Ticket,
        (origin, after, entries, bytes): (Origin, Sequence, usize, usize),
    ) {
        let fails = !self.healed && self.rng.random_bool(self.plan.disk_failures);
        let read = self.disks[node].read(origin, after, entries, bytes);
        let entries = if fails { Vec::new() } else { read };
        self.give(node, life, Input::Read { ticket, entries });
    }

    // Clients

    fn write(&mut self) {
        if self.healed {
            return;
        }
        let delay = self.plan.write_every.mul_f64(self.rng.random_range(0.0..2.0));
        self.schedule_in(delay, Event::Write);
        let node = self.any_node();
        let wall = self.clocks(node).wall.0;
        let (document, size) = (self.rng.random_range(0..8_u8), self.plan.change_bytes);
        let filler: u8 = self.rng.random();
        if self.processes[node].is_none() || self.is_outrun(node) {
            return;
        }
        let process = self.processes[node].as_mut().unwrap();
        process.clock = wall.max(process.clock + 1);
        let admitted = Timestamp(process.clock);
        self.written += 1;
        let mut change = vec![filler; size];
        change[..8].copy_from_slice(&self.written.to_be_bytes());
        let name = (filler < 64).then(|| format!("notes/{document}/ü").parse().unwrap());
        let document = DocumentId::from_bytes([document; 16]);
        self.stage(node, Work::Admit(Draft { document, name, admitted, change: change.into() }));
    }

    /// Tells whether a disk was rolled back behind what others have of it: such a node must hear
    /// of that, and renew its origin, before it may admit anything.
    fn is_outrun(&self, node: usize) -> bool {
        let origin = self.disks[node].origin();
        let sequence = self.disks[node].vector().sequence(origin).next();
        let others = self.disks.iter().enumerate().filter(|(other, _)| *other != node);
        others.map(|(_, disk)| disk).any(|disk| disk.may_hold(Dot { origin, sequence }))
    }

    fn note(&mut self, what: impl Hash) {
        (self.now, what).hash(&mut self.trace);
    }
}

/// Draws a plan and runs it.
pub(crate) fn run_seed(seed: u64) -> Report {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let plan = Plan::draw(&mut rng);
    let _story = Story { seed, plan: plan.clone() };
    World::new(plan, rng).run()
}

/// Tells how to replay a run that fails.
struct Story {
    seed: u64,
    plan: Plan,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SEED={} failed; replay: SEED={} cargo test --test sim", self.seed, self.seed);
            println!("{:#?}", self.plan);
        }
    }
}

fn skew(rng: &mut ChaCha8Rng, skewed: bool) -> i64 {
    let ten_years = 10 * 365 * 24 * 3_600 * 1_000_000_i64;
    if skewed { rng.random_range(-ten_years..=ten_years) } else { 0 }
}

/// The true time at the start of a run: in 2026.
const EPOCH: i64 = 1_780_000_000_000_000;

/// How far a clock follows a peer's, in microseconds.
const ALLOWED_SKEW: u64 = 500_000;

/// Effects of one input: a window of frames to four peers, and then some.
const MAX_EFFECTS: usize = 3_000;

/// After healing, all is equal within so many digest intervals, and a floor for links to come up
/// and disks to be slow.
const LIVENESS_INTERVALS: u32 = 60;

const LIVENESS_FLOOR: Duration = Duration::from_secs(60);
