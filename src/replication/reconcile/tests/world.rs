//! A few machines with simple stores, and the network between them.
//!
//! A document of this world is a set of changes without dependencies, so all of them are heads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anabranch_crdt::bundle::{Bundle, BundledChange, IdRange};
use anabranch_crdt::document::digest;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{ChangeHash, DocumentId, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use crate::replication::reconcile::{
    BrokenDocument, DocumentDigest, ReconcileEffect, ReconcileInput, ReconcileSettings, Want,
};
use crate::replication::{Effect, Input, LinkId, Now, Replication, ReplicationSettings};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The changes of a document, each with the entry that brought it.
pub(super) type Changes = BTreeMap<ChangeHash, Dot>;

/// What a node has on disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) documents: BTreeMap<DocumentId, Changes>,
    pub(super) log: BTreeMap<(Origin, Sequence), Entry>,
    pub(super) vector: VersionVector,
    pub(super) floors: VersionVector,
}

pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) disk: Disk,
    pub(super) machine: Replication,
    pub(super) alarms: Vec<BrokenDocument>,
    pub(super) adopted: usize,
}

/// What the network does to frames that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// One in so many is lost, one repeated, one late, by this seed.
    Foul(u64, u64),
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Duration,
    pub(super) weather: Weather,
    wires: VecDeque<(LinkId, usize, Bytes)>,
    /// The ends of each link: the nodes, by number.
    links: BTreeMap<LinkId, (usize, usize)>,
    last_link: u64,
    luck: u64,
    pub(super) bytes: u64,
}

pub(super) fn region(number: usize) -> RegionName {
    format!("region-{number}").parse().unwrap()
}

pub(super) fn origin(number: usize) -> Origin {
    Origin::from_bytes([u8::try_from(number).unwrap() + 1; 16])
}

pub(super) fn id(number: u128) -> DocumentId {
    // Spread over the space, as hashes are.
    DocumentId::from_bytes(
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
    )
}

fn machine(number: usize, count: usize, vector: VersionVector) -> Replication {
    let settings = ReplicationSettings {
        region: region(number),
        origin: origin(number),
        peers: (0..count).filter(|&other| other != number).map(region).collect(),
        frame_bytes: 20_000,
        batch_entries: 100,
        digest_interval: SECOND,
        names: Vec::new(),
        packing: Default::default(),
        incarnation: crate::replication::Incarnation::default(),
        reconcile: ReconcileSettings { verify_interval: Duration::ZERO, verify_rate: 0 },
    };
    Replication::new(settings, vector)
}

impl World {
    pub(super) fn new(count: usize) -> Self {
        let node = |number| Node {
            origin: origin(number),
            disk: Disk::default(),
            machine: machine(number, count, VersionVector::new()),
            alarms: Vec::new(),
            adopted: 0,
        };
        Self {
            nodes: (0..count).map(node).collect(),
            now: SECOND,
            weather: Weather::Fair,
            wires: VecDeque::new(),
            links: BTreeMap::new(),
            last_link: 0,
            luck: 1,
            bytes: 0,
        }
    }

