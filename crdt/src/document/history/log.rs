//! The changes of a document, a page at a time, the newest first.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use automerge::legacy::{Key, ObjectId, Op, OpType};
use automerge::{Change, ChangeHash as Hash, ObjId, ObjType, ReadDoc};

use super::walk::{Node, Walk};
use crate::document::register::{Places, Register, operation_name, path_at, register_in};
use crate::document::{Document, writer};
use crate::edit::Path;
use crate::ids::{ChangeHash, NameError, Origin, Timestamp};
use crate::message::Message;

/// A change, as the history tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub hash: ChangeHash,
    /// The changes that it follows at once.
    pub deps: Vec<ChangeHash>,
    /// The writer: the leader's origin, or the client's own id.
    pub writer: Origin,
    /// The leader that admitted it, which tells the region.
    pub leader: Origin,
    /// When it was written, by the writer's clock, never later than its admission.
    pub at: Timestamp,
    /// What it is for, who asked for it, and why.
    pub message: Message,
    /// How many operations it holds.
    pub operations: usize,
    /// The places that it wrote, removed or inserted, without what is inside the objects that it
    /// made, at most [`MAX_PATHS`]. Indices are those after the change; of what it removed, those
    /// before.
    pub paths: Vec<Path>,
}

/// Part of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The changes. A page may be short, even empty, and not be the last.
    pub changes: Vec<Recorded>,
    /// Where the next page goes on; `None` after the last.
    pub next: Option<HistoryCursor>,
}

/// Where a page of a history goes on: the heads of the changes that are still to come, so changes
/// that arrive meanwhile move nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryCursor {
    /// These, and everything before them.
    Heads(Vec<ChangeHash>),
    /// What follows this change; used where the heads are too many to write down.
    After(ChangeHash),
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(change) => write!(f, "{AFTER}{change}"),
            Self::Heads(heads) => {
                let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
                f.write_str(&heads.join("."))
            }
        }
    }
}

impl FromStr for HistoryCursor {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix(AFTER) {
            Some(change) => change.parse().map(Self::After),
            None => text.split('.').map(str::parse).collect::<Result<_, _>>().map(Self::Heads),
        }
    }
}

impl Document {
    /// Returns up to `limit` changes, the newest first: by effective time, but no change before one
    /// that follows it. Under `within` only those that touched it, something in it, or something
    /// around it. `None` if the cursor is of another document.
    #[must_use]
    pub fn history(
        &self,
        within: Option<&Path>,
        from: Option<&HistoryCursor>,
        limit: usize,
    ) -> Option<HistoryPage> {
        let mut walk = self.walk_from(from)?;
        let mut places = Places::new(&self.doc);
        let (mut changes, mut scanned, mut last) = (Vec::new(), 0, None);
        while changes.len() < limit && scanned < MAX_SCANNED {
            let Some(node) = walk.next() else { break };
            scanned += 1;
            last = Some(node.hash);
            let Some(change) = self.doc.get_change_by_hash(&node.hash) else { continue };
            changes.extend(self.recorded(&mut places, &node, &change, within));
        }
        let heads: Vec<_> = walk.ready().map(|hash| ChangeHash(hash.0)).collect();
        let next = match last {
            Some(last) if heads.len() > MAX_CURSOR_HEADS => {
                Some(HistoryCursor::After(ChangeHash(last.0)))
            }
            _ => Some(HistoryCursor::Heads(heads.clone())),
        };
        Some(HistoryPage { changes, next: next.filter(|_| !heads.is_empty()) })
    }

