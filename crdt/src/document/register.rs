//! Registers: the places where values collide, named the same in every region.
//!
//! A register is named by the keys and list elements that lead to it, not by Automerge's object
//! ids. So the fields of two maps that were created concurrently under one key share registers,
//! and so do a field of an object and the same field of the object that replaced it.

use std::collections::BTreeMap;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};
use automerge::{
    ActorId, Automerge, ChangeHash, Cursor, ExpandedChange, ObjId, Prop, ROOT, ReadDoc, Value,
    hydrate,
};

use super::view::{Held, Slot, View, merged_maps};
use crate::edit::Path;

/// One step from the root of a document to a register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A key of a map.
    Key(String),
    /// An element of a list, by the operation that inserted it: `counter@actor`.
    Element(String),
}

/// The steps from the root of a document to a register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Register(pub(super) Vec<Step>);

impl Register {
    /// Returns the register as the tokens of a path; an element's index is not known.
    pub(super) fn tokens(&self) -> Vec<String> {
        let token = |step: &Step| match step {
            Step::Key(key) => key.clone(),
            Step::Element(element) => element.clone(),
        };
        self.0.iter().map(token).collect()
    }

    /// Tells whether one of two registers is the other, or is around it.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| one == other)
    }

    /// Returns text that names the register and nothing else.
    pub(super) fn id(&self) -> String {
        let mut id = String::new();
        for step in &self.0 {
            let (mark, name) = match step {
                Step::Key(key) => ('.', key),
                Step::Element(element) => ('#', element),
            };
            id.push(mark);
            id.push_str(&name.len().to_string());
            id.push(':');
            id.push_str(name);
        }
        id
    }
}

/// Returns where a register was when the document stood at `heads`. A list element's index changes
/// as others come and go, so the ledger fixes it at a point that every region agrees on.
pub(super) fn path_at(doc: &Automerge, register: &Register, heads: &[ChangeHash]) -> Path {
    let token = |step: &Step| match step {
        Step::Key(key) => key.clone(),
        Step::Element(element) => {
            element_index(doc, element, heads).map_or("-".to_owned(), |index| index.to_string())
        }
    };
    Path::from(register.0.iter().map(token).collect::<Vec<_>>())
}

fn element_index(doc: &Automerge, element: &str, heads: &[ChangeHash]) -> Option<usize> {
    let list = match operation(doc, element)?.obj {
        ObjectId::Root => ROOT,
        ObjectId::Id(id) => ObjId::Id(id.counter(), id.actor().clone(), 0),
    };
    let cursor = Cursor::try_from(element).ok()?;
    doc.get_cursor_position(list, &cursor, Some(heads)).ok()
}

/// What stands in a register, and where.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The objects that hold the field, the one that shows first; none if they are gone.
    pub(super) holders: Vec<ObjId>,
    /// Every value.
    pub(super) slots: Vec<Slot>,
}

/// Returns what stands in a register now; `path` is the one that [`path_at`] returns.
pub(super) fn standing_in(
    doc: &Automerge,
    view: &View<'_, Automerge>,
    register: &Register,
    path: &Path,
) -> Standing {
    let mut holders = vec![ROOT];
    let mut slots = Vec::new();
    let mut last = None;
    for (depth, step) in register.0.iter().enumerate() {
        if depth > 0 {
            let above = path.tokens().get(..depth).unwrap_or_default();
            holders = descend(view, &slots, above);
        }
        last = prop(doc, &holders, step).filter(|_| !holders.is_empty());
        slots = last.as_ref().map(|prop| view.slots(&holders, prop)).unwrap_or_default();
    }
    if last.is_none() {
        holders.clear();
    }
    Standing { holders, slots }
}

/// Returns the value of a register at an earlier point, as Automerge holds it.
pub(super) fn value_at(
    doc: &Automerge,
    register: &Register,
    heads: &[ChangeHash],
) -> Option<hydrate::Value> {
    let mut object = ROOT;
    let mut scalar = None;
    for step in &register.0 {
        let prop = match step {
            Step::Key(key) => Prop::Map(key.clone()),
            Step::Element(element) => Prop::Seq(element_in(doc, &object, element, heads)?),
        };
        if scalar.is_some() {
            return None;
        }
        match doc.get_at(&object, prop, heads).ok()?? {
            (Value::Object(_), id) => object = id,
            (Value::Scalar(value), _) => scalar = Some(value.into_owned()),
        }
    }
    match scalar {
        Some(value) => Some(hydrate::Value::Scalar(value)),
        None => ReadDoc::hydrate(doc, object, Some(heads)).ok(),
    }
}

/// Returns the index of an element in the list that holds it.
fn element_in(doc: &Automerge, list: &ObjId, element: &str, heads: &[ChangeHash]) -> Option<usize> {
    // Automerge panics on a cursor into another list.
    let inserted = operation(doc, element)?;
    if object_name(list) != container_name(&inserted) {
        return None;
    }
    let cursor = Cursor::try_from(element).ok()?;
    doc.get_cursor_position(list, &cursor, Some(heads)).ok()
}

/// Returns where a register is now.
pub(super) fn path_now(doc: &Automerge, register: &Register) -> Path {
    path_at(doc, register, &doc.get_heads())
}

