//! A few machines wired by hand: what one sends, the other gets, in an order that the test chooses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::reconcile::ReconcileSettings;
use super::super::*;
use super::{SECOND, entry, origin, region};

/// Machines with links, disks that lose nothing unless they are told to, and one clock.
pub(super) struct Wired {
    pub(super) nodes: Vec<Machine>,
    /// What is on its way over each link in one direction, in order.
    pub(super) frames: BTreeMap<(usize, usize), VecDeque<Bytes>>,
    links: BTreeSet<(usize, usize)>,
    last_link: u64,
    pub(super) now: Duration,
    /// Frames that were delivered, by their kind byte.
    pub(super) delivered: BTreeMap<u8, usize>,
}

pub(super) struct Machine {
    pub(super) replication: Replication,
    pub(super) disk: VersionVector,
    log: BTreeMap<Origin, Vec<Entry>>,
    links: BTreeMap<usize, LinkId>,
    /// Appends that are not durable yet.
    appends: VecDeque<(Ticket, Vec<Entry>)>,
    pub(super) asked: BTreeMap<u64, Result<VersionVector, Vec<RegionName>>>,
    origin: Origin,
    wall_ahead: u64,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What the wall clock shows when the test begins.
const WALL: u64 = 1_800_000_000_000_000;

impl Wired {
    /// Makes machines without links.
    pub(super) fn new(count: usize) -> Self {
        let mut wired = Self {
            nodes: Vec::new(),
            frames: BTreeMap::new(),
            links: BTreeSet::new(),
            last_link: 0,
            now: SECOND,
            delivered: BTreeMap::new(),
        };
        for node in 0..count {
            wired.nodes.push(Machine::new(node, count, VersionVector::new()));
        }
        wired
    }

    /// Links each machine to the next.
    pub(super) fn chain(count: usize) -> Self {
        let mut wired = Self::new(count);
        (1..count).for_each(|node| wired.link(node - 1, node));
        wired.settle();
        wired
    }

    pub(super) fn mesh(count: usize) -> Self {
        let mut wired = Self::new(count);
        for one in 0..count {
            (one + 1..count).for_each(|other| wired.link(one, other));
        }
        wired.settle();
        wired
    }

    pub(super) fn link(&mut self, one: usize, other: usize) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert((one, other));
        for (node, peer) in [(one, other), (other, one)] {
            self.nodes[node].links.insert(peer, link);
            self.handle(node, Input::Connected { link, region: region(NAMES[peer]) });
        }
    }

