//! A few state machines and the network between them, in virtual time: disks take a millisecond,
//! frames take the latency of their link, and links are cut or fall silent when a test says so.

use std::collections::{BTreeMap, BTreeSet};

use super::super::members::{Contact, Member, Members, Neighbours};
use super::*;

/// How long a disk takes.
const DISK: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum Event {
    Arrive { node: usize, link: LinkId, bytes: Bytes },
    Connect { a: usize, b: usize },
    Input { node: usize, input: Input },
    Append { node: usize, ticket: Ticket, entries: Vec<Entry> },
}

struct Machine {
    replication: Replication,
    vector: VersionVector,
    log: BTreeMap<Origin, Vec<Entry>>,
    /// When each entry became durable here.
    seen: BTreeMap<Dot, Duration>,
}

/// What a pair of nodes has between them.
struct Wire {
    link: LinkId,
    latency: Duration,
    /// Frames vanish, and nobody is told.
    silent: bool,
    last: [Duration; 2],
}

pub(super) struct Net {
    pub(super) now: Duration,
    machines: Vec<Machine>,
    wires: BTreeMap<(usize, usize), Wire>,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    links: u64,
    /// Pairs that do not connect.
    cut: BTreeSet<(usize, usize)>,
    latency: Duration,
    pub(super) members_frames: usize,
}

pub(super) fn name(node: usize) -> RegionName {
    format!("n{node}").parse().unwrap()
}

fn of(node: usize) -> Origin {
    origin(u8::try_from(node + 1).unwrap())
}

impl Net {
    /// Nodes in a topology, all linked and greeted; `latency` is one way.
    pub(super) fn new(nodes: usize, edges: &[(usize, usize)], latency: Duration) -> Self {
        let machines = (0..nodes).map(|node| machine(node, nodes, edges)).collect();
        let mut net = Self {
            now: Duration::ZERO,
            machines,
            wires: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            links: 0,
            cut: BTreeSet::new(),
            latency,
            members_frames: 0,
        };
        for &(a, b) in edges {
            net.schedule(Duration::ZERO, Event::Connect { a, b });
        }
        net.run(SECOND * 3);
        net
    }

    pub(super) fn has(&self, node: usize, dot: Dot) -> bool {
        self.machines[node].seen.contains_key(&dot)
    }

