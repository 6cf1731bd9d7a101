//! One run: virtual time, nodes, links, clients and faults, all drawn from one seed.

mod clients;
mod effects;
mod ending;
mod faults;
mod hostile;
mod links;
mod offline;
mod subjects;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anabranch_crdt::ids::{CollectionName, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::policy::Policies;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::check::Violation;
use super::history::{Answer, History, Reach, Step};
use super::network::{Flight, Network};
use super::node::{Node, Process, Start};
use super::nodes::{NodeId, Nodes};
use super::plan::Plan;
use super::schedule::Schedule;
use super::tally::Tally;
use crate::replication::{LinkId, Now, Ticket};
use clients::Session;
use offline::Offline;
use subjects::Subjects;

/// What will happen.
#[derive(Debug)]
enum Event {
    Arrive(Flight),
    Connected { node: NodeId, life: u64, link: LinkId },
    Disconnected { node: NodeId, life: u64, link: LinkId },
    Dial { a: NodeId, b: NodeId },
    Ask { session: usize },
    Offline { client: usize },
    Attack,
    Serve { node: NodeId, life: u64 },
    Commit { node: NodeId, life: u64 },
    Read { node: NodeId, life: u64, ticket: Ticket, want: Want },
    Renew { node: NodeId, life: u64 },
    Timer { node: NodeId, life: u64, at: Duration },
    JudgeClock { node: NodeId, life: u64 },
    Partition,
    Unblock { pair: (NodeId, NodeId) },
    Starve { link: LinkId },
    Flap,
    Crash,
    Restart { node: NodeId },
    Photograph,
    ClockJump,
    FillDisk,
    MakeSpace { node: NodeId },
}

/// Entries that a node wants to read.
#[derive(Debug, Clone, Copy)]
struct Want {
    origin: Origin,
    after: Sequence,
    entries: usize,
    bytes: usize,
}

pub(crate) struct World {
    plan: Plan,
    rng: ChaCha8Rng,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    nodes: Nodes,
    network: Network,
    policies: Vec<(CollectionName, Policies)>,
    subjects: Subjects,
    sessions: Vec<Session>,
    offline: Vec<Offline>,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    pub(crate) schedule: Schedule,
    pub(crate) violations: Vec<Violation>,
    /// What each node has told that it has, so that only news are noted.
    told: BTreeMap<NodeId, Reach>,
    trace: DefaultHasher,
    healed: bool,
    /// Whether clients have stopped.
    quiet: bool,
    /// A node that stays down when everything else is healed.
    absent: Option<NodeId>,
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64, schedule: Schedule) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ WORLD);
        let skewed = plan.clock_jumps.is_some();
        let node = |number| {
            let skew = faults::skew(&mut rng, skewed);
            Node::new(NodeId(number), rng.random(), skew)
        };
        let nodes: Vec<Node> = (0..plan.nodes).map(node).collect();
        let subjects = Subjects::draw(&plan, &mut rng);
        let mut world = Self {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            queued: 0,
            network: Network::default(),
            policies: subjects::policies(&nodes),
            history: subjects.history(),
            sessions: Session::draw(&plan, &mut rng),
            offline: Offline::draw(&plan, &subjects, &mut rng),
            subjects,
            nodes: Nodes::new(nodes),
            tally: Tally { seeds: 1, ..Tally::default() },
            schedule,
            violations: Vec::new(),
            told: BTreeMap::new(),
            trace: DefaultHasher::new(),
            healed: false,
            quiet: false,
            absent: None,
            rng,
            plan,
        };
        world.schedule_start();
        world
    }

    fn schedule_start(&mut self) {
        for node in self.nodes.ids() {
            self.nodes[node].disk.lie(self.plan.lies);
            self.start(node);
            for other in self.nodes.ids().filter(|other| *other > node) {
                if self.plan.topology.joins(node.0, other.0, self.plan.nodes) {
                    self.schedule_in(Duration::ZERO, Event::Dial { a: node, b: other });
                }
            }
        }
        for session in 0..self.sessions.len() {
            let delay = self.brief(1_000);
            self.schedule_in(delay, Event::Ask { session });
        }
        for client in 0..self.offline.len() {
            let delay = self.brief(1_000);
            self.schedule_in(delay, Event::Offline { client });
        }
        self.schedule_after(self.plan.hostile, Event::Attack);
        self.schedule_after(self.plan.partitions, Event::Partition);
        self.schedule_after(self.plan.flaps, Event::Flap);
        self.schedule_after(self.plan.crashes, Event::Crash);
        self.schedule_after(self.plan.crashes, Event::Photograph);
        self.schedule_after(self.plan.clock_jumps, Event::ClockJump);
        self.schedule_after(self.plan.full_disks, Event::FillDisk);
    }

    /// Runs the time of trouble, heals everything, and looks at the end.
    pub(crate) fn run(&mut self) {
        self.run_until(self.plan.trouble);
        self.heal();
        self.run_until(self.plan.trouble + self.plan.calm);
        self.quiet = true;
        self.converge();
        self.look_at_the_end();
        self.tally.virtual_time = self.now;
    }

    /// Runs without faults and without an end, to look at the steady state.
    pub(crate) fn run_steadily(&mut self, warm_up: Duration) {
        self.run_until(warm_up);
        self.tally.deliveries.clear();
        self.tally.delivered_bytes = 0;
        self.tally.repeated_bytes = 0;
        self.tally.digests = 0;
        self.run_until(warm_up + self.plan.trouble);
        self.tally.virtual_time = self.now;
        let Tally { delivered_bytes, repeated_bytes, digests, .. } = self.tally;
        if repeated_bytes * 50 > delivered_bytes {
            let what = format!("{repeated_bytes} of {delivered_bytes} bytes came twice");
            self.violated("duplicates", what);
        }
        let links = (self.plan.nodes * (self.plan.nodes - 1)) as f64;
        let meant = links * self.plan.trouble.as_secs_f64() / self.plan.interval.as_secs_f64();
        if digests as f64 > meant * 1.5 {
            self.violated("duplicates", format!("{digests} digests, and {meant} are meant"));
        }
    }

    /// Returns a number that is another if anything happened otherwise.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > end || !self.violations.is_empty() {
                break;
            }
            let event = entry.remove();
            self.now = at;
            self.take(event);
        }
        self.now = end;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrive(flight) => self.arrive(flight),
            Event::Connected { node, life, link } => self.connected(node, life, link),
            Event::Disconnected { node, life, link } => self.disconnected(node, life, link),
            Event::Dial { a, b } => self.dial(a, b),
            Event::Ask { session } => self.ask(session),
            Event::Offline { client } => self.go_on_offline(client),
            Event::Attack => self.attack(),
            Event::Serve { node, life } => self.serve(node, life),
            Event::Commit { node, life } => self.commit(node, life),
            Event::Read { node, life, ticket, want } => self.read(node, life, ticket, want),
            Event::Renew { node, life } => self.renew(node, life),
            Event::Timer { node, life, at } => self.timer(node, life, at),
            Event::JudgeClock { node, life } => self.judge_clock(node, life),
            Event::Partition => self.partition(),
            Event::Unblock { pair } => {
                self.network.blocked.remove(&pair);
                self.release();
            }
            Event::Starve { link } => self.starve(link),
            Event::Flap => self.flap(),
            Event::Crash => self.crash_someone(),
            Event::Restart { node } => self.restart(node),
            Event::Photograph => self.photograph(),
            Event::ClockJump => self.jump_a_clock(),
            Event::FillDisk => self.fill_a_disk(),
            Event::MakeSpace { node } => self.nodes[node].disk.make_space(),
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

    /// Schedules what comes again and again, until everything is healed.
    fn schedule_after(&mut self, mean: Option<Duration>, event: Event) {
        if let Some(mean) = mean.filter(|_| !self.healed) {
            let delay = mean.mul_f64(self.rng.random_range(0.2..1.8));
            self.schedule_in(delay, event);
        }
    }

    /// What the clocks of a node show now, if it runs.
    fn clocks(&self, node: NodeId) -> Now {
        let node = &self.nodes[node];
        let booted = node.process.as_ref().map_or(self.now, |process| process.booted);
        let true_time = EPOCH + i64::try_from(self.now.as_micros()).unwrap_or(i64::MAX);
        let wall = u64::try_from(true_time.saturating_add(node.skew)).unwrap_or_default();
        Now { monotonic: self.now.saturating_sub(booted), wall: Timestamp(wall) }
    }

    fn brief(&mut self, most_millis: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most_millis * 1_000))
    }

    fn disk_delay(&mut self) -> Duration {
        self.plan.disk_delay.mul_f64(self.rng.random_range(0.3..1.7))
    }

    fn any_node(&mut self) -> NodeId {
        NodeId(self.rng.random_range(0..self.plan.nodes))
    }

    fn note(&mut self, what: impl Hash) {
        (self.now, what).hash(&mut self.trace);
    }

    fn violated(&mut self, check: &'static str, what: impl Into<String>) {
        self.violations.push(Violation { check, what: what.into() });
    }

    // Nodes

    /// Starts a node, if its disk lets it; the world tries again if not.
    fn start(&mut self, id: NodeId) {
        if self.absent == Some(id) || self.nodes[id].process.is_some() {
            return;
        }
        let ids = self.nodes.ids().filter(|other| *other != id);
        let peers: Vec<RegionName> = ids.map(|other| self.nodes[other].region.clone()).collect();
        let seed = self.rng.random();
        let (now, booted) = (self.clocks(id), self.now);
        let Self { nodes, plan, policies, .. } = self;
        let region = nodes[id].region.clone();
        let start = Start { region: &region, peers, plan, policies, seed, booted, now };
        match Process::start(&nodes[id].disk, nodes[id].file, start) {
            Ok(process) => self.started(id, process),
            Err(error) => self.not_started(id, &error),
        }
    }

    fn started(&mut self, id: NodeId, process: Process) {
        let held = process.reach();
        self.nodes[id].process = Some(process);
        self.note(("started", id, held.iter().collect::<Vec<_>>()));
        if self.plan.disks_may_lose() {
            let left = held.clone();
            self.history.note(self.now, Step::Replaced { node: id.0, left });
        }
        self.history.note(self.now, Step::Opened { node: id.0, held });
        self.told.remove(&id);
        let life = self.nodes[id].life;
        self.schedule_in(CLOCK_JUDGED_EVERY, Event::JudgeClock { node: id, life });
        self.settle(id);
    }

    fn not_started(&mut self, id: NodeId, error: &str) {
        self.note(("not started", id));
        let node = &mut self.nodes[id];
        if node.disk.is_off() {
            self.tally.failed_restarts += 1;
            node.disk.power_cycle();
        } else if node.disk.is_full() {
            // It starts once there is space.
            self.tally.failed_restarts += 1;
        } else if self.plan.disks_may_lose() {
            self.replace_disk(id);
        } else {
            return self.violated("durable", format!("{id} does not start: {error}"));
        }
        let pause = self.brief(500);
        self.schedule_in(pause, Event::Restart { node: id });
    }

    /// Sets the clocks of a process, and returns it if it is still in that life.
    fn process(&mut self, id: NodeId, life: u64) -> Option<&mut Process> {
        let now = self.clocks(id);
        let node = &mut self.nodes[id];
        let process = node.process.as_mut().filter(|_| node.life == life)?;
        process.clocks.set(now);
        #[cfg(feature = "seeded-bugs")]
        anabranch_crdt::seeded::enter(id.0);
        Some(process)
    }

    /// Forgets what a node that has ended will never answer.
    fn forget_calls(&mut self, process: &Process) {
        for waiting in &process.waiting {
            if let Some(call) = self.history.calls.get_mut(&waiting.call) {
                call.answer = Answer::Unknown;
            }
            self.free_session(waiting.call);
        }
    }
}

/// The true time at the start of a run: in 2026.
const EPOCH: i64 = 1_780_000_000_000_000;

/// How often a node judges its clock.
const CLOCK_JUDGED_EVERY: Duration = Duration::from_millis(500);

/// Sets the dice of the world apart from those that the plan was drawn with.
const WORLD: u64 = 0x5eed_0000_0000_0001;
