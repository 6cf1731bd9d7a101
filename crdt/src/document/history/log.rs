//! The changes of a document, a page at a time, the newest first.

use std::collections::BTreeSet;
use std::fmt;
use std::iter;
use std::str::FromStr;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpType};
use automerge::{ActorId, Change, ChangeHash as Hash, Cursor, ObjId, ObjType, Prop, ROOT, ReadDoc};

use super::walk::{Node, Reader, Walk};
use crate::document::register::{
    Ancestor, Places, Register, Step, object_name, operation_name, register_in,
};
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
    /// The first places that it wrote, removed or inserted, without what is inside the objects that
    /// it made, at most [`MAX_PATHS`]. Indices are those after the change; of what it removed, those
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
    /// around it; an index in `within` names the element that is there now, wherever it was. `None`
    /// if the cursor is of another document.
    #[must_use]
    pub fn history(
        &self,
        within: Option<&Path>,
        from: Option<&HistoryCursor>,
        limit: usize,
    ) -> Option<HistoryPage> {
        let mut walk = self.walk_from(from)?;
        let within = within.map(|within| self.registers_at(within));
        let mut reader = Reader::new(self);
        let mut finder = Finder { places: Places::new(&self.doc), passed: 0 };
        let (mut changes, mut scanned, mut last) = (Vec::new(), 0, None);
        while changes.len() < limit && scanned < MAX_SCANNED && finder.passed < MAX_PASSED {
            let Some(node) = walk.next() else { break };
            scanned += 1;
            last = Some(node.hash);
            let Some(change) = reader.change(&node.hash) else { continue };
            changes.extend(self.recorded(&mut finder, &node, &change, within.as_deref()));
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
        finder: &mut Finder<'_>,
        node: &Node,
        change: &Change,
        within: Option<&[Register]>,
    ) -> Option<Recorded> {
        let paths = self.touched_paths(finder, change, within)?;
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
        finder: &mut Finder<'_>,
        change: &Change,
        within: Option<&[Register]>,
    ) -> Option<Vec<Path>> {
        let touched = self.touched(&mut finder.places, change);
        let near =
            |touch: &Touch| within.is_none_or(|w| w.iter().any(|w| w.is_near(&touch.register)));
        if within.is_some() && !touched.iter().any(near) {
            return None;
        }
        let after = [change.hash()];
        let mut seen = BTreeSet::new();
        let mut paths = Vec::new();
        for touch in touched.iter().filter(|touch| seen.insert(&touch.register)) {
            let heads = if touch.removed { change.deps() } else { &after };
            let path = self.path_of(touch, heads, &mut finder.passed);
            if !paths.contains(&path) {
                paths.push(path);
            }
            if paths.len() == MAX_PATHS || finder.passed >= MAX_PASSED {
                break;
            }
        }
        Some(paths)
    }

    /// Returns what a change touched. What is inside an object that the change made goes without
    /// saying, and so do the characters of a text.
    fn touched(&self, places: &mut Places<'_>, change: &Change) -> Vec<Touch> {
        let decoded = change.decode();
        let mut made = BTreeSet::new();
        let mut touched = Vec::new();
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
                touched.extend(self.touch(places, operation, &name));
            }
        }
        touched
    }

    fn touch(&self, places: &mut Places<'_>, operation: &Op, name: &str) -> Option<Touch> {
        let around = places.ancestors(&operation.obj)?;
        if let Some(text) = around.last()
            && let Some(object) = object(&text.object)
            && matches!(self.doc.object_type(&object), Ok(ObjType::Text))
        {
            return Some(Touch { register: text.register.clone(), around, removed: false });
        }
        let removed = matches!((&operation.action, &operation.key), (OpType::Delete, Key::Seq(_)));
        let inserted = operation.insert.then_some(name);
        let register = register_in(&around, &operation.key, inserted);
        Some(Touch { register, around, removed })
    }

    /// Returns where something was at these heads.
    fn path_of(&self, touch: &Touch, heads: &[Hash], passed: &mut usize) -> Path {
        // The object of each ancestor holds the step that follows it.
        let holders = iter::once(None).chain(touch.around.iter().map(Some));
        let token = |(step, holder): (&Step, Option<&Ancestor>)| match step {
            Step::Key(key) => key.clone(),
            Step::Element(element) => {
                let list = holder.and_then(|holder| object(&holder.object));
                let index = list.and_then(|list| {
                    *passed = passed.saturating_add(self.doc.length(&list));
                    let cursor = Cursor::try_from(element.as_str()).ok()?;
                    self.doc.get_cursor_position(list, &cursor, Some(heads)).ok()
                });
                index.map_or("-".to_owned(), |index| index.to_string())
            }
        };
        Path::from(touch.register.0.iter().zip(holders).map(token).collect::<Vec<_>>())
    }

    /// Returns the registers that a path names now, those of objects that do not show included. What
    /// has no element at an index of a list is no more than what is around the list.
    fn registers_at(&self, path: &Path) -> Vec<Register> {
        let mut found = vec![(Register(Vec::new()), vec![ROOT])];
        for token in path.tokens() {
            let into =
                |(register, holders): &(Register, Vec<ObjId>)| self.steps(register, holders, token);
            found = found.iter().flat_map(into).collect();
        }
        found.into_iter().map(|(register, _)| register).collect()
    }

    /// Goes one step on from a register, with the objects that stand there.
    fn steps(
        &self,
        from: &Register,
        holders: &[ObjId],
        token: &str,
    ) -> Vec<(Register, Vec<ObjId>)> {
        let to = |step: Step| Register(from.0.iter().cloned().chain([step]).collect());
        let objects = |holder: &ObjId, prop: Prop| {
            let values = self.doc.get_all(holder, prop).unwrap_or_default().into_iter();
            values.filter(|(value, _)| value.is_object()).map(|(_, object)| object)
        };
        let is_list = |holder: &&ObjId| matches!(self.doc.object_type(holder), Ok(ObjType::List));
        let (lists, maps): (Vec<&ObjId>, Vec<&ObjId>) = holders.iter().partition(is_list);
        let inside = maps.iter().flat_map(|map| objects(map, Prop::Map(token.to_owned())));
        let mut steps = vec![(to(Step::Key(token.to_owned())), inside.collect())];
        for list in lists {
            let index = token.parse::<usize>().ok();
            let element = index.and_then(|index| self.element(list, index));
            let element = element.unwrap_or_else(|| "-".to_owned());
            let inside = index.into_iter().flat_map(|index| objects(list, Prop::Seq(index)));
            steps.push((to(Step::Element(element)), inside.collect()));
        }
        steps
    }

    /// Returns the name of the element at an index, which is that of the operation that inserted it.
    fn element(&self, list: &ObjId, index: usize) -> Option<String> {
        let (_, written) = self.doc.get(list, index).ok().flatten()?;
        let ObjId::Id(counter, _, _) = &written else { return None };
        let change = self.doc.get_change_by_hash(&self.doc.hash_for_opid(&written)?)?;
        let at = usize::try_from(counter.checked_sub(change.start_op().get())?).ok()?;
        let operation = change.decode().operations.into_iter().nth(at)?;
        match &operation.key {
            Key::Seq(ElementId::Id(element)) if !operation.insert => Some(operation_name(element)),
            Key::Seq(_) | Key::Map(_) => Some(object_name(&written)),
        }
    }
}

/// What finds the places of a page.
struct Finder<'a> {
    places: Places<'a>,
    /// How many elements were passed on the way to those that were looked for.
    passed: usize,
}

/// Something that a change touched.
struct Touch {
    register: Register,
    /// The objects around it.
    around: Vec<Ancestor>,
    /// Whether it is an element that the change removed.
    removed: bool,
}

/// Returns an object by its name.
fn object(name: &str) -> Option<ObjId> {
    let (counter, actor) = name.split_once('@')?;
    Some(ObjId::Id(counter.parse().ok()?, ActorId::try_from(actor).ok()?, 0))
}

/// The most places that are told of one change.
pub const MAX_PATHS: usize = 20;

/// The most changes that are looked at for one page: some tenths of a second.
const MAX_SCANNED: usize = 10_000;

/// The most elements that are passed for one page, also some tenths of a second: where an element
/// was at a change is found by counting those before it.
const MAX_PASSED: usize = 2_000_000;

/// The most heads that a cursor names: with more it would not fit into a URL.
const MAX_CURSOR_HEADS: usize = 64;

/// What a cursor starts with that names the change before it.
const AFTER: &str = "after-";
