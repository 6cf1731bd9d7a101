//! What must hold, judged without the state that the code under test keeps.

use std::collections::{BTreeMap, BTreeSet};

use anabranch::replication::frame::Frame;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, Origin, Sequence};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use crate::storage::{Storage, Synced};

/// The state of the reference model: what each document holds.
pub(crate) type Sets = BTreeMap<DocumentId, BTreeSet<Bytes>>;

/// Every entry that ever became durable, and what was promised about it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    entries: BTreeMap<Dot, Entry>,
    acknowledged: BTreeSet<Dot>,
    /// Entries of which the last copy was on a disk that was rolled back.
    excused: BTreeSet<Dot>,
    /// Times that an entry came to a node.
    deliveries: BTreeMap<(usize, Dot), u32>,
    /// Digests that came to any node.
    pub(crate) digests: u64,
    pub(crate) lost: usize,
    pub(crate) recovered: usize,
    rolled_back: BTreeSet<Dot>,
}

impl Oracle {
    /// Checks what a sync has made durable; its local entries are acknowledged to their clients.
    pub(crate) fn synced(&mut self, node: usize, synced: &Synced, disks: &[Box<dyn Storage>]) {
        for entry in &synced.local {
            let dot = entry.dot();
            if self.entries.contains_key(&dot) {
                let others = disks.iter().enumerate().filter(|(other, _)| *other != node);
                let held = others.map(|(_, disk)| disk).any(|disk| disk.may_hold(dot));
                assert!(self.excused.contains(&dot) && !held, "two entries are {dot:?}");
                self.excused.remove(&dot);
            }
            self.entries.insert(dot, entry.clone());
            self.acknowledged.insert(dot);
        }
        for entry in &synced.remote {
            let admitted = self.entries.get(&entry.dot());
            assert_eq!(admitted, Some(entry), "an entry was invented or changed on its way");
        }
    }

    /// Checks that a frame speaks only of what is durable at its sender, and truly.
    pub(crate) fn sent(&self, frame: &Frame, disk: &dyn Storage) {
        let durable = disk.vector();
        let includes = |vector: &VersionVector, what: &str| {
            assert!(durable.includes(vector), "{what} speaks of more than what is durable");
        };
        match frame {
            Frame::Hello(hello) => includes(&hello.vector, "hello"),
            Frame::Ack { vector } => includes(vector, "ack"),
            Frame::Digest(digest) => includes(&digest.vector, "digest"),
            Frame::Pull(pull) => {
                assert!(pull.after <= durable.sequence(pull.origin), "pull is ahead of the disk");
            }
            Frame::Entries(batch) => {
                for entry in &batch.entries {
                    assert!(durable.contains(entry.dot()), "sent before it was durable");
                    assert_eq!(self.entries.get(&entry.dot()), Some(entry), "sent something else");
                }
            }
            Frame::Names(_) | Frame::Members(_) => {}
        }
    }

    pub(crate) fn delivered(&mut self, node: usize, frame: &Frame) {
        self.digests += u64::from(matches!(frame, Frame::Digest(_)));
        if let Frame::Entries(batch) = frame {
            for entry in &batch.entries {
                *self.deliveries.entry((node, entry.dot())).or_default() += 1;
            }
        }
    }

    /// Takes note of what a rollback loses, and that a last copy may be among it.
    pub(crate) fn rolled_back(
        &mut self,
        before: &VersionVector,
        after: &VersionVector,
        others: &[&dyn Storage],
    ) {
        for dot in before.iter() {
            for sequence in after.sequence(dot.origin).next().0..=dot.sequence.0 {
                let dot = Dot { origin: dot.origin, sequence: Sequence(sequence) };
                let kept = others.iter().any(|disk| disk.vector().contains(dot));
                if kept {
                    self.rolled_back.insert(dot)
                } else {
                    self.excused.insert(dot)
                };
            }
        }
    }

    /// Checks the end: equal replicas that hold everything that was promised.
    ///
    /// What was written at a node that stays down may be on its disk alone.
    pub(crate) fn judge(&mut self, disks: &[Box<dyn Storage>], absent: Option<&dyn Storage>) {
        let first = disks[0].entries();
        for disk in disks {
            let entries = disk.entries();
            check_without_gaps(&entries);
            assert!(entries == first, "replicas differ");
            for entry in &entries {
                assert_eq!(self.entries.get(&entry.dot()), Some(entry), "a stored entry changed");
            }
        }
        let held: BTreeSet<Dot> = first.iter().map(Entry::dot).collect();
        let missing: Vec<&Dot> = self.acknowledged.difference(&held).collect();
        let waits = |dot: Dot| absent.is_some_and(|disk| disk.vector().contains(dot));
        let lost: Vec<&Dot> = missing.into_iter().filter(|dot| !waits(**dot)).collect();
        let unexcused = lost.iter().find(|dot| !self.excused.contains(dot));
        assert_eq!(unexcused, None, "an acknowledged write is lost");
        self.lost = lost.len();
        self.recovered = self.rolled_back.intersection(&held).count();
        let promised =
            self.acknowledged.intersection(&held).filter_map(|dot| self.entries.get(dot));
        let (model, stored) = (sets(promised), sets(&first));
        assert_eq!(model, stored, "the documents are not what the clients wrote");
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Returns how often entries came at all, and how often to a node that had got them before.
    pub(crate) fn deliveries(&self) -> (u64, u64) {
        let all: u64 = self.deliveries.values().map(|&times| u64::from(times)).sum();
        (all, all - self.deliveries.len() as u64)
    }

    pub(crate) fn forget_deliveries(&mut self) {
        self.deliveries.clear();
        self.digests = 0;
    }
}

/// Folds entries into what documents hold: in this model a change adds its bytes to a set.
pub(crate) fn sets<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Sets {
    let mut sets = Sets::new();
    for entry in entries {
        sets.entry(entry.document).or_default().insert(entry.change.clone());
    }
    sets
}

fn check_without_gaps(entries: &[Entry]) {
    let mut last: BTreeMap<Origin, Sequence> = BTreeMap::new();
    for entry in entries {
        let last = last.entry(entry.origin).or_default();
        assert_eq!(entry.sequence, last.next(), "a gap in {}", entry.origin);
        *last = entry.sequence;
    }
}
