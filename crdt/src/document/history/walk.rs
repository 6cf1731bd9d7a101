//! A way back through the changes of a document, the newest first.
//!
//! A change comes after every change that depends on it, and of those that may come, the one with
//! the greatest effective time comes first. To know that nothing else depends on a change, the
//! walk looks ahead, but only at changes with operations as great as those of that change: an
//! operation is greater than all that its writer knew. So a walk costs what it walked, and not
//! what the history is long.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Change, ChangeHash as Hash, ReadDoc};

use crate::document::{Document, message};
use crate::ids::Timestamp;

/// What is told of a change without its operations.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) hash: Hash,
    pub(super) deps: Vec<Hash>,
    /// The effective time.
    pub(super) at: Timestamp,
    /// Whether a policy called for the change.
    pub(super) policy: bool,
    max_op: u64,
}

/// A walk. What is still to come are the changes of [`Walk::ready`] and everything before them.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    document: &'a Document,
    seen: BTreeMap<Hash, Seen>,
    /// Changes whose dependencies have not been counted, by their greatest operation.
    uncounted: BTreeSet<(u64, Hash)>,
    /// Changes on which nothing depends that is still to come.
    ready: BTreeSet<(Timestamp, Hash)>,
}

#[derive(Debug)]
struct Seen {
    node: Node,
    /// How many changes that are still to come depend on it.
    followers: usize,
}

impl<'a> Walk<'a> {
    /// Starts at these changes; unknown ones, and those that come before others, count as nothing.
    pub(super) fn new(document: &'a Document, heads: impl IntoIterator<Item = Hash>) -> Self {
        let mut walk = Self {
            document,
            seen: BTreeMap::new(),
            uncounted: BTreeSet::new(),
            ready: BTreeSet::new(),
        };
        let heads: BTreeSet<Hash> = heads.into_iter().collect();
        let greatest = |head: &Hash| walk.see(*head).map(|seen| seen.node.max_op);
        let lowest = heads.iter().filter_map(greatest).min();
        lowest.into_iter().for_each(|lowest| walk.count_down_to(lowest));
        let ready = heads.iter().filter_map(|head| walk.seen.get(head));
        walk.ready = ready.filter(|s| s.followers == 0).map(|s| (s.node.at, s.node.hash)).collect();
        walk
    }

    /// Returns the heads of what is still to come.
    pub(super) fn ready(&self) -> impl Iterator<Item = Hash> {
        self.ready.iter().map(|(_, hash)| *hash)
    }

    fn see(&mut self, hash: Hash) -> Option<&mut Seen> {
        if !self.seen.contains_key(&hash) {
            let node = self.document.node(hash)?;
            self.uncounted.insert((node.max_op, hash));
            self.seen.insert(hash, Seen { node, followers: 0 });
        }
        self.seen.get_mut(&hash)
    }

    /// Counts the followers of every change whose greatest operation is at least `lowest`.
    fn count_down_to(&mut self, lowest: u64) {
        while let Some(&(max_op, hash)) = self.uncounted.last() {
            if max_op < lowest {
                return;
            }
            self.uncounted.pop_last();
            for dep in self.deps(hash) {
                let followers = self.see(dep).map(|seen| &mut seen.followers);
                followers.into_iter().for_each(|followers| *followers += 1);
            }
        }
    }

    fn deps(&self, hash: Hash) -> Vec<Hash> {
        self.seen.get(&hash).map(|seen| seen.node.deps.clone()).unwrap_or_default()
    }
}

impl Iterator for Walk<'_> {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        let (_, hash) = self.ready.pop_last()?;
        let node = self.seen.get(&hash)?.node.clone();
        self.count_down_to(node.max_op);
        let lowest = node.deps.iter().filter_map(|dep| self.seen.get(dep)).map(|s| s.node.max_op);
        lowest.min().into_iter().for_each(|lowest| self.count_down_to(lowest));
        for dep in &node.deps {
            let Some(seen) = self.seen.get_mut(dep) else { continue };
            seen.followers = seen.followers.saturating_sub(1);
            if seen.followers == 0 {
                self.ready.insert((seen.node.at, *dep));
            }
        }
        Some(node)
    }
}

/// Reads changes back, the first ones one by one, and when there is no end to them all at once:
/// alone a change costs some tens of times what it costs together with all others.
pub(super) struct Reader<'a> {
    document: &'a Document,
    read: usize,
    all: BTreeMap<Hash, Change>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self { document, read: 0, all: BTreeMap::new() }
    }

    pub(super) fn change(&mut self, hash: &Hash) -> Option<Change> {
        self.read = self.read.saturating_add(1);
        if self.read == READ_ALONE {
            let all = self.document.doc.get_changes(&[]).into_iter();
            self.all = all.map(|change| (change.hash(), change)).collect();
        }
        let known = self.all.remove(hash);
        known.or_else(|| self.document.doc.get_change_by_hash(hash))
    }
}

/// Changes that are read one by one.
const READ_ALONE: usize = 200;

impl Document {
    fn node(&self, hash: Hash) -> Option<Node> {
        let meta = self.doc.get_change_meta_by_hash(&hash)?;
        Some(Node {
            hash,
            at: self.admissions.effective(&hash, meta.timestamp),
            policy: meta.message.as_deref().is_some_and(message::is_policy),
            max_op: meta.max_op,
            deps: meta.deps,
        })
    }

    /// Returns the heads of what had happened by a time: every change with an effective time up to
    /// it, and what these follow. A change that a policy called for bears the time of the value
    /// that won, which may be earlier than those that lost; it counts once all that it decides
    /// about had happened.
    pub(super) fn frontier_at(&self, time: Timestamp) -> Vec<Hash> {
        let mut walk = Walk::new(self, self.doc.get_heads());
        let (mut heads, mut before) = (BTreeSet::new(), BTreeSet::new());
        let (mut later, mut policies) = (BTreeSet::new(), Vec::new());
        while walk.ready().any(|hash| !before.contains(&hash)) {
            let Some(node) = walk.next() else { break };
            let known = before.contains(&node.hash);
            if known || (node.at <= time && !node.policy) {
                before.extend(node.deps);
                if !known {
                    heads.insert(node.hash);
                }
                continue;
            }
            later.insert(node.hash);
            if node.at <= time {
                policies.push(node);
            }
        }
        // What the walk did not come to is before something that had happened.
        for node in policies.into_iter().rev() {
            if node.deps.iter().all(|dep| !later.contains(dep)) {
                later.remove(&node.hash);
                heads.retain(|head| !node.deps.contains(head));
                heads.insert(node.hash);
            }
        }
        heads.into_iter().collect()
    }
}