    /// Cuts a link; what is on its way is lost.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.links.retain(|&link| link != (one, other) && link != (other, one));
        for (node, peer) in [(one, other), (other, one)] {
            self.frames.remove(&(node, peer));
            if let Some(link) = self.nodes[node].links.remove(&peer) {
                self.handle(node, Input::Disconnected { link, reason: "cut".to_owned() });
            }
        }
    }

    /// Starts a machine again with an older disk.
    pub(super) fn roll_back(&mut self, node: usize, disk: VersionVector, wall_ahead: u64) {
        let peers: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        peers.iter().for_each(|&peer| self.cut(node, peer));
        let count = self.nodes.len();
        self.nodes[node] = Machine { wall_ahead, ..Machine::new(node, count, disk) };
        peers.iter().for_each(|&peer| self.link(node, peer));
    }

    /// Makes the next own entry of a machine durable, and returns its sequence.
    pub(super) fn write(&mut self, node: usize) -> Sequence {
        let own = self.nodes[node].origin;
        let next = self.nodes[node].disk.sequence(own).next();
        let local = vec![entry(own, next.0)];
        self.commit(node, local.clone(), local);
        next
    }

    fn commit(&mut self, node: usize, entries: Vec<Entry>, local: Vec<Entry>) {
        let machine = &mut self.nodes[node];
        for entry in entries {
            machine.disk.raise(entry.origin, entry.sequence);
            machine.log.entry(entry.origin).or_default().push(entry);
        }
        let vector = machine.disk.clone();
        self.handle(node, Input::Committed { local, vector });
    }

    pub(super) fn ask(&mut self, node: usize, ticket: u64) {
        self.handle(node, Input::Ask { ticket: Ticket(ticket), wait: SECOND * 5 });
    }

    fn handle(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        let now = Now {
            monotonic: self.now,
            wall: Timestamp(WALL + self.nodes[node].wall_ahead + self.now.as_micros() as u64),
        };
        self.nodes[node].replication.handle(input, now, &mut effects);
        effects.into_iter().for_each(|effect| self.execute(node, effect));
    }

    fn execute(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { link, bytes, .. } => {
                let peer = self.nodes[node].links.iter().find(|(_, id)| **id == link);
                if let Some((&peer, _)) = peer {
                    self.frames.entry((node, peer)).or_default().push_back(bytes);
                }
            }
            Effect::Append { ticket, entries } => {
                self.nodes[node].appends.push_back((ticket, entries));
            }
            Effect::Read { ticket, origin, after, .. } => {
                let log = self.nodes[node].log.get(&origin).cloned().unwrap_or_default();
                let entries = log.into_iter().filter(|entry| entry.sequence > after).collect();
                self.handle(node, Input::Read { ticket, entries });
            }
            Effect::Asked { ticket, vector } => {
                self.nodes[node].asked.insert(ticket.0, vector);
            }
            Effect::Close { .. }
            | Effect::Members { .. }
            | Effect::ConfirmOrigin
            | Effect::Reconcile(_)
            | Effect::Vouch { .. }
            | Effect::NameOrigin { .. }
            | Effect::ObserveClock { .. } => {}
            Effect::RenewOrigin { .. } => {
                let fresh = origin(100 + node as u8);
                self.nodes[node].origin = fresh;
                self.handle(node, Input::Renewed { origin: fresh, after: Vec::new() });
            }
        }
    }

    /// What can happen next: a frame arrives on a link, or an append becomes durable.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let frames = self.frames.iter().filter(|(_, frames)| !frames.is_empty());
        let appends = self.nodes.iter().enumerate();
        let appends = appends.filter(|(_, machine)| !machine.appends.is_empty());
        frames
            .map(|(&(from, to), _)| Choice::Frame(from, to))
            .chain(appends.map(|(node, _)| Choice::Append(node)))
            .collect()
    }

    pub(super) fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Frame(from, to) => {
                let frame = self.frames.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                let link = self.nodes[to].links.get(&from).copied();
                let (Some(bytes), Some(link)) = (frame, link) else { return };
                *self.delivered.entry(bytes[1]).or_default() += 1;
                self.handle(to, Input::Frame { link, bytes });
            }
            Choice::Append(node) => {
                let Some((ticket, entries)) = self.nodes[node].appends.pop_front() else { return };
                self.commit(node, entries, Vec::new());
                self.handle(node, Input::Appended { ticket, error: None });
            }
        }
    }

    /// Lets everything that is under way arrive, in no time.
    pub(super) fn settle(&mut self) {
        while let Some(&choice) = self.choices().first() {
            self.take(choice);
        }
    }

    /// Lets time pass, with all timers.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let due = self.nodes.iter().filter_map(|node| node.replication.poll_timeout());
            let Some(next) = due.min().filter(|&at| at <= end) else { break };
            self.now = self.now.max(next);
            self.time_out();
        }
        self.now = end;
    }

    /// Lets every timer that is due fire.
    pub(super) fn time_out(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.handle(node, Input::Timeout));
    }

    /// Returns what `node` knows to be durable in the region of `other`, of the own entries of
    /// `writer`.
    pub(super) fn knows(&self, node: usize, other: usize, writer: usize) -> u64 {
        let view = self.view(node);
        let held = &view.region(&region(NAMES[other])).unwrap().held;
        held.sequence(origin(writer as u8 + 1)).0
    }

    pub(super) fn view(&self, node: usize) -> ClusterView {
        let wall = Timestamp(WALL + self.now.as_micros() as u64);
        self.nodes[node].replication.cluster(Now { monotonic: self.now, wall })
    }

    /// Returns how old the data of `other` may be at `node`.
    pub(super) fn lag(&self, node: usize, other: usize) -> Option<Duration> {
        let view = self.view(node);
        let current = view.region(&region(NAMES[other])).unwrap().current;
        current.map(|current| self.now - current)
    }
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Frame(usize, usize),
    Append(usize),
}

impl Machine {
    fn new(node: usize, count: usize, disk: VersionVector) -> Self {
        let own = origin(node as u8 + 1);
        let peers = (0..count).filter(|&peer| peer != node).map(|peer| region(NAMES[peer]));
        let settings = ReplicationSettings {
            region: region(NAMES[node]),
            origin: own,
            peers: peers.collect(),
            frame_bytes: 10_000,
            batch_entries: 10,
            digest_interval: SECOND,
            names: Vec::new(),
            incarnation: Incarnation::default(),
            reconcile: ReconcileSettings::default(),
            packing: Default::default(),
        };
        Self {
            replication: Replication::new(settings, disk.clone()),
            log: BTreeMap::new(),
            disk,
            links: BTreeMap::new(),
            appends: VecDeque::new(),
            asked: BTreeMap::new(),
            origin: own,
            wall_ahead: 0,
        }
    }
}