    /// Lets the links come up again that were cut.
    pub(super) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.schedule(Duration::ZERO, Event::Connect { a, b });
        }
    }

    /// Lets every pair try to connect, whatever closed its link.
    pub(super) fn reconnect(&mut self) {
        for a in 0..self.machines.len() {
            for b in a + 1..self.machines.len() {
                self.schedule(SECOND, Event::Connect { a, b });
            }
        }
    }

    pub(super) fn of(&self, node: usize) -> &Replication {
        &self.machines[node].replication
    }

    /// Lets a node admit one change.
    pub(super) fn write(&mut self, node: usize) -> Dot {
        let machine = &mut self.machines[node];
        let sequence = machine.vector.sequence(of(node)).next();
        let entry = entry(of(node), sequence.0);
        machine.vector.raise(of(node), sequence);
        machine.log.entry(of(node)).or_default().push(entry.clone());
        machine.seen.insert(entry.dot(), self.now);
        let vector = machine.vector.clone();
        self.input(node, Input::Committed { local: vec![entry], vector });
        Dot { origin: of(node), sequence }
    }

    /// Ends a link for both of its nodes, as a transport that noticed it at once.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        self.cut.insert((a, b));
        let Some(wire) = self.wires.remove(&(a, b)) else { return };
        for node in [a, b] {
            let reason = "cut".to_owned();
            self.input(node, Input::Disconnected { link: wire.link, reason });
        }
    }

    /// Lets every frame of a link vanish from now on.
    pub(super) fn silence(&mut self, a: usize, b: usize) {
        self.wires.get_mut(&(a.min(b), a.max(b))).unwrap().silent = true;
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    /// Runs until every node has an entry, and returns how long that took.
    pub(super) fn reaches_all(&mut self, dot: Dot) -> Duration {
        let began = self.now;
        while !self.machines.iter().all(|machine| machine.seen.contains_key(&dot)) {
            assert!(self.now < began + SECOND * 60, "{dot:?} does not arrive");
            self.now = self.now.max(self.next().expect("somebody has a timer"));
            self.step();
        }
        self.now.saturating_sub(began)
    }

    /// Counts bytes of entries that came to all nodes, and those of them that came again.
    pub(super) fn traffic(&self) -> (u64, u64) {
        let now = Now { monotonic: self.now, wall: Timestamp(1) };
        let peers = self.machines.iter().flat_map(|machine| machine.replication.status(now));
        peers.fold((0, 0), |(all, again), peer| {
            let EntryBytes { entry_bytes_received, duplicate_bytes_received, .. } = peer.entries;
            (all + entry_bytes_received, again + duplicate_bytes_received)
        })
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        let now = Now { monotonic: self.now, wall: Timestamp(1) };
        self.machines[node].replication.handle(input, now, &mut effects);
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn next(&self) -> Option<Duration> {
        let timers = self.machines.iter().filter_map(|m| m.replication.poll_timeout());
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        timers.chain(queued).min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.happen(event);
        }
        for node in 0..self.machines.len() {
            let due = self.machines[node].replication.poll_timeout();
            if due.is_some_and(|due| due <= self.now) {
                self.input(node, Input::Timeout);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { node, link, bytes } => {
                if self.wires.values().any(|wire| wire.link == link) {
                    self.input(node, Input::Frame { link, bytes });
                }
            }
            Event::Connect { a, b } => self.connect(a, b),
            Event::Input { node, input } => self.input(node, input),
            Event::Append { node, ticket, entries } => self.append(node, ticket, entries),
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.cut.contains(&(a, b)) || self.wires.contains_key(&(a, b)) {
            return;
        }
        self.links += 1;
        let link = LinkId(self.links);
        let last = [Duration::ZERO; 2];
        self.wires.insert((a, b), Wire { link, latency: self.latency, silent: false, last });
        for (node, other) in [(a, b), (b, a)] {
            self.input(node, Input::Connected { link, region: name(other) });
        }
    }

    fn append(&mut self, node: usize, ticket: Ticket, entries: Vec<Entry>) {
        let machine = &mut self.machines[node];
        for entry in entries {
            machine.vector.raise(entry.origin, entry.sequence);
            machine.seen.entry(entry.dot()).or_insert(self.now);
            machine.log.entry(entry.origin).or_default().push(entry);
        }
        let vector = machine.vector.clone();
        self.input(node, Input::Committed { local: Vec::new(), vector });
        self.input(node, Input::Appended { ticket, error: None });
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { link, bytes, .. } => self.send(node, link, bytes),
            Effect::Append { ticket, entries } => {
                self.schedule(DISK, Event::Append { node, ticket, entries });
            }
            Effect::Read { ticket, origin, after, entries, .. } => {
                let log = self.machines[node].log.get(&origin).into_iter().flatten();
                let found = log.filter(|entry| entry.sequence > after).take(entries).cloned();
                let input = Input::Read { ticket, entries: found.collect() };
                self.schedule(DISK, Event::Input { node, input });
            }
            Effect::Close { link, .. } => {
                let pair = self.wires.iter().find(|(_, wire)| wire.link == link);
                let Some(&(a, b)) = pair.map(|(pair, _)| pair) else { return };
                self.wires.remove(&(a, b));
                for node in [a, b] {
                    let input = Input::Disconnected { link, reason: "closed".to_owned() };
                    self.schedule(self.latency, Event::Input { node, input });
                }
            }
            Effect::NameOrigin { .. }
            | Effect::ObserveClock { .. }
            | Effect::Members { .. }
            | Effect::Asked { .. }
            | Effect::ConfirmOrigin
            | Effect::Vouch { .. }
            | Effect::Reconcile(_) => {}
            Effect::RenewOrigin { .. } => panic!("nobody loses anything here"),
        }
    }

    fn send(&mut self, node: usize, link: LinkId, bytes: Bytes) {
        let now = self.now;
        let Some((&(a, b), wire)) = self.wires.iter_mut().find(|(_, wire)| wire.link == link)
        else {
            return;
        };
        self.members_frames += usize::from(bytes[1] == 10);
        if wire.silent {
            return;
        }
        // A stream keeps its order.
        let lane = &mut wire.last[usize::from(node == b)];
        *lane = (now + wire.latency).max(*lane);
        let (at, other) = (*lane, if node == a { b } else { a });
        self.schedule(at - now, Event::Arrive { node: other, link, bytes });
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), event);
    }
}

fn machine(node: usize, nodes: usize, edges: &[(usize, usize)]) -> Machine {
    let settings = ReplicationSettings {
        region: name(node),
        origin: of(node),
        peers: Vec::new(),
        frame_bytes: 100_000,
        batch_entries: 1_000,
        digest_interval: SECOND,
        names: Vec::new(),
        incarnation: Incarnation::default(),
        reconcile: ReconcileSettings::default(),
        packing: Packing::default(),
    };
    let seeds = (0..nodes).map(|node| Member::seed(name(node), Some(contact(node, edges))));
    let members = Members::seeded(name(node), seeds);
    let vector = VersionVector::new();
    Machine {
        replication: Replication::with_members(settings, vector.clone(), members),
        vector,
        log: BTreeMap::new(),
        seen: BTreeMap::new(),
    }
}

/// Says that a region has links with its neighbours of the topology alone.
fn contact(node: usize, edges: &[(usize, usize)]) -> Contact {
    let neighbour = |&(a, b): &(usize, usize)| match node {
        node if node == a => Some(name(b)),
        node if node == b => Some(name(a)),
        _ => None,
    };
    let port = u16::try_from(4_000 + node).unwrap();
    Contact {
        quic: ([127, 0, 0, 1], port).into(),
        http: ([127, 0, 0, 1], port).into(),
        peers: Neighbours::Only(edges.iter().filter_map(neighbour).collect()),
    }
}