    /// Connects two nodes.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link, (one, other));
        self.handle(one, Input::Connected { link, region: region(other) });
        self.handle(other, Input::Connected { link, region: region(one) });
    }

    /// Cuts every link of a node.
    pub(super) fn isolate(&mut self, node: usize) {
        let of_it = |ends: &(usize, usize)| ends.0 == node || ends.1 == node;
        let cut: Vec<_> =
            self.links.iter().filter(|(_, ends)| of_it(ends)).map(|(&l, &e)| (l, e)).collect();
        for (link, (one, other)) in cut {
            self.links.remove(&link);
            for end in [one, other] {
                let reason = "cut".to_owned();
                self.handle(end, Input::Disconnected { link, reason });
            }
        }
    }

    /// Kills a node and starts it from its disk; connects it with those it was connected to.
    pub(super) fn restart(&mut self, node: usize) {
        let of_it = |ends: &&(usize, usize)| ends.0 == node || ends.1 == node;
        let peers: Vec<usize> = self
            .links
            .values()
            .filter(of_it)
            .map(|&(one, other)| if one == node { other } else { one })
            .collect();
        self.isolate(node);
        let count = self.nodes.len();
        let vector = self.nodes[node].disk.vector.clone();
        self.nodes[node].machine = machine(node, count, vector);
        self.tell_floors(node);
        peers.into_iter().for_each(|peer| self.connect(node, peer));
    }

    /// Admits a change of a document at a node.
    pub(super) fn write(&mut self, node: usize, document: DocumentId) {
        let origin = self.nodes[node].origin;
        let sequence = self.nodes[node].disk.vector.sequence(origin).next();
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(origin.as_bytes());
        hash[16..24].copy_from_slice(&sequence.0.to_be_bytes());
        let change = Bytes::copy_from_slice(&hash);
        let admitted = Timestamp(sequence.0);
        let entry = Entry { origin, sequence, document, name: None, admitted, change };
        self.nodes[node].disk.store(&entry);
        let vector = self.nodes[node].disk.vector.clone();
        self.handle(node, Input::Committed { local: vec![entry], vector });
    }

    /// Drops what a node's log has of its vector.
    pub(super) fn truncate_log(&mut self, node: usize) {
        self.nodes[node].disk.log.clear();
        self.nodes[node].disk.floors = self.nodes[node].disk.vector.clone();
        self.tell_floors(node);
    }

    fn tell_floors(&mut self, node: usize) {
        let floors = self.nodes[node].disk.floors.clone();
        self.handle(node, Input::Reconcile(ReconcileInput::Floors { floors }));
    }

    /// Lets time pass until `enough`, for `limit` at most; tells whether it came to that.
    pub(super) fn run_until(&mut self, limit: Duration, enough: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if enough(self) {
                return true;
            }
            if self.deliver() {
                continue;
            }
            let timeouts = self.nodes.iter().filter_map(|node| node.machine.poll_timeout());
            let Some(next) = timeouts.min().filter(|&at| at <= end) else { return false };
            self.now = self.now.max(next);
            for node in 0..self.nodes.len() {
                self.handle(node, Input::Timeout);
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
    }

    pub(super) fn converged(&self) -> bool {
        let mut nodes = self.nodes.iter();
        let Some(first) = nodes.next() else { return true };
        nodes.all(|node| {
            node.disk.documents == first.disk.documents && node.disk.vector == first.disk.vector
        })
    }

    /// Delivers one frame, if there is one.
    fn deliver(&mut self) -> bool {
        let Some((link, to, bytes)) = self.wires.pop_front() else { return false };
        if !self.links.contains_key(&link) {
            return true;
        }
        match self.fate() {
            0 => return true,
            1 => self.wires.push_back((link, to, bytes.clone())),
            2 if !self.wires.is_empty() => {
                self.wires.push_back((link, to, bytes));
                return true;
            }
            _ => {}
        }
        self.bytes += bytes.len() as u64;
        self.handle(to, Input::Frame { link, bytes });
        true
    }

    fn fate(&mut self) -> u64 {
        let Weather::Foul(seed, one_in) = self.weather else { return u64::MAX };
        // SplitMix64.
        self.luck = self.luck.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut luck = self.luck ^ seed;
        luck = (luck ^ (luck >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        luck = (luck ^ (luck >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (luck ^ (luck >> 31)) % one_in
    }

    pub(super) fn handle(&mut self, number: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Now { monotonic: self.now, wall: Timestamp(self.now.as_micros() as u64) };
            let mut effects = Vec::new();
            self.nodes[number].machine.handle(input, now, &mut effects);
            for effect in effects {
                self.execute(number, effect, &mut inputs);
            }
            let node = &self.nodes[number];
            let due = node.machine.poll_timeout();
            assert!(due.is_none_or(|due| due > Duration::ZERO), "a timeout at no time");
        }
    }

    fn execute(&mut self, number: usize, effect: Effect, inputs: &mut VecDeque<Input>) {
        let node = &mut self.nodes[number];
        match effect {
            Effect::Send { link, bytes, .. } => {
                assert!(bytes.len() <= 20_000 + 200, "a frame of {} bytes", bytes.len());
                let Some(&(one, other)) = self.links.get(&link) else { return };
                let to = if one == number { other } else { one };
                self.wires.push_back((link, to, bytes));
            }
            Effect::Append { ticket, entries } => {
                entries.iter().for_each(|entry| node.disk.store(entry));
                let vector = node.disk.vector.clone();
                inputs.push_back(Input::Committed { local: Vec::new(), vector });
                inputs.push_back(Input::Appended { ticket, error: None });
            }
            Effect::Read { ticket, origin, after, entries, .. } => {
                let range = (origin, after.next())..=(origin, Sequence(u64::MAX));
                let log = node.disk.log.range(range).take(entries);
                let entries = log.map(|(_, entry)| entry.clone()).collect();
                inputs.push_back(Input::Read { ticket, entries });
            }
            Effect::Close { link, reason } => panic!("{link:?} closed: {reason}"),
            Effect::NameOrigin { .. } | Effect::ObserveClock { .. } => {}
            Effect::Asked { .. } | Effect::Members { .. } => {}
            Effect::ConfirmOrigin | Effect::Vouch { .. } => {}
            Effect::RenewOrigin { reason } => panic!("a new origin: {reason}"),
            Effect::Reconcile(effect) => {
                for input in node.reconcile(effect) {
                    inputs.push_back(input);
                }
            }
        }
    }
}

impl Node {
    fn reconcile(&mut self, effect: ReconcileEffect) -> Vec<Input> {
        let input = match effect {
            ReconcileEffect::Digests { ticket, range, limit } => {
                let (digests, more) = self.disk.digests(range, limit);
                ReconcileInput::Digests { ticket, digests, more }
            }
            ReconcileEffect::Heads { ticket, documents } => {
                let heads = documents.into_iter().map(|document| {
                    let changes = self.disk.documents.get(&document);
                    let have = changes.map(|c| c.keys().copied().collect()).unwrap_or_default();
                    Want { document, have }
                });
                ReconcileInput::Heads { ticket, heads: heads.collect() }
            }
            ReconcileEffect::Export { ticket, wants, bytes } => {
                let (bundles, absent) = self.disk.export(wants, bytes);
                let unreadable = Vec::new();
                ReconcileInput::Exported { ticket, bundles, absent, unreadable }
            }
            ReconcileEffect::Adopt { ticket, bundles } => {
                let mut partial = Vec::new();
                for bundle in bundles {
                    let (document, heads) = (bundle.document, bundle.heads.clone());
                    self.disk.adopt(bundle);
                    let changes = &self.disk.documents[&document];
                    if heads.iter().all(|head| changes.contains_key(head)) {
                        self.adopted += 1;
                    } else {
                        partial.push(document);
                    }
                }
                ReconcileInput::Adopted { ticket, partial, refused: Vec::new() }
            }
            ReconcileEffect::Raise { ticket, vector } => {
                self.disk.vector.merge(&vector);
                self.disk.floors.merge(&vector);
                let floors = self.disk.floors.clone();
                let vector = self.disk.vector.clone();
                return vec![
                    Input::Reconcile(ReconcileInput::Floors { floors }),
                    Input::Committed { local: Vec::new(), vector },
                    Input::Reconcile(ReconcileInput::Raised { ticket }),
                ];
            }
            ReconcileEffect::Alarm(broken) => {
                self.alarms.push(broken);
                return Vec::new();
            }
        };
        vec![Input::Reconcile(input)]
    }
}

impl Disk {
    fn store(&mut self, entry: &Entry) {
        assert_eq!(entry.sequence, self.vector.sequence(entry.origin).next(), "a gap");
        self.vector.raise(entry.origin, entry.sequence);
        self.log.insert((entry.origin, entry.sequence), entry.clone());
        let hash = ChangeHash(entry.change[..].try_into().unwrap());
        self.documents.entry(entry.document).or_default().insert(hash, entry.dot());
    }

    fn digests(&self, range: IdRange, limit: usize) -> (Vec<DocumentDigest>, bool) {
        let all = self.documents.range(range.first..).take_while(|(id, _)| range.contains(**id));
        let mut digests: Vec<DocumentDigest> = all
            .take(limit + 1)
            .map(|(&document, changes)| {
                let heads: Vec<ChangeHash> = changes.keys().copied().collect();
                DocumentDigest { document, digest: digest(&heads), pending: false }
            })
            .collect();
        let more = digests.len() > limit;
        digests.truncate(limit);
        (digests, more)
    }

    fn export(&self, wants: Vec<Want>, bytes: usize) -> (Vec<Bundle>, Vec<DocumentId>) {
        let (mut bundles, mut absent, mut size) = (Vec::new(), Vec::new(), 0);
        for want in wants {
            let Some(changes) = self.documents.get(&want.document) else {
                absent.push(want.document);
                continue;
            };
            let have: BTreeSet<ChangeHash> = want.have.into_iter().collect();
            let mut bundle = bundle(want.document, changes);
            for (&hash, dot) in changes.iter().filter(|(hash, _)| !have.contains(hash)) {
                if size > bytes {
                    break;
                }
                let change = Bytes::copy_from_slice(&hash.0);
                size += 60;
                let admitted = Timestamp(dot.sequence.0);
                bundle.changes.push(BundledChange { change, admitted, by: dot.origin });
            }
            size += 60;
            bundles.push(bundle);
            if size > bytes {
                break;
            }
        }
        (bundles, absent)
    }

    fn adopt(&mut self, bundle: Bundle) {
        let document = self.documents.entry(bundle.document).or_default();
        for change in bundle.changes {
            let hash = ChangeHash(change.change[..].try_into().unwrap());
            let sequence = u64::from_be_bytes(hash.0[16..24].try_into().unwrap());
            document.insert(hash, Dot { origin: change.by, sequence: Sequence(sequence) });
        }
    }
}

fn bundle(document: DocumentId, changes: &Changes) -> Bundle {
    let vector: VersionVector = changes.values().copied().collect();
    Bundle {
        document,
        name: None,
        heads: changes.keys().copied().collect(),
        changes: Vec::new(),
        dots: vector.iter().collect(),
    }
}