pub(super) fn descend(view: &View<'_, Automerge>, slots: &[Slot], tokens: &[String]) -> Vec<ObjId> {
    match view.winner(slots, tokens) {
        Some(winner) if winner.value.is_map() => merged_maps(slots),
        Some(Slot { value: Held::Object(_), operation, .. }) => vec![operation.clone()],
        Some(_) | None => Vec::new(),
    }
}

pub(super) fn prop(doc: &Automerge, holders: &[ObjId], step: &Step) -> Option<Prop> {
    match step {
        Step::Key(key) => Some(Prop::Map(key.clone())),
        Step::Element(element) => {
            let list = holders.first()?;
            // Automerge panics on a cursor into another list.
            let inserted = operation(doc, element)?;
            if object_name(list) != container_name(&inserted) {
                return None;
            }
            let cursor = Cursor::try_from(element.as_str()).ok()?;
            let index = doc.get_cursor_position(list, &cursor, None).ok()?;
            Some(Prop::Seq(index))
        }
    }
}

/// Reads one operation, `counter@actor`, back from its change.
pub(super) fn operation(doc: &Automerge, name: &str) -> Option<Op> {
    let (counter, hash) = change_with(doc, name)?;
    let change = doc.get_change_by_hash(&hash)?;
    let index = usize::try_from(counter.checked_sub(change.start_op().get())?).ok()?;
    change.decode().operations.into_iter().nth(index)
}

/// Returns the counter of an operation, `counter@actor`, and the change that holds it.
fn change_with(doc: &Automerge, name: &str) -> Option<(u64, ChangeHash)> {
    let (counter, actor) = name.split_once('@')?;
    let counter: u64 = counter.parse().ok()?;
    let id = ObjId::Id(counter, ActorId::try_from(actor).ok()?, 0);
    Some((counter, doc.hash_for_opid(&id)?))
}

fn container_name(operation: &Op) -> String {
    match &operation.obj {
        ObjectId::Root => object_name(&ROOT),
        ObjectId::Id(id) => operation_name(id),
    }
}

/// Finds out where objects are, by the operations that made them.
pub(super) struct Places<'a> {
    doc: &'a Automerge,
    known: BTreeMap<String, Option<Vec<Ancestor>>>,
    /// The changes that were read last: most objects of a document are made by a few of them.
    read: BTreeMap<ChangeHash, ExpandedChange>,
}

/// An object on the way from the root to a register.
#[derive(Debug, Clone)]
pub(super) struct Ancestor {
    /// The register that the object stands in.
    pub(super) register: Register,
    /// The operation that made it, `counter@actor`.
    pub(super) object: String,
}

impl<'a> Places<'a> {
    pub(super) fn new(doc: &'a Automerge) -> Self {
        Self { doc, known: BTreeMap::new(), read: BTreeMap::new() }
    }

    /// Returns the objects from the root down to `object`, the root itself left out; `None` for
    /// an object that the document does not know.
    pub(super) fn ancestors(&mut self, object: &ObjectId) -> Option<Vec<Ancestor>> {
        let ObjectId::Id(made_by) = object else { return Some(Vec::new()) };
        let name = operation_name(made_by);
        if let Some(known) = self.known.get(&name) {
            return known.clone();
        }
        let found = self.look_up(&name);
        self.known.insert(name, found.clone());
        found
    }

    fn look_up(&mut self, name: &str) -> Option<Vec<Ancestor>> {
        let made = self.operation(name)?;
        let mut ancestors = self.ancestors(&made.obj)?;
        let register = register_in(&ancestors, &made.key, made.insert.then_some(name));
        ancestors.push(Ancestor { register, object: name.to_owned() });
        Some(ancestors)
    }

    fn operation(&mut self, name: &str) -> Option<Op> {
        let (counter, hash) = change_with(self.doc, name)?;
        if !self.read.contains_key(&hash) {
            let change = self.doc.get_change_by_hash(&hash)?;
            if self.read.len() >= CHANGES_READ {
                self.read.pop_first();
            }
            self.read.insert(hash, change.decode());
        }
        let change = self.read.get(&hash)?;
        let index = usize::try_from(counter.checked_sub(change.start_op.get())?).ok()?;
        change.operations.get(index).cloned()
    }
}

/// Returns the register of an operation inside the innermost of `ancestors`; an insertion makes
/// the register that is named after it.
pub(super) fn register_in(ancestors: &[Ancestor], key: &Key, inserted: Option<&str>) -> Register {
    let mut steps = ancestors.last().map(|inner| inner.register.0.clone()).unwrap_or_default();
    steps.push(match (inserted, key) {
        (Some(element), _) => Step::Element(element.to_owned()),
        (None, Key::Map(key)) => Step::Key(key.to_string()),
        (None, Key::Seq(ElementId::Id(element))) => Step::Element(operation_name(element)),
        (None, Key::Seq(ElementId::Head)) => Step::Element("_head".to_owned()),
    });
    Register(steps)
}

/// Returns the name of an operation, `counter@actor`.
pub(super) fn operation_name(operation: &OpId) -> String {
    format!("{}@{}", operation.counter(), operation.actor().to_hex_string())
}

/// Returns the name of an operation, `counter@actor`.
pub(super) fn object_name(operation: &ObjId) -> String {
    match operation {
        ObjId::Root => "_root".to_owned(),
        ObjId::Id(counter, actor, _) => format!("{counter}@{}", actor.to_hex_string()),
    }
}

/// Changes that are kept while places are found; each may hold some megabytes of operations.
const CHANGES_READ: usize = 8;