    fn walk_from(&self, cursor: Option<&HistoryCursor>) -> Option<Walk<'_>> {
        match cursor {
            None => Some(Walk::new(self, self.doc.get_heads())),
            Some(HistoryCursor::Heads(heads)) => {
                let known = heads.iter().all(|head| self.contains(*head));
                known.then(|| Walk::new(self, heads.iter().map(|head| Hash(head.0))))
            }
            Some(HistoryCursor::After(change)) => {
                let mut walk = Walk::new(self, self.doc.get_heads());
                walk.find(|node| node.hash.0 == change.0).map(|_| walk)
            }
        }
    }

    fn recorded(
        &self,
        places: &mut Places<'_>,
        node: &Node,
        change: &Change,
        within: Option<&Path>,
    ) -> Option<Recorded> {
        let paths = self.touched_paths(places, change, within)?;
        let writer = writer(change.actor_id());
        Some(Recorded {
            hash: ChangeHash(node.hash.0),
            deps: node.deps.iter().map(|dep| ChangeHash(dep.0)).collect(),
            writer,
            leader: self.admissions.leader(&node.hash, writer),
            at: node.at,
            message: Message::read(change.message()),
            operations: change.len(),
            paths,
        })
    }

    /// Returns the first places that a change touched; `None` if none of all is what is looked for.
    fn touched_paths(
        &self,
        places: &mut Places<'_>,
        change: &Change,
        within: Option<&Path>,
    ) -> Option<Vec<Path>> {
        let after = [change.hash()];
        let mut seen = BTreeSet::new();
        let (mut paths, mut found) = (Vec::new(), within.is_none());
        for (register, removed) in self.touched_registers(places, change) {
            if (found && paths.len() >= MAX_PATHS) || !seen.insert(register.clone()) {
                continue;
            }
            let heads = if removed { change.deps() } else { &after };
            let path = path_at(&self.doc, &register, heads);
            found |= within.is_none_or(|within| meet(within, &path));
            if paths.len() < MAX_PATHS && !paths.contains(&path) {
                paths.push(path);
            }
        }
        found.then_some(paths)
    }

    /// Returns the registers that a change touched, and whether each was removed. What is inside an
    /// object that the change made goes without saying, and so do the characters of a text.
    fn touched_registers(&self, places: &mut Places<'_>, change: &Change) -> Vec<(Register, bool)> {
        let decoded = change.decode();
        let mut made = BTreeSet::new();
        let mut registers = Vec::new();
        for (counter, operation) in (decoded.start_op.get()..).zip(&decoded.operations) {
            let name = format!("{counter}@{}", decoded.actor_id.to_hex_string());
            let inside = match &operation.obj {
                ObjectId::Root => false,
                ObjectId::Id(object) => made.contains(&operation_name(object)),
            };
            if matches!(operation.action, OpType::Make(_)) {
                made.insert(name.clone());
            }
            if !inside {
                registers.extend(self.register_of(places, operation, &name));
            }
        }
        registers
    }

    fn register_of(
        &self,
        places: &mut Places<'_>,
        operation: &Op,
        name: &str,
    ) -> Option<(Register, bool)> {
        let ancestors = places.ancestors(&operation.obj)?;
        if let ObjectId::Id(object) = &operation.obj {
            let object = ObjId::Id(object.counter(), object.actor().clone(), 0);
            if matches!(self.doc.object_type(&object), Ok(ObjType::Text)) {
                return ancestors.last().map(|text| (text.register.clone(), false));
            }
        }
        let removed = matches!((&operation.action, &operation.key), (OpType::Delete, Key::Seq(_)));
        let inserted = operation.insert.then_some(name);
        Some((register_in(&ancestors, &operation.key, inserted), removed))
    }
}

/// Tells whether one of the paths is the other, or around it.
fn meet(one: &Path, other: &Path) -> bool {
    one == other || one.is_around(other) || other.is_around(one)
}

/// The most places that are told of one change.
pub const MAX_PATHS: usize = 20;

/// The most changes that are looked at for one page: some tenths of a second.
const MAX_SCANNED: usize = 10_000;

/// The most heads that a cursor names: with more it would not fit into a URL.
const MAX_CURSOR_HEADS: usize = 64;

/// What a cursor starts with that names the change before it.
const AFTER: &str = "after-";
