//! Nothing that was durable is lost, nobody hears of what is not durable, and no number is given
//! twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Violation;
use crate::sim::history::{History, Logged, OriginId, Reach, Step};

/// Entries of which the last copy went with a disk.
#[derive(Debug, Default)]
pub(super) struct Excused {
    pub(super) dots: BTreeSet<(OriginId, u64)>,
    /// The changes in them, as far as they were seen.
    pub(super) changes: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Books {
    /// What is on the disk of each node.
    held: BTreeMap<usize, Reach>,
    contents: BTreeMap<(OriginId, u64), u64>,
    changes: BTreeMap<(OriginId, u64), Bytes>,
    excused: Excused,
    found: Vec<Violation>,
}

pub(super) fn check(history: &History) -> (Vec<Violation>, Excused) {
    let mut books = Books::default();
    for (_, step) in &history.steps {
        books.take(step);
    }
    for last in &history.finals {
        let mut ends = Reach::new();
        for entry in &last.log {
            let content = (entry.origin, entry.sequence, entry.content);
            books.same_content(last.node, content, "has");
            let end = ends.entry(entry.origin).or_default();
            if entry.sequence != *end + 1 {
                let what = format!("region-{} has a gap after {end}", last.node);
                books.found.push(Violation::new("durable", what));
            }
            *end = entry.sequence;
        }
        books.opened(last.node, &ends);
    }
    (books.found, books.excused)
}

impl Books {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Durable { node, entry, change, .. } => {
                self.durable(*node, entry, change.as_ref())
            }
            Step::Told { node, whom, upto } => {
                for (origin, sequence) in upto {
                    self.spoken(*node, *origin, *sequence, &format!("{whom:?}"));
                }
            }
            Step::Sent { node, entry } => {
                self.spoken(*node, entry.origin, entry.sequence, "Entries");
                self.same_content(*node, (entry.origin, entry.sequence, entry.content), "sends");
            }
            Step::Replaced { node, left, .. } => self.replaced(*node, left),
            Step::Opened { node, held } => self.opened(*node, held),
        }
    }

    fn durable(&mut self, node: usize, entry: &Logged, change: Option<&Bytes>) {
        let dot = (entry.origin, entry.sequence);
        self.same_content(node, (entry.origin, entry.sequence, entry.content), "stores");
        if let Some(change) = change {
            self.changes.insert(dot, change.clone());
        }
        let held = self.held.entry(node).or_default().entry(entry.origin).or_default();
        if entry.sequence != *held + 1 {
            let what = format!(
                "region-{node} stores {:x}:{} after {held}",
                entry.origin >> 96,
                entry.sequence
            );
            self.found.push(Violation::new("durable", what));
        }
        *held = entry.sequence.max(*held);
    }

    /// One number is one entry, for ever and everywhere.
    fn same_content(&mut self, node: usize, entry: (OriginId, u64, u64), does: &str) {
        let (origin, sequence, content) = entry;
        let known = *self.contents.entry((origin, sequence)).or_insert(content);
        if known != content {
            let what = format!(
                "region-{node} {does} another {:x}:{sequence}: {content:x}, not {known:x}",
                origin >> 96
            );
            self.found.push(Violation::new("one-writer", what));
        }
    }

    fn spoken(&mut self, node: usize, origin: OriginId, sequence: u64, how: &str) {
        let held = self.held.get(&node).and_then(|held| held.get(&origin)).copied();
        let held = held.unwrap_or_default();
        if sequence > held {
            let what = format!(
                "region-{node} speaks of {:x}:{sequence} ({how}), and has {held}",
                origin >> 96
            );
            self.found.push(Violation::new("journal-first", what));
        }
    }

    /// A disk is another: what it held and no other disk holds is gone, and nobody's fault.
    fn replaced(&mut self, node: usize, left: &Reach) {
        let before = self.held.insert(node, left.clone()).unwrap_or_default();
        for (origin, reached) in before {
            let kept = self.held.values().filter_map(|held| held.get(&origin)).max().copied();
            for sequence in kept.unwrap_or_default() + 1..=reached {
                let dot = (origin, sequence);
                self.excused.dots.insert(dot);
                self.excused.changes.extend(self.changes.get(&dot).cloned());
            }
        }
    }

    fn opened(&mut self, node: usize, held: &Reach) {
        let before = self.held.insert(node, held.clone()).unwrap_or_default();
        for (origin, reached) in before {
            let now = held.get(&origin).copied().unwrap_or_default();
            if now < reached {
                let what = format!(
                    "region-{node} had {:x}:{reached}, and has {now} after its restart",
                    origin >> 96
                );
                self.found.push(Violation::new("durable", what));
            }
        }
    }
}
